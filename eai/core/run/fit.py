"""What every process of a run does: train a task, score it beside its baselines, draw it, write its files."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, SimpleProfiler
from omegaconf import DictConfig

from eai.core.config import build, named_by_key
from eai.core.directory import RunDirectory, disk_errors_named, hyperparameters, write_json
from eai.core.errors import ConfigError
from eai.core.learn.data import DataModule
from eai.core.learn.figures import FIGURE_SAMPLES, Drawing, learning_curves, save_drawings, score_curve
from eai.core.learn.ranks import cluster_environment, processes, rank
from eai.core.learn.task import Task
from eai.core.run.build import build_data_and_task, preflight, seed_everything
from eai.core.run.callbacks import (
    EpochLines,
    FigureWriter,
    History,
    LastEpochValidates,
    NoProfiler,
    ProgressBar,
)
from eai.core.run.checkpoints import AtomicCheckpointIO, BestCheckpoint, LastCheckpoint, check_checkpoint, load_weights
from eai.core.run.memory import keep_freed_memory
from eai.core.run.signals import StopSignals
from eai.core.schema import Accelerator, Experiment

log = logging.getLogger("eai")
# The Trainer's usual arguments. None: any value, because another key of the configuration sets it.
_USUAL: dict[str, Any] = {
    "_target_": None, "max_epochs": None, "check_val_every_n_epoch": None,
    "limit_train_batches": 1.0, "limit_val_batches": 1.0, "limit_test_batches": 1.0, "num_sanity_val_steps": 0,
    "log_every_n_steps": 1, "deterministic": True, "enable_model_summary": False,
}  # fmt: skip
# Arguments of the Trainer that act between two training steps: each step then needs its own pass through the loop.
_STEPWISE = ("max_steps", "min_steps", "val_check_interval", "overfit_batches", "profiler")


def run_rank(
    cfg: DictConfig,
    experiment: Experiment,
    run: RunDirectory,
    stop: StopSignals,
    checkpoint: Path | None = None,
    gpus: list[int] | None = None,
    built: tuple[DataModule[Any], Task] | None = None,
) -> dict[str, Any]:
    """Train from the start or from ``checkpoint``, score the best weights, and return facts for ``status.json``.

    Args:
        cfg: the resolved configuration.
        experiment: its checked top level.
        run: the directory; rank 0 writes its files.
        stop: the signals that end training at a safe point.
        checkpoint: to go on from; None starts afresh.
        gpus: the devices of this process, where they were chosen for it.
        built: data and task, where they were built and checked before.

    Raises:
        ConfigError: something does not fit; raised before training.
        NonFiniteLossError: the loss stopped being a number.
        ExplodedLossError: it grew to a million times its first epoch's mean.
        DiskFullError: the last good checkpoint stays.
        Interrupted: a signal came; ``last.ckpt`` was written.
    """
    quiet_lightning()
    state = check_checkpoint(checkpoint, resumable=True) if checkpoint else None
    if built is None:
        built = build_data_and_task(cfg, experiment)
        preflight(experiment, *built)
    data, task = built
    if experiment.init_from and state is None:
        with named_by_key("init_from"):
            given = RunDirectory(experiment.init_from)
            load_weights(task, given.best if given.path.is_dir() else given.path)
    seed_everything(experiment.seed, rank())
    task.optimization, task.monitor = experiment.optimization, experiment.monitor
    if experiment.compile:
        task.net.compile()
    data.single_steps = _acts_between_steps(cfg, experiment)
    if state is not None:
        data.start = (state["progress"]["epochs"], state["progress"]["batches"])

    history, best = History(), BestCheckpoint(run, experiment.monitor.score, experiment.monitor.mode)
    last = LastCheckpoint(run, stop, experiment.reporting)
    callbacks = [LastEpochValidates(), history, *_progress(experiment), FigureWriter(experiment.figures.every_n_epochs)]
    trainer = build_trainer(
        cfg, run, [*callbacks, best, last], experiment.accelerator, state["global_step"] if state else 0, gpus
    )
    if rank() == 0 and (changed := _unusual(cfg)):
        log.info("trainer: %s", ", ".join(f"{name}={value}" for name, value in changed.items()))
    with disk_errors_named(run):
        with stop.deferred():
            trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
        best.include_the_end(trainer, task, data)
        load_weights(task, run.best)
        score_and_report(trainer, cfg, run, data, task, history)
    return {
        "monitored": {**vars(experiment.monitor), "value": best.value},
        "train_seconds": round(last.seconds, 2),
        "epochs": task.epochs_done,
        "parameters": sum(p.numel() for p in task.parameters() if p.requires_grad),
        "processes": processes(),
        "global_batch_size": data.batch_size * processes(),
    }


def quiet_lightning() -> None:
    """Let Lightning's messages pass through the root logger only, and drop its advertisements."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    for message in (
        r".*smaller than the logging interval.*",  # scalars are logged once per epoch
        r".*ended before the epoch ended and your dataloader is not resumable.*",  # Batches.start_at sees to it
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # inside lightning, by torch 2.13
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        r".*GPU available but not used.*",  # the accelerator was chosen in the configuration
        r".*The `srun` command is available on your system but is not used.*",  # learn.ranks knows what started us
        r".*it is recommended to use `self.log\(.*sync_dist=True\)`.*",  # scores are reduced before they are logged
    ):
        warnings.filterwarnings("ignore", message=message)


