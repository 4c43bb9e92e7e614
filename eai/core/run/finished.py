"""A finished run, loaded into a notebook or scored again, on its own test data or on others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.seed import isolate_rng
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.configuration.build import build
from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import refuse_shared, resolve
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, MissingFileError
from eai.core.learn.data import DataModule
from eai.core.learn.task import Task
from eai.core.run.board import tensorboard_logger
from eai.core.run.build import build_data_and_task, preflight
from eai.core.run.callbacks import KeepSignals
from eai.core.run.checkpoints import check_checkpoint, load_weights
from eai.core.run.export import check_target, export
from eai.core.run.fit import score_and_report
from eai.core.run.trainer import build_trainer, quiet_lightning
from eai.core.schema import Experiment
from eai.core.signals import StopSignals

# The nodes that an evaluation, or `load_run`, may change.
NODES = ("shared", "data", "model", "accelerator")


@dataclass(frozen=True)
class Run:
    """A run, loaded: its configuration, its task with the best weights, and its data.

    Args:
        config: resolved.
        module: in eval mode.
        found: the data, or why there are none here.
    """

    config: DictConfig
    module: Task
    found: DataModule[Any] | ConfigError

    @property
    def data(self) -> DataModule[Any]:
        """The data; a split is made when it is first asked for.

        Raises:
            ConfigError: their files do not exist here; the module predicts without them.
        """
        if isinstance(self.found, ConfigError):
            raise self.found
        return self.found


def load_run(run_dir: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Load a finished run; see :func:`eai.load_run`."""
    run = RunDirectory.open(run_dir)
    check_checkpoint(run.best)
    try:
        wanted = OmegaConf.from_dotlist(list(overrides))
    except (OmegaConfBaseException, ValueError) as error:
        raise ConfigError(f"overrides: expected key=value, got {list(overrides)}") from error
    if strangers := [str(key) for key in wanted if key not in NODES]:
        raise ConfigError(f"{strangers[0]}: cannot change in a loaded run; expected only {', '.join(NODES)}")
    with isolate_rng(include_cuda=False):
        cfg, experiment, changed = _configured(run, wanted)
        try:
            data, task = _build_fitting(cfg, experiment, changed, run)
        except ConfigError as error:
            if not isinstance(error.__cause__, MissingFileError):
                raise
            try:
                return Run(cfg, _without_data(cfg, run).eval(), error)
            except Exception:  # the run keeps too little to do without, whatever fails first
                raise error from error.__cause__
    return Run(cfg, task.eval(), data)


def _without_data(cfg: DictConfig, run: RunDirectory) -> Task:
    """The task alone: wherever its model names the file of the data, the checkpoint stands in for it."""
    model = OmegaConf.to_container(cfg.model)
    if (path := OmegaConf.select(cfg, "data.path")) is not None:
        model = _renamed(model, path, str(run.best))
    task: Task = build(OmegaConf.create({"model": model}), "model")
    task.make_room(check_checkpoint(run.best))
    load_weights(task, run.best)
    return task


def _renamed(node: Any, old: str, new: str) -> Any:
    """The node with every value that equals ``old`` replaced."""
    if isinstance(node, dict):
        return {name: _renamed(item, old, new) for name, item in node.items()}
    if isinstance(node, list):
        return [_renamed(item, old, new) for item in node]
    return new if node == old else node


