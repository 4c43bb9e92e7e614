"""What every process of a run does: train a task, score it beside its baselines, draw it, write its files."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig

from eai.core.configuration.build import named_by_key
from eai.core.directory import RunDirectory, disk_errors_named
from eai.core.files import write_json
from eai.core.learn.data import DataModule
from eai.core.learn.figures import FIGURE_SAMPLES, Drawing, learning_curves, save_drawings, score_curve
from eai.core.learn.ranks import processes, rank
from eai.core.learn.task import Task
from eai.core.run.board import Board, hyperparameters
from eai.core.run.build import build_data_and_task, preflight, seed_everything
from eai.core.run.callbacks import (
    EpochLines,
    FigureWriter,
    History,
    KeepSignals,
    LastEpochValidates,
    ProgressBar,
)
from eai.core.run.checkpoints import BestCheckpoint, LastCheckpoint, check_checkpoint, load_weights
from eai.core.run.loggers import build_loggers, publish, published
from eai.core.run.pruning import Pruning
from eai.core.run.trainer import (
    acts_between_steps,
    build_callbacks,
    build_trainer,
    quiet_lightning,
    unusual,
    why_stopped,
)
from eai.core.schema import Experiment
from eai.core.signals import StopSignals
from eai.core.trials import Trial

log = logging.getLogger("eai")


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

    A trial of a search that is pruned is not scored; its facts have ``pruned``, the reason.

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
    _begin(experiment, data, task, state)
    extra = build_callbacks(cfg, experiment)
    data.single_steps = acts_between_steps(cfg, experiment, extra.values())
    watch = _Watch.over(cfg, experiment, run, stop)
    loggers = build_loggers(cfg, experiment, run, state["global_step"] if state else 0)
    trainer = build_trainer(cfg, run, watch.callbacks(extra.values()), loggers, experiment.accelerator, gpus)
    if rank() == 0 and (changed := unusual(cfg)):
        log.info("trainer: %s", ", ".join(f"{name}={value}" for name, value in changed.items()))
    with disk_errors_named(run), published(loggers, cfg, run):
        with stop.deferred():
            trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
        stop.check()  # one that came while the last checkpoint was written
        if (stopped := why_stopped(extra.values())) and rank() == 0:
            log.info("stopped after epoch %d of %d: %s", task.epochs_done, experiment.epochs, stopped)
        if not watch.pruned:
            watch.best.include_the_end(trainer, task, data)
            load_weights(task, run.best)
            score_and_report(trainer, cfg, run, data, task, watch.history)
    return {
        **({"pruned": watch.pruned} if watch.pruned else {}),
        "monitored": {**vars(experiment.monitor), "value": watch.best.value},
        "train_seconds": round(watch.last.seconds, 2),
        "epochs": task.epochs_done,
        **({"stopped": stopped} if stopped else {}),
        "parameters": sum(p.numel() for p in task.parameters() if p.requires_grad),
        "processes": processes(),
        "global_batch_size": data.batch_size * processes(),
    }


def _begin(experiment: Experiment, data: DataModule[Any], task: Task, state: dict[str, Any] | None) -> None:
    """Give task and data what they begin with: weights, random numbers, how to optimise, and where to go on."""
    if experiment.init_from and state is None:
        with named_by_key("init_from"):
            given = RunDirectory(experiment.init_from)
            load_weights(task, given.best if given.path.is_dir() else given.path)
    seed_everything(experiment.seed, rank())
    task.optimization, task.monitor = experiment.optimization, experiment.monitor
    task.headline = experiment.headline.score
    if experiment.compile:
        task.net.compile()
    if state is not None:
        data.start = (state["progress"]["epochs"], state["progress"]["batches"])


@dataclass(frozen=True)
class _Watch:
    """What looks on while a run trains: its scores, its checkpoints, its display, its search."""

    signals: KeepSignals
    history: History
    best: BestCheckpoint
    last: LastCheckpoint
    display: Sequence[Callback]
    pruning: Pruning | None

    @classmethod
    def over(cls, cfg: DictConfig, experiment: Experiment, run: RunDirectory, stop: StopSignals) -> _Watch:
        """What the configuration asks for; only rank 0 has a display of lines and bars."""
        history, monitor = History(), experiment.monitor
        display: list[Callback] = []
        if rank() == 0:
            display.append(EpochLines(experiment.reporting.line_every_n_epochs, monitor, history))
            display += [ProgressBar(monitor, history)] if sys.stdout.isatty() else []
        display.append(FigureWriter(experiment.figures.every_n_epochs))
        display += [Board(cfg, run)] if experiment.tensorboard else []
        trial = Trial.of_this_job() if experiment.pruner.name != "none" else None
        return cls(
            signals=KeepSignals(stop),
            history=history,
            best=BestCheckpoint(run, monitor.score, monitor.mode),
            last=LastCheckpoint(run, stop, experiment.reporting),
            display=display,
            pruning=Pruning(trial, experiment, history) if trial else None,
        )

    def callbacks(self, extra: Iterable[Callback]) -> list[Callback]:
        """In the order in which Lightning calls them; checkpoints last, so that they hold what the others did."""
        pruning = [self.pruning] if self.pruning else []
        return [self.signals, LastEpochValidates(), self.history, *self.display, *extra, *pruning, self.best, self.last]

    @property
    def pruned(self) -> str | None:
        """Why the search stopped the run, if it did."""
        return self.pruning.reason if self.pruning else None


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
    # Log final scores one step past training; rescoring after a crash then overwrites instead of duplicating.
    after = trainer.global_step + 1
    board = next((one for one in trainer.loggers if isinstance(one, TensorBoardLogger)), None)
    if board:
        shown = {cfg.headline.score: metrics[cfg.headline.score]}
        if isinstance(best := trainer.checkpoint_callback, BestCheckpoint):
            shown["val_best/" + cfg.monitor.score.removeprefix("val/")] = best.value
        board.log_hyperparams(hyperparameters(cfg, run.load_overrides(), run), shown, step=after)
    if cfg.figures.at_end:
        save_drawings(_final_drawings(cfg, data, task, history), run.figures, board, after)
    if board:
        board.finalize("success")
    headline = cfg.headline.score
    publish(
        trainer.loggers,
        metrics | {f"baseline/{name}/{headline}": by[headline] for name, by in scores.items() if headline in by},
        run.figures,
        after,
    )


def _final_drawings(cfg: DictConfig, data: DataModule[Any], task: Task, history: History | None) -> dict[str, Drawing]:
    batch = task.transfer_batch_to_device(data.batch("test", FIGURE_SAMPLES), task.device, 0)
    estimate = task.predict(batch)
    drawings = {**task.figures(batch, estimate), **task.closing_figures(data, batch, estimate)}
    if history is not None:
        drawings["learning_curves"] = learning_curves(history.points)
        drawings["monitored_score"] = score_curve(history.points, cfg.monitor.score, cfg.monitor.mode)
    return drawings