def _unusual(cfg: DictConfig) -> dict[str, Any]:
    """The Trainer's arguments that differ from the usual ones, for the first lines of a run."""
    return {
        name: value
        for name, value in cfg.trainer.items()
        if value is not None and (name not in _USUAL or _USUAL[name] not in (None, value))
    }


def _acts_between_steps(cfg: DictConfig, experiment: Experiment) -> bool:
    """Whether anything acts between two training steps, so that a block must be a single step."""
    return (
        processes() > 1
        or experiment.reporting.checkpoint_every_n_steps is not None
        or cfg.trainer.get("limit_train_batches", 1.0) != 1.0
        or any(cfg.trainer.get(name) is not None for name in _STEPWISE)
    )


def _progress(experiment: Experiment) -> list[Callback]:
    if rank():
        return []
    lines = EpochLines(experiment.reporting.line_every_n_epochs, experiment.monitor.score)
    return [lines, ProgressBar(experiment.monitor)] if sys.stdout.isatty() else [lines]


def build_trainer(
    cfg: DictConfig,
    run: RunDirectory,
    callbacks: Sequence[Callback],
    accelerator: Accelerator,
    first_step: int = 0,
    gpus: list[int] | None = None,
) -> L.Trainer:
    """Build the Trainer of ``cfg.trainer``.

    Args:
        cfg: the resolved configuration.
        run: the directory to log into.
        callbacks: of the Trainer.
        accelerator: where to compute.
        first_step: optimisation steps that were taken before.
        gpus: indices of the GPUs to use; None leaves the choice to ``accelerator``.
    """
    torch.set_num_threads(accelerator.threads or _TORCH_THREADS)
    if accelerator.keep_freed_memory:
        keep_freed_memory()
    # Purge events newer than the checkpoint; they will be logged again.
    purge = (first_step + 1 if first_step else 0) if run.tensorboard.is_dir() else None
    logger = TensorBoardLogger(
        run.path,
        name=None,
        version="tensorboard",
        default_hp_metric=False,
        purge_step=purge,
        max_queue=1000,  # with torch's 10, training waits for the writer's thread
    )
    trainer: L.Trainer = build(
        cfg,
        "trainer",
        callbacks=list(callbacks),
        logger=logger,
        default_root_dir=str(run.path),
        enable_progress_bar=False,
        accelerator=accelerator.accelerator,
        devices=gpus or accelerator.devices,
        num_nodes=accelerator.num_nodes,
        strategy=accelerator.strategy,
        precision=accelerator.precision,
        plugins=[cluster_environment(), AtomicCheckpointIO()],
        profiler=_profiler(cfg.trainer.get("profiler"), run),
        # `Batches` divides the samples, without padding.
        use_distributed_sampler=False,
    )
    return trainer


# Torch's own choice, before any run of this process sets another number.
_TORCH_THREADS = torch.get_num_threads()


def _profiler(name: str | None, run: RunDirectory) -> Profiler:
    """Lightning's ``simple`` or ``advanced`` profiler, writing ``fit-profile.txt`` into the run; none by default."""
    kinds = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}
    if name is None:
        return NoProfiler()
    if name not in kinds:
        raise ConfigError(f"trainer.profiler: expected null, {' or '.join(kinds)}, got {name!r}")
    return kinds[name](dirpath=str(run.path), filename="profile")


def score_and_report(
    trainer: L.Trainer,
    cfg: DictConfig,
    run: RunDirectory,
    data: DataModule[Any],
    task: Task,
    history: History | None = None,
) -> None:
    """Score the task and its baselines on the test data; write scores, figures and hyper-parameters.

    Args:
        trainer: scores in as many processes as it trained in.
        cfg: the resolved configuration.
        run: the directory to write to.
        data: whose test split is scored.
        task: with the weights to score; its ``final_scores`` are set.
        history: of the training, for its curves; None in an evaluation.
    """
    trainer.test(task, data, verbose=False)
    if not trainer.is_global_zero:
        return
    scores = dict(task.final_scores)
    metrics = scores.pop("model")
    write_json(run.metrics, metrics)
    write_json(run.baselines, scores)
    write_json(run.standard_errors, task.standard_errors)
    task.eval()
    costs = task.measure(data)
    write_json(run.measurements, {name: {"seconds_per_sample": seconds, **costs.get(name, {})}
                                  for name, seconds in task.seconds_per_sample.items()})  # fmt: skip
    logger = trainer.logger
    if isinstance(logger, TensorBoardLogger):
        # Log final scores one step past training; rescoring after a crash then overwrites instead of duplicating.
        after = trainer.global_step + 1
        shown = {cfg.headline.score: metrics[cfg.headline.score]}
        if isinstance(best := trainer.checkpoint_callback, BestCheckpoint):
            shown["val_best/" + cfg.monitor.score.removeprefix("val/")] = best.value
        logger.log_hyperparams(hyperparameters(cfg, run.load_overrides()), shown, step=after)
        if cfg.figures.at_end:
            save_drawings(_final_drawings(cfg, data, task, history), run.figures, logger, after)
        logger.finalize("success")


def _final_drawings(cfg: DictConfig, data: DataModule[Any], task: Task, history: History | None) -> dict[str, Drawing]:
    batch = task.transfer_batch_to_device(data.batch("test", FIGURE_SAMPLES), task.device, 0)
    estimate = task.predict(batch)
    drawings = {**task.figures(batch, estimate), **task.closing_figures(data, batch, estimate)}
    if history is not None:
        drawings["learning_curves"] = learning_curves(history.points)
        drawings["monitored_score"] = score_curve(history.points, cfg.monitor.score)
    return drawings
