"""Score a finished run again, on its own test data or on others."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eai.core.config import check_experiment, resolve
from eai.core.directory import RunDirectory, flat_keys
from eai.core.errors import ConfigError
from eai.core.learn.data import DataModule
from eai.core.learn.task import Task
from eai.core.run.checkpoints import check_checkpoint, load_weights
from eai.core.run.fit import build_trainer, preflight, quiet_lightning, score_and_report
from eai.core.run.loading import build_data_and_task
from eai.core.schema import Accelerator


def evaluate(cfg: DictConfig) -> float:
    """Score the best checkpoint of ``cfg.run``, with the overrides in ``cfg.data`` and so on.

    Writes ``<run>/evaluations/<time>/`` with the files of a run directory; the run itself stays as it was.

    Raises:
        ConfigError: not a run, an unreadable checkpoint, or overrides that cannot fit it.
    """
    if OmegaConf.is_missing(cfg, "run"):
        raise ConfigError("run: missing; expected the directory of a run, as in eai-evaluate run=outputs/…")
    run = RunDirectory.open(cfg.run)
    check_checkpoint(run.best)
    # With its interpolations alive: sizes that the model took from the data follow the data.
    composed = run.load_composed()
    changed = _apply_overrides(composed, cfg)
    saved = resolve(composed)
    quiet_lightning()
    experiment = check_experiment(saved)
    data, task = _build_fitting(saved, changed, run)
    preflight(experiment, data, task)

    result = RunDirectory(run.path / "evaluations" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f"))
    result.path.mkdir(parents=True)
    result.save_config(saved)
    with result.tracked():
        trainer = build_trainer(saved, result, [], _one_process(experiment.accelerator))
        score_and_report(trainer, result, data, task, history=None)
    return task.final_scores["model"][experiment.headline.score]


def _one_process(accelerator: Accelerator) -> Accelerator:
    """Scoring takes one process, in whatever number a run was trained."""
    return replace(accelerator, devices=1, num_nodes=1, strategy="auto")


def _apply_overrides(composed: DictConfig, cfg: DictConfig) -> dict[str, tuple[Any, Any]]:
    """Put the overrides into the run's composed configuration; return {key: (trained with, asked for)}."""
    wanted: dict[str, Any] = {}
    for node in ("shared", "data", "model", "accelerator"):
        wanted |= flat_keys(OmegaConf.to_container(cfg[node], resolve=True), node)
    changed = {}
    for key, value in wanted.items():
        before = OmegaConf.select(composed, key, default=None)
        before = OmegaConf.to_container(before) if OmegaConf.is_config(before) else before
        if before != value:
            changed[key] = (before, value)
    for key, (_, value) in changed.items():
        OmegaConf.update(composed, key, value, force_add=True)
    return changed


def _build_fitting(
    saved: DictConfig, changed: dict[str, tuple[Any, Any]], run: RunDirectory
) -> tuple[DataModule[Any], Task]:
    told = "; ".join(f"{key}: trained with {before!r}, got {after!r}" for key, (before, after) in changed.items())
    data, task = build_data_and_task(saved, check_experiment(saved))
    try:
        load_weights(task, run.best)
    except ConfigError as error:
        raise ConfigError(f"{told or run.path}: does not fit the checkpoint ({error})") from error
    return data, task
