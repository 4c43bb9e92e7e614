"""Build a task and its data from a configuration, and load what a run has learned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from omegaconf import DictConfig

from eai.core.config import build, check_experiment
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.learn.data import DataModule
from eai.core.learn.task import Task
from eai.core.run.checkpoints import load_weights
from eai.core.schema import Experiment


@dataclass(frozen=True)
class Run:
    """A run, loaded: its configuration, its task with the best weights, and its data."""

    config: DictConfig
    module: Task
    data: DataModule[Any]


def build_data_and_task(cfg: DictConfig, experiment: Experiment) -> tuple[DataModule[Any], Task]:
    """Seed, then build. The data have a seed of their own; ``seed`` decides the weights."""
    L.seed_everything(experiment.seed, verbose=False)
    data = build(cfg, "data")
    if not isinstance(data, DataModule):
        raise ConfigError(f"data._target_: expected a DataModule, got {type(data).__name__}")
    task = build(cfg, "model")
    if not isinstance(task, Task):
        raise ConfigError(f"model._target_: expected a Task, got {type(task).__name__}")
    task.check_data(data)
    task.prepare(data)
    return data, task


def load_run(run_dir: str | Path) -> Run:
    """See :func:`eai.load_run`."""
    run = RunDirectory.open(run_dir)
    cfg = run.load_config()
    data, task = build_data_and_task(cfg, check_experiment(cfg))
    load_weights(task, run.best)
    data.setup()
    return Run(cfg, task.eval(), data)