def evaluate(cfg: DictConfig) -> tuple[float, RunDirectory]:
    """Score the best checkpoint of a run, with the overrides in ``cfg.data`` and so on.

    Writes ``<run>/evaluations/<time>/``, or ``cfg.output``, with the files of a run directory; the run itself stays as
    it was.

    Args:
        cfg: as composed from ``conf/evaluate.yaml``; with ``export`` the test data and all estimates become a dataset.

    Returns:
        The headline score and the directory of the evaluation.

    Raises:
        ConfigError: not a run, an unreadable checkpoint, overrides that cannot fit it, or nowhere to write.
        Interrupted: a signal came.
    """
    if OmegaConf.is_missing(cfg, "run"):
        raise ConfigError("run: missing; expected the directory of a run, as in eai-evaluate run=outputs/…")
    run = RunDirectory.open(cfg.run)
    check_checkpoint(run.best)
    target = check_target(cfg.export) if cfg.get("export") else None
    quiet_lightning()
    wanted = OmegaConf.create({node: OmegaConf.to_container(cfg[node]) for node in NODES})
    saved, experiment, changed = _configured(run, wanted)
    with StopSignals() as stop:
        data, task = _build_fitting(saved, experiment, changed, run)
        preflight(experiment, data, task, ("test",))
        result = RunDirectory(_place(run, cfg.get("output")))
        try:
            result.path.mkdir(parents=True, exist_ok=True)
            result.save_config(saved)
        except OSError as error:
            raise ConfigError(f"output: cannot write {result.path} ({error.strerror}); name another folder") from error
        with result.tracked():
            # Score in one process, however many trained.
            accelerator = replace(experiment.accelerator, devices=1, num_nodes=1, strategy="auto")
            trainer = build_trainer(saved, result, [KeepSignals(stop)], [tensorboard_logger(result)], accelerator)
            score_and_report(trainer, saved, result, data, task)
            if target:
                export(target, saved, run, data, task)
    return task.final_scores["model"][experiment.headline.score], result


def _place(run: RunDirectory, output: str | None) -> Path:
    """Where an evaluation is written.

    Raises:
        ConfigError: ``output`` holds files already.
    """
    if output is not None:
        place = Path(output)
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise ConfigError(f"output: expected a new or empty folder, got {output}")
        return place
    return run.path / "evaluations" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S_%f")


def _configured(run: RunDirectory, wanted: DictConfig) -> tuple[DictConfig, Experiment, dict[str, tuple[Any, Any]]]:
    """Change the run's configuration; return it resolved and checked, and {key: (trained with, wanted)}.

    Overrides are applied before interpolations are resolved: sizes that the model takes from the data follow the data.
    """
    composed = run.load_composed() if any(wanted.values()) else run.load_config()
    changed: dict[str, tuple[Any, Any]] = {}
    for node in NODES:
        if node in wanted:
            _replace(composed, node, OmegaConf.to_container(wanted[node]), changed)
    cfg = resolve(composed)
    return cfg, check_experiment(cfg), changed


def _replace(composed: DictConfig, key: str, value: Any, changed: dict[str, tuple[Any, Any]]) -> None:
    """Set ``key`` to ``value``: as a whole where the class changes, leaf by leaf where it stays.

    A value that names its class is whole: what it does not have is taken away.
    """
    before = OmegaConf.select(composed, key, default=None)
    same_class = not isinstance(value, dict) or value.get("_target_") in (None, getattr(before, "_target_", None))
    if isinstance(value, dict) and same_class and OmegaConf.is_dict(before):
        for name in [str(name) for name in before if "_target_" in value and name not in value]:
            changed[f"{key}.{name}"] = (OmegaConf.select(composed, f"{key}.{name}", default=None), None)
            del before[name]
        for name, item in value.items():
            _replace(composed, f"{key}.{name}", item, changed)
        return
    before = OmegaConf.to_container(before) if OmegaConf.is_config(before) else before
    if before != value:
        refuse_shared(composed, [key])
        changed[key] = (before, value)
        OmegaConf.update(composed, key, value, merge=False, force_add=True)


def _build_fitting(
    cfg: DictConfig, experiment: Experiment, changed: dict[str, tuple[Any, Any]], run: RunDirectory
) -> tuple[DataModule[Any], Task]:
    told = "; ".join(f"{key}: trained with {before!r}, got {after!r}" for key, (before, after) in changed.items())
    data, task = build_data_and_task(cfg, experiment)
    try:
        load_weights(task, run.best)
    except ConfigError as error:
        raise ConfigError(f"{told or run.path}: does not fit the checkpoint ({error})") from error
    return data, task
