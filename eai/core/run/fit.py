"""Fit a task, score it beside its baselines, draw it, say where the results are: what each process of a run does."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig

from eai.core.compare.comparison import summary_of_run
from eai.core.config import build, named_by_key
from eai.core.directory import RunDirectory, flat_hyperparameters, write_json
from eai.core.errors import ConfigError
from eai.core.learn.data import SPLITS, DataModule
from eai.core.learn.figures import Drawing, learning_curves, save_drawings, score_curve
from eai.core.learn.ranks import cluster_environment, processes, rank
from eai.core.learn.scores import SampleMeans
from eai.core.learn.task import Task
from eai.core.run.callbacks import FIGURE_SAMPLES, EpochLines, FigureWriter, History, NoProfiler
from eai.core.run.checkpoints import (
    AtomicCheckpointIO,
    BestCheckpoint,
    LastCheckpoint,
    check_checkpoint,
    load_weights,
    weights_file,
)
from eai.core.run.loading import build_data_and_task
from eai.core.run.memory import keep_freed_memory
from eai.core.run.signals import StopSignals
from eai.core.run.steps import EpochLoop
from eai.core.schema import Accelerator, Experiment

log = logging.getLogger("eai")


def fit_and_score(
    cfg: DictConfig,
    experiment: Experiment,
    run: RunDirectory,
    stop: StopSignals,
    checkpoint: Path | None = None,
    gpus: list[int] | None = None,
) -> dict[str, Any]:
    """Train from the start or from ``checkpoint``, score the best weights, and return facts for ``status.json``.

    Args:
        gpus: the devices of this process, where they were chosen for it.
    """
    quiet_lightning()
    step = check_checkpoint(checkpoint)["global_step"] if checkpoint else 0
    data, task = build_data_and_task(cfg, experiment)
    if experiment.init_from and checkpoint is None:
        with named_by_key("init_from"):
            load_weights(task, weights_file(experiment.init_from))
    preflight(experiment, data, task)
    _seed_rank(experiment.seed)
    task.monitored = experiment.monitor.score
    if experiment.compile:
        task.net.compile()
    history, last = History(), LastCheckpoint(run, stop, experiment.reporting)
    best = BestCheckpoint(run, experiment.monitor.score, experiment.monitor.mode)
    drawing = FigureWriter(experiment.figures.every_n_epochs)
    callbacks: list[Callback] = [history, *_progress(experiment), drawing, best, last]
    trainer = build_trainer(cfg, run, callbacks, experiment.accelerator, first_step=step, gpus=gpus)
    with stop.deferred():
        trainer.fit(task, data, ckpt_path=checkpoint, weights_only=True)
    if best.best_model_score is None:
        raise ConfigError("trainer: no validation took place; expected max_epochs ≥ check_val_every_n_epoch")
    load_weights(task, run.best)
    monitored = {**vars(experiment.monitor), "value": float(best.best_model_score)}
    score_and_report(trainer, run, data, task, history)
    if experiment.expect is not None:
        value = task.final_scores["model"][experiment.expect.score]
        verdict = "reached" if experiment.expect.met_by(value) else "NOT reached"
        log.info("expected %s: %s with %.4g", experiment.expect, verdict, value)
    return {
        "monitored": monitored,
        "train_seconds": round(last.seconds, 2),
        "epochs": trainer.current_epoch,
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
        r".*ended before the epoch ended and your dataloader is not resumable.*",  # Batches.skip sees to it
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # inside lightning, by torch 2.13
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        r".*GPU available but not used.*",  # the accelerator was chosen in the configuration
        r".*The `srun` command is available on your system but is not used.*",  # learn.ranks knows what started us
        r".*it is recommended to use `self.log\(.*sync_dist=True\)`.*",  # scores are reduced before they are logged
    ):
        warnings.filterwarnings("ignore", message=message)


def preflight(experiment: Experiment, data: DataModule[Any], task: Task) -> None:
    """Before any training: score one small batch, and check that every score and method named exists."""
    with named_by_key("model.optimizer"):
        task.configure_optimizers()
    data.setup()
    for split in SPLITS:
        if len(data.samples[split]) < processes():
            few = len(data.samples[split])
            raise ConfigError(f"accelerator.devices: expected at most one process per {split} sample ({few})")
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


def _seed_rank(seed: int) -> None:
    """Seed what training draws: rank 0 like a single process, every other one independently of it."""
    L.seed_everything(seed, verbose=False)
    if rank():
        torch.manual_seed(int(np.random.SeedSequence([seed, rank()]).generate_state(1, np.uint32)[0]))


def _progress(experiment: Experiment) -> list[Callback]:
    if rank():
        return []
    if sys.stdout.isatty():
        return [RichProgressBar()]
    return [EpochLines(experiment.reporting.line_every_n_epochs, experiment.monitor.score)]


def build_trainer(
    cfg: DictConfig,
    run: RunDirectory,
    callbacks: list[Callback],
    accelerator: Accelerator,
    first_step: int = 0,
    gpus: list[int] | None = None,
) -> L.Trainer:
    """The Trainer of ``cfg.trainer`` on ``accelerator``, logging into the run directory from ``first_step`` on."""
    if accelerator.threads:
        torch.set_num_threads(accelerator.threads)
    if accelerator.accelerator == "cpu":
        keep_freed_memory()
    # What a killed process logged after the checkpoint it is resumed from is logged again, and not shown twice.
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
        callbacks=callbacks,
        logger=logger,
        default_root_dir=str(run.path),
        enable_progress_bar=sys.stdout.isatty() and rank() == 0,
        accelerator=accelerator.accelerator,
        devices=gpus or accelerator.devices,
        num_nodes=accelerator.num_nodes,
        strategy=accelerator.strategy,
        precision=accelerator.precision,
        plugins=[cluster_environment(), AtomicCheckpointIO()],
        profiler=cfg.trainer.get("profiler") or NoProfiler(),
        # Batches gives every process its own part, without padding.
        use_distributed_sampler=False,
    )
    EpochLoop.install(trainer)
    return trainer


def score_and_report(
    trainer: L.Trainer, run: RunDirectory, data: DataModule[Any], task: Task, history: History | None
) -> None:
    """Score the task and its baselines on the test data; write scores, figures and hyper-parameters."""
    trainer.test(task, data, verbose=False)
    if not trainer.is_global_zero:
        return
    scores = dict(task.final_scores)
    metrics = scores.pop("model")
    write_json(run.metrics, metrics)
    write_json(run.baselines, scores)
    task.eval()
    if measurements := task.measure(data):
        write_json(run.measurements, measurements)
    logger, cfg = trainer.logger, run.load_config()
    if isinstance(logger, TensorBoardLogger):
        # A step that no training has, so that a run killed while it scores shows its scores once.
        after = trainer.global_step + 1
        if cfg.figures.at_end:
            save_drawings(_final_drawings(run, data, task, history), run.figures, logger, after)
        parameters = flat_hyperparameters(cfg) | {"global_batch_size": data.batch_size * processes()}
        logger.log_hyperparams(parameters, metrics | _best_validation_score(trainer, cfg.monitor.score), step=after)
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
