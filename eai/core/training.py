"""Train one experiment in its run directory, score it, draw it, and say where the results are."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from eai.core.callbacks import FIGURE_SAMPLES, EpochLines, FigureWriter, History, MovableCheckpoint, StopSignals
from eai.core.comparison import summary_of_run
from eai.core.config import build, check_experiment, named_by_key, resolve
from eai.core.data import DataModule
from eai.core.errors import ConfigError
from eai.core.figures import Drawing, learning_curves, save_drawings, score_curve
from eai.core.hyperparameters import flat_hyperparameters
from eai.core.loading import build_data_and_task, check_checkpoint, load_weights
from eai.core.rundir import RunDirectory, write_json
from eai.core.schema import Accelerator, Experiment
from eai.core.scores import SampleMeans
from eai.core.task import Task

log = logging.getLogger("eai")


def train(cfg: DictConfig, run_dir: str | Path, overrides: Sequence[str] = ()) -> float:
    """Run one experiment and return its monitored score on the validation data (best checkpoint).

    Args:
        cfg: as composed from ``conf/train.yaml``.
        run_dir: where everything is written; with ``cfg.resume``, the run to continue.
        overrides: of the command line; a resumed run checks and applies them.

    Raises:
        ConfigError: the configuration cannot work; raised before any training.
        NonFiniteLossError: the loss stopped being a number; the checkpoints written before stay.
        Interrupted: a signal stopped the training, after ``last.ckpt`` was written.
    """
    run = RunDirectory(run_dir)
    cfg = _resumed_config(cfg, run, overrides) if cfg.get("resume") else resolve(cfg)
    quiet_lightning()
    # The directory's status speaks of this run from here on, also of a configuration that fails.
    with run.tracked():
        if not cfg.resume:
            run.save_config(cfg)
        experiment = check_experiment(cfg)
        data, task = build_data_and_task(cfg, experiment)
        preflight(experiment, data, task)
        L.seed_everything(experiment.seed, verbose=False)
        return _fit_and_score(cfg, experiment, run, data, task)


def _resumed_config(cfg: DictConfig, run: RunDirectory, overrides: Sequence[str]) -> DictConfig:
    """The configuration of the run to resume; ``trainer.*``, ``figures.*`` and ``reporting.*`` may change."""
    saved = run.load_config()
    check_checkpoint(run.last)
    allowed = ("trainer.", "figures.", "reporting.")
    for override in overrides:
        key = override.partition("=")[0]
        if key == "resume":
            continue
        if not key.startswith(allowed):
            raise ConfigError(f"{key}: cannot change in a resumed run; expected only {', '.join(allowed)}…")
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key))
    saved.resume = str(run.path)
    return saved


def quiet_lightning() -> None:
    """Let Lightning's messages pass through the root logger only, and drop its advertisements."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    for message in (
        r".*does not have many workers.*",  # whole batches are sliced from tensors in memory
        r".*smaller than the logging interval.*",  # scalars are logged once per epoch
        r".*ended before the epoch ended and your dataloader is not resumable.*",  # EpochOrder.skip sees to it
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # inside lightning, by torch 2.13
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        r".*GPU available but not used.*",  # the accelerator was chosen in the configuration
    ):
        warnings.filterwarnings("ignore", message=message)


def preflight(experiment: Experiment, data: DataModule[Any], task: Task) -> None:
    """Before any training: score one small batch, and check that every score and method named exists."""
    with named_by_key("model.optimizer"):
        task.configure_optimizers()
    data.setup()
    batch = data.batch("val", FIGURE_SAMPLES)
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


def build_trainer(cfg: DictConfig, run: RunDirectory, callbacks: list[Callback], accelerator: Accelerator) -> L.Trainer:
    """The Trainer of ``cfg.trainer`` on ``accelerator``, logging into the run directory."""
    if accelerator.threads:
        torch.set_num_threads(accelerator.threads)
    logger = TensorBoardLogger(run.path, name=None, version="tensorboard", default_hp_metric=False)
    return build(
        cfg,
        "trainer",
        callbacks=callbacks,
        logger=logger,
        default_root_dir=str(run.path),
        enable_progress_bar=sys.stdout.isatty(),
        accelerator=accelerator.accelerator,
        devices=accelerator.devices,
        num_nodes=accelerator.num_nodes,
        strategy=accelerator.strategy,
        precision=accelerator.precision,
    )


