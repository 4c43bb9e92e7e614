"""What tests let other processes do: those start from one that has torch already, without the checks of shapes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.distributed as dist
from omegaconf import OmegaConf

from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, Interrupted
from eai.core.learn.ranks import Agreement, from_rank_zero, gather, same_everywhere
from eai.core.run.checkpoints import LastCheckpoint
from tests.runs import train_in


def start(target: Any, *arguments: Any) -> Any:
    """A process that has torch and eai from its start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.core.run.children"])
    process = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def trainer_of(hooked: Any, arguments: tuple[Any, ...]) -> L.Trainer:
    """Of a hook of a callback, or of a LightningModule."""
    return arguments[0] if arguments and isinstance(arguments[0], L.Trainer) else hooked.trainer


def train_strictly(directory: Path, overrides: tuple[str, ...]) -> None:
    """Train with one thread; warnings are errors, as in the tests' own process."""
    warnings.simplefilter("error")
    # As in pyproject.toml: torch_geometric scripts a few classes at import.
    warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
    torch.set_num_threads(1)
    train_in(directory, overrides)


def trained(directory: Path, overrides: tuple[str, ...]) -> RunDirectory:
    """A run made as a user makes it: in a process of its own, with one thread, without the checks around every call."""
    process = start(train_strictly, directory, (*overrides, "accelerator.threads=1", "figures.at_end=false"))
    process.join()
    assert process.exitcode == 0
    return RunDirectory(directory)


def train_and_die(directory: Path, overrides: tuple[str, ...], step: int) -> None:
    """Train, and end as by `kill -9` at the start of the step after ``step``."""
    original = LastCheckpoint.on_train_batch_start

    def dying(self: LastCheckpoint, trainer: L.Trainer, *rest: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        original(self, trainer, *rest)

    LastCheckpoint.on_train_batch_start = dying  # type: ignore[method-assign]
    train_until_stopped(directory, overrides)


def train_until_stopped(directory: Path, overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    try:
        train_in(directory, overrides)
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from None


def agree_in_a_group(rank: int, folder: str) -> None:
    """One of two processes that gather, agree and refuse together."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    assert gather(rank) == [0, 1]
    assert Agreement(rank, 7 - rank).result() == [1, 7]
    assert from_rank_zero(lambda: rank) == 0

    def refuse() -> None:
        raise ConfigError("as rank 0 says")

    with pytest.raises(ConfigError, match="as rank 0 says"):
        from_rank_zero(refuse)
    same_everywhere(OmegaConf.create({"a": {"b": 1}}))
    different = OmegaConf.create({"a": {"b": rank}, "d": 3, **({"c": 1} if rank else {})})
    with pytest.raises(ConfigError, match=r"^a\.b, c: expected the same in all processes"):
        same_everywhere(different)
    dist.destroy_process_group()
