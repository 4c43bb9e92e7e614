"""Lightning's Trainer for a run: what of the configuration it takes, and what stays quiet."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, Timer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.profilers import AdvancedProfiler, Profiler, SimpleProfiler
from lightning.pytorch.utilities.model_helpers import is_overridden
from omegaconf import DictConfig

from eai.core.configuration.build import build
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.learn.ranks import cluster_environment, processes
from eai.core.run.callbacks import NoProfiler
from eai.core.run.checkpoints import AtomicCheckpointIO
from eai.core.run.memory import keep_freed_memory
from eai.core.schema import Accelerator, Experiment

log = logging.getLogger("eai")
# The Trainer's usual arguments. None: any value, because another key of the configuration sets it.
_USUAL: dict[str, Any] = {
    "_target_": None, "max_epochs": None, "check_val_every_n_epoch": None,
    "limit_train_batches": 1.0, "limit_val_batches": 1.0, "limit_test_batches": 1.0, "num_sanity_val_steps": 0,
    "log_every_n_steps": 1, "deterministic": True, "enable_model_summary": False,
}  # fmt: skip
# Arguments of the Trainer that act between two training steps: each step then needs its own pass through the loop.
_STEP_HOOKS = (
    "on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward", "on_after_backward",
    "on_before_optimizer_step",
)  # fmt: skip
_STEPWISE = ("max_steps", "min_steps", "val_check_interval", "overfit_batches", "profiler")


def quiet_lightning() -> None:
    """Let Lightning's messages pass through the root logger only, and drop its advertisements."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "pytorch_lightning"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    logging.getLogger("lightning.pytorch.callbacks.model_summary").setLevel(logging.INFO)  # only where it is asked for
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    for message in (
        r".*smaller than the logging interval.*",  # scalars are logged once per epoch
        r".*ended before the epoch ended and your dataloader is not resumable.*",  # Batches.start_at sees to it
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # inside lightning, by torch 2.13
        r".*Checkpoint directory .* exists and is not empty.*",  # a resumed run
        r".*Found \d+ module\(s\) in eval mode at the start of training.*",  # as a forecast that is not trained
        r".*GPU available but not used.*",  # the accelerator was chosen in the configuration
        r".*The `srun` command is available on your system but is not used.*",  # learn.ranks knows what started us
        r".*it is recommended to use `self.log\(.*sync_dist=True\)`.*",  # scores are reduced before they are logged
    ):
        warnings.filterwarnings("ignore", message=message)


def unusual(cfg: DictConfig) -> dict[str, Any]:
    """The Trainer's arguments that differ from the usual ones, for the first lines of a run.

    Args:
        cfg: the resolved configuration.
    """
    return {
        name: value
        for name, value in cfg.trainer.items()
        if value is not None and (name not in _USUAL or _USUAL[name] not in (None, value))
    }


def build_callbacks(cfg: DictConfig, experiment: Experiment) -> dict[str, Callback]:
    """Build the configuration's own callbacks, by name; null leaves one out.

    Args:
        cfg: the resolved configuration.
        experiment: its checked top level.

    Raises:
        ConfigError: one cannot be built, or waits for a score that is not logged.
    """
    built: dict[str, Any] = build(cfg, "callbacks") if experiment.callbacks else {}
    callbacks = {name: callback for name, callback in built.items() if callback is not None}
    for name, callback in callbacks.items():
        if not isinstance(callback, Callback):
            raise ConfigError(f"callbacks.{name}: expected a callback or null, got {callback!r}")
        if isinstance(callback, EarlyStopping) and callback.monitor != experiment.monitor.score:
            expected, key = experiment.monitor.score, f"callbacks.{name}.monitor"
            raise ConfigError(f"{key}: expected the monitored score, {expected}, got {callback.monitor!r}")
    return callbacks


def why_stopped(callbacks: Iterable[Callback]) -> str | None:
    """What a callback that ended the training says of it; None if none did.

    Args:
        callbacks: of the configuration.
    """
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
            return callback.stopping_reason_message.removeprefix("Monitored metric ").removesuffix(
                " Signaling Trainer to stop."
            )
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return f"the time of {callback.time_elapsed():.0f} s is over"
    return None


def acts_between_steps(cfg: DictConfig, experiment: Experiment, callbacks: Iterable[Callback]) -> bool:
    """Whether anything acts between two training steps, so that a block must be a single step.

    Args:
        cfg: the resolved configuration.
        experiment: its checked top level.
        callbacks: of the configuration.
    """
    return (
        processes() > 1
        or any(is_overridden(hook, callback, Callback) for callback in callbacks for hook in _STEP_HOOKS)
        or experiment.reporting.checkpoint_every_n_steps is not None
        or cfg.trainer.get("limit_train_batches", 1.0) != 1.0
        or any(cfg.trainer.get(name) is not None for name in _STEPWISE)
    )


def build_trainer(
    cfg: DictConfig,
    run: RunDirectory,
    callbacks: Sequence[Callback],
    loggers: Sequence[Logger],
    accelerator: Accelerator,
    gpus: list[int] | None = None,
) -> L.Trainer:
    """Build the Trainer of ``cfg.trainer``.

    Args:
        cfg: the resolved configuration.
        run: the directory to work in.
        callbacks: of the Trainer.
        loggers: of the Trainer.
        accelerator: where to compute.
        gpus: indices of the GPUs to use; None leaves the choice to ``accelerator``.
    """
    torch.set_num_threads(accelerator.threads or _TORCH_THREADS)
    if accelerator.keep_freed_memory:
        keep_freed_memory()
    trainer: L.Trainer = build(
        cfg,
        "trainer",
        callbacks=list(callbacks),
        logger=list(loggers) or False,
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