def _fit_and_score(
    cfg: DictConfig, experiment: Experiment, run: RunDirectory, data: DataModule[Any], task: Task
) -> float:
    monitor, history, signals = experiment.monitor, History(), StopSignals(run)
    best = MovableCheckpoint(
        run.checkpoints, "best", monitor.score, mode=monitor.mode, save_on_train_epoch_end=False,
        enable_version_counter=False,
    )  # fmt: skip
    last = MovableCheckpoint(
        run.checkpoints, "last", every_n_epochs=experiment.reporting.checkpoint_every_n_epochs,
        save_on_train_epoch_end=True, enable_version_counter=False,
    )  # fmt: skip
    show = (
        RichProgressBar()
        if sys.stdout.isatty()
        else EpochLines(experiment.reporting.line_every_n_epochs, monitor.score)
    )
    drawing = FigureWriter(experiment.figures.every_n_epochs)
    trainer = build_trainer(cfg, run, [history, signals, show, drawing, best, last], experiment.accelerator)

    with signals:
        started = time.monotonic()
        trainer.fit(task, data, ckpt_path=str(run.last) if cfg.resume else None, weights_only=True)
        run.note(train_seconds=round(time.monotonic() - started, 2), epochs=trainer.current_epoch)
        if best.best_model_score is None:
            raise ConfigError("trainer: no validation took place; expected max_epochs ≥ check_val_every_n_epoch")
        load_weights(task, run.best)
        score_and_report(trainer, run, data, task, history)
    if experiment.expect is not None:
        value = task.final_scores["model"][experiment.expect.score]
        verdict = "reached" if experiment.expect.met_by(value) else "NOT reached"
        log.info("expected %s: %s with %.4g", experiment.expect, verdict, value)
    return float(best.best_model_score)


def score_and_report(
    trainer: L.Trainer, run: RunDirectory, data: DataModule[Any], task: Task, history: History | None
) -> None:
    """Score the task and its baselines on the test data; write scores, figures and hyper-parameters."""
    trainer.test(task, data, verbose=False)
    scores = dict(task.final_scores)
    metrics = scores.pop("model")
    write_json(run.metrics, metrics)
    write_json(run.baselines, scores)
    task.eval()
    if measurements := task.measure(data):
        write_json(run.measurements, measurements)
    logger, cfg = trainer.logger, run.load_config()
    if isinstance(logger, TensorBoardLogger):
        if cfg.figures.at_end:
            save_drawings(_final_drawings(run, data, task, history), run.figures, logger, trainer.global_step)
        logger.log_hyperparams(flat_hyperparameters(cfg), metrics | _best_validation_score(trainer, cfg.monitor.score))
        logger.finalize("success")
    log.info("%s", summary_of_run(run))


def _final_drawings(
    run: RunDirectory, data: DataModule[Any], task: Task, history: History | None
) -> dict[str, Drawing]:
    batch = task.transfer_batch_to_device(data.batch("test", FIGURE_SAMPLES), task.device, 0)
    estimate = task.predict(batch)
    drawings = {**task.figures(batch, estimate), **task.closing_figures(data, batch, estimate)}
    if history is not None:
        drawings["learning_curves"] = learning_curves(history.points)
        drawings["monitored_score"] = score_curve(history.points, run.load_config().monitor.score)
    return drawings


def _best_validation_score(trainer: L.Trainer, score: str) -> dict[str, float]:
    """The monitored score, for TensorBoard's HParams tab, under a name that no curve has; none in an evaluation."""
    value = getattr(trainer.checkpoint_callback, "best_model_score", None)
    return {} if value is None else {f"best/{score}": float(value)}
