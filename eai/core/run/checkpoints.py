"""Checkpoints: written whole or not at all, read without executing anything, saved where a run can go on exactly."""

from __future__ import annotations

import io
import shlex
import time
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, Interrupted
from eai.core.files import write_whole
from eai.core.learn.data import DataModule
from eai.core.learn.ranks import Agreement, processes
from eai.core.learn.task import Task
from eai.core.schema import Reporting
from eai.core.signals import StopSignals


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write under a temporary name in the same folder, then rename: a file under its own name is whole."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        # Serialise in memory first: torch's own writer hides that a disk is full.
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, buffer.getbuffer())


class BestCheckpoint(ModelCheckpoint):
    """``best.ckpt``: the weights of the best validation. Works on after the run directory was moved.

    Args:
        run: whose ``best.ckpt`` is written.
        score: the monitored one.
        mode: whether its ``min`` or its ``max`` is best.
    """

    def __init__(self, run: RunDirectory, score: str, mode: str) -> None:
        super().__init__(
            run.checkpoints, "best", score, mode=mode, save_on_train_epoch_end=False, enable_version_counter=False
        )
        self._file, self._validated_step = run.best, -1

    @property
    def value(self) -> float:
        """The best monitored score so far; NaN before the first validation."""
        return float("nan") if self.best_model_score is None else float(self.best_model_score)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self._validated_step = trainer.global_step

    def include_the_end(self, trainer: L.Trainer, task: Task, data: DataModule[Any]) -> None:
        """Validate the final weights if no validation has, as when ``max_steps`` ends training within an epoch."""
        if self._validated_step == trainer.global_step:
            return
        trainer.validate(task, data, verbose=False)
        score = torch.tensor(task.latest[task.monitor.score])
        if self.best_model_score is None or self.check_monitor_top_k(trainer, score):
            self.best_model_score = score
            trainer.save_checkpoint(self._file)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"validated_step": self._validated_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        state_dict = dict(state_dict)
        self._validated_step = state_dict.pop("validated_step")
        before, now = str(state_dict["dirpath"]), str(self.dirpath)

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {moved(key): item for key, item in value.items()}
            return now + value.removeprefix(before) if isinstance(value, str) and value.startswith(before) else value

        super().load_state_dict({name: moved(value) for name, value in state_dict.items()})


class LastCheckpoint(L.Callback):
    """``last.ckpt``: saved at chosen epochs, steps or minutes, at the end, and when the run is told to stop.

    It is saved only where a resumed run can go on as if nothing had happened: after a step that is not the last of
    its epoch, and at the end of an epoch, after validation. The one before stays as ``previous.ckpt``. All processes
    of a run agree on saving and stopping at the same step. ``seconds`` are those of training so far, before
    interruptions too.

    Args:
        run: whose ``last.ckpt`` is written.
        stop: the signals that end training at the next safe point.
        reporting: the intervals.
    """

    def __init__(self, run: RunDirectory, stop: StopSignals, reporting: Reporting) -> None:
        self._run, self._stop, self._reporting = run, stop, reporting
        self._saved_step, self._saved_time = -1, time.monotonic()
        self._started, self.seconds, self._seconds_before = time.monotonic(), 0.0, 0.0
        self._asked: Agreement | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self._seconds_so_far()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds = self._seconds_before = state_dict["seconds"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = self._saved_time = time.monotonic()
        self._saved_step = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if processes() > 1:
            self._asked = self._ask()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        stop, minutes_over = (self._asked or self._ask()).result()
        assert isinstance(pl_module, Task)
        if trainer.is_last_batch or pl_module.accumulating:
            return
        every = self._reporting.checkpoint_every_n_steps
        self._act(trainer, bool(minutes_over or (every and trainer.global_step % every == 0)), stop)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        stop, minutes_over = self._ask().result()
        step_interval = self._reporting.checkpoint_every_n_steps
        due = (trainer.current_epoch + 1) % self._reporting.checkpoint_every_n_epochs == 0
        due |= bool(step_interval and trainer.global_step - self._saved_step >= step_interval)
        self._act(trainer, due or bool(minutes_over), stop)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seconds = self._seconds_so_far()
        # No checkpoint is needed after training; only scoring is repeated.
        (stop,) = Agreement(self._stop.received).result()
        self._act(trainer, trainer.global_step != self._saved_step, stop)

    def _seconds_so_far(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _ask(self) -> Agreement:
        minutes = self._reporting.checkpoint_every_n_minutes
        return Agreement(self._stop.received, bool(minutes and time.monotonic() - self._saved_time >= 60 * minutes))

    def _act(self, trainer: L.Trainer, due: bool, stop: int) -> None:
        if due or (stop and trainer.global_step != self._saved_step):
            self._save(trainer)
        if stop:
            raise Interrupted(stop)

    def _save(self, trainer: L.Trainer) -> None:
        if trainer.is_global_zero:
            self._run.keep_previous_checkpoint()
            # Write what was logged so far: a kill after this checkpoint must not lose it.
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.flush()
        trainer.save_checkpoint(self._run.last)
        self._saved_step, self._saved_time = trainer.global_step, time.monotonic()


def check_checkpoint(path: Path, resumable: bool = False) -> dict[str, Any]:
    """Read a checkpoint without executing anything in it.

    Args:
        path: the file.
        resumable: demand all that training goes on from, not the weights alone.

    Raises:
        ConfigError: it is absent, truncated, not a checkpoint of eai or, for resuming, of an earlier version; names
            the one before it where that is whole.
    """
    try:
        checkpoint = _read(path)
    except ConfigError as error:
        before = path.with_name("previous.ckpt")
        if path.name != "last.ckpt" or not before.is_file():
            raise
        try:
            _read(before)
        except ConfigError:
            raise error from None
        raise ConfigError(
            f"{error}; the one before it is whole: eai-train resume={shlex.quote(str(before))}"
        ) from error
    if resumable and not {"progress", "ranks", "loops"} <= checkpoint.keys():
        raise ConfigError(
            f"{path} was written by an earlier version of eai, or holds weights only, and cannot be resumed; "
            f"init_from={shlex.quote(str(path))} starts a new run from its weights"
        )
    return checkpoint


def _read(path: Path) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ConfigError(f"no checkpoint {path}") from error
    except (RuntimeError, UnpicklingError, EOFError, OSError, ValueError) as error:
        reason = str(error).split(". ")[0].strip() or type(error).__name__
        raise ConfigError(f"{path} is truncated or not a checkpoint of eai: {reason}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ConfigError(f"{path} is not a checkpoint of eai: it has no state_dict")
    return checkpoint


def load_weights(task: Task, path: Path) -> None:
    """Load the weights alone.

    Args:
        task: that receives them.
        path: of the checkpoint.

    Raises:
        ConfigError: names the first tensor that does not fit.
    """
    weights = check_checkpoint(path)["state_dict"]
    own = task.state_dict()
    for name in sorted(own.keys() | weights.keys()):
        ours, theirs = (tuple(w[name].shape) if name in w else "absent" for w in (own, weights))
        if ours != theirs:
            raise ConfigError(f"{path} does not fit the model: {name} is {theirs} there, {ours} here")
    task.load_state_dict(weights)
