"""Shapes are checked while the tests run: every jaxtyping annotation in eai becomes an assertion."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 - named as a string below

with install_import_hook("eai", "tests.typechecker.check"):
    import eai.core.evaluation
    import eai.core.training
    import eai.tasks

    for module in pkgutil.walk_packages(eai.tasks.__path__, "eai.tasks."):
        importlib.import_module(module.name)

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import eai.evaluate
from eai.core.command import CONFIG_DIR
from eai.core.rundir import RunDirectory

torch.set_num_threads(1)

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


def train_in(directory: Path, overrides: Sequence[str]) -> RunDirectory:
    """What `eai-train` does, in this process and in the given directory."""
    cfg = composed("train", overrides)
    if not cfg.resume and not directory.exists():
        (directory / ".hydra").mkdir(parents=True)
        OmegaConf.save(cfg, directory / ".hydra" / "config.yaml")  # as Hydra does: interpolations stay alive
    eai.core.training.train(cfg, directory, overrides)
    return RunDirectory(directory)


def curves_of(run: RunDirectory) -> dict[str, list[tuple[int, float]]]:
    """Every scalar that TensorBoard shows of a run, by step."""
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """``train(*overrides, run="name")``: a run in a directory of this test."""
    return lambda *overrides, run="run": train_in(tmp_path / run, overrides)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train_in(tmp_path_factory.mktemp("trained") / "run", TINY)


@pytest.fixture
def finished(trained_once: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of a finished run, free to be damaged."""
    shutil.copytree(trained_once.path, tmp_path / "finished")
    return RunDirectory(tmp_path / "finished")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20240918)


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """The environment of a fresh shell, for commands run as processes."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA", "PL_", "COV"))}
