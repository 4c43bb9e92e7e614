"""Small runs, made in this process as `eai-train` makes them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import eai.core.run.run
from eai.core.cli import CONFIG_DIR
from eai.core.directory import RunDirectory

# Small and odd, so that a whole run takes a second.
TINY = (
    "task=assimilation",
    "data.n=13",
    "data.network.p=5",
    "data.network.withheld=2",
    "data.n_train=30",
    "data.n_val=7",
    "data.n_test=11",
    "data.batch_size=8",
    "model/assimilation=increment_mlp",
    "model.net.width=9",
    "epochs=3",
    "accelerator.threads=1",
)

Train = Callable[..., RunDirectory]


def composed(config_name: str, overrides: Sequence[str]) -> DictConfig:
    with initialize_config_dir(CONFIG_DIR):
        return compose(config_name, list(overrides))


def train_in(directory: Path, overrides: Sequence[str], in_sweep: bool = False) -> RunDirectory:
    """What `eai-train` does, in this process and in the given directory."""
    cfg = composed("train", overrides)
    eai.core.run.run.train(cfg, directory, overrides, in_sweep=in_sweep)
    return RunDirectory(directory)


def curves_of(run: RunDirectory) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard shows of a run, by step."""
    # TensorBoard reads files in the order of their names, which tell the second: order them by their first event.
    written = sorted(run.tensorboard.glob("events*"), key=_first_event)
    with TemporaryDirectory() as folder:
        for number, path in enumerate(written):
            shutil.copyfile(path, Path(folder) / f"events.out.tfevents.{number:010d}")
        events = EventAccumulator(folder)
        events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag != "train/pace/samples_per_second"]  # no seed reproduces it
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}


def assert_say_what_to_see(captions: Mapping[str, str]) -> None:
    """Each is ``what is shown: what to look for``, short enough to be read at once."""
    for name, caption in captions.items():
        shown, _, look = caption.partition(": ")
        assert len(shown) >= 4, f"{name}: {caption}"
        assert len(look) >= 9, f"{name}: {caption}"
        assert len(caption) <= 125, f"{name}: {caption}"


def _first_event(path: Path) -> float:
    return next(iter(EventFileLoader(str(path)).Load())).wall_time


def assert_same_result(run: RunDirectory, expected: RunDirectory) -> None:
    """Scores, weights, optimizer, schedule and logged curves, to the last bit."""
    assert run.metrics.read_bytes() == expected.metrics.read_bytes()
    one, two = (torch.load(r.last, weights_only=True) for r in (run, expected))
    assert one["global_step"] == two["global_step"]
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "ranks"):
        assert_equal(one[part], two[part])
    assert curves_of(run) == curves_of(expected)


def assert_equal(one: Any, two: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, two)
    elif isinstance(one, dict):
        assert one.keys() == two.keys()
        for key in one:
            assert_equal(one[key], two[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(two)
        for a, b in zip(one, two, strict=True):
            assert_equal(a, b)
    else:
        assert one == two
