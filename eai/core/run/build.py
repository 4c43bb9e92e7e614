"""Build the data and the task of a run, and check that they fit each other, before anything is trained."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from eai.core.configuration.build import build, named_by_key
from eai.core.errors import ConfigError
from eai.core.learn.data import SPLITS, DataModule, Split
from eai.core.learn.figures import FIGURE_SAMPLES
from eai.core.learn.ranks import processes
from eai.core.learn.scores import SampleMeans
from eai.core.learn.task import Task
from eai.core.schema import Experiment


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed the generators of Python, NumPy and torch: rank 0 like a single process, others independently of it."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - what a library may use
    torch.manual_seed(seed)
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint32)[0]))


def build_data_and_task(cfg: DictConfig, experiment: Experiment) -> tuple[DataModule[Any], Task]:
    """Seed, then build. The data have a seed of their own; ``seed`` decides the weights.

    Args:
        cfg: the resolved configuration.
        experiment: its checked top level.

    Raises:
        ConfigError: names the key of what cannot be built, or of what does not fit.
    """
    seed_everything(experiment.seed)
    data = build(cfg, "data")
    if not isinstance(data, DataModule):
        raise ConfigError(f"data._target_: expected a DataModule, got {type(data).__name__}")
    task = build(cfg, "model")
    if not isinstance(task, Task):
        raise ConfigError(f"model._target_: expected a Task, got {type(task).__name__}")
    task.check_data(data)
    task.prepare(data)
    return data, task


def preflight(experiment: Experiment, data: DataModule[Any], task: Task, splits: Sequence[Split] = SPLITS) -> None:
    """Score one small batch before training, and check that every score and method named exists.

    Args:
        experiment: the checked top level of the configuration.
        data, task: that it names.
        splits: that are needed.

    Raises:
        ConfigError: names the key of what does not fit.
    """
    with named_by_key("model.optimizer"):
        task.configure_optimizers()
    for split in splits:
        if len(data.samples[split]) < processes():
            few = len(data.samples[split])
            raise ConfigError(f"accelerator.devices: expected at most one process per {split} sample ({few})")
    batch = task.transfer_batch_to_device(data.batch("val", FIGURE_SAMPLES), task.device, 0)
    task.eval()
    means = SampleMeans()
    with named_by_key("model.net"):
        means.update(task.scores(batch, task.predict(batch)))
    task.train()
    scores = {*task.summarise(means.compute()), "loss"}
    named = {"monitor.score": experiment.monitor.score, "headline.score": experiment.headline.score}
    if experiment.expect:
        named["expect.score"] = experiment.expect.score
    for key, name in named.items():
        prefix, _, score = name.partition("/")
        if score not in scores:
            expected = ", ".join(f"{prefix}/{score}" for score in sorted(scores))
            raise ConfigError(f"{key}: expected one of {expected}, got {name!r}")
    methods = sorted(task.baselines(data))
    for key in ("baseline", "optimum"):
        name = getattr(experiment.headline, key)
        if name is not None and name not in methods:
            raise ConfigError(f"headline.{key}: expected one of {', '.join(methods)}, got {name!r}")
