"""What happens around the training steps of every run."""

from __future__ import annotations

import logging
import signal
import time
from collections import defaultdict
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from eai.core.data import DataModule, EpochOrder
from eai.core.errors import Interrupted
from eai.core.figures import log_drawings
from eai.core.rundir import RunDirectory
from eai.core.task import Task

log = logging.getLogger("eai")
FIGURE_SAMPLES = 6


class History(L.Callback):
    """All scalars of train and validation by epoch, kept in the checkpoint, for the learning curves."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = defaultdict(list)
        self._seen: set[str] = set()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._collect(trainer, "val/")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._collect(trainer, "train/")

    def _collect(self, trainer: L.Trainer, prefix: str) -> None:
        for name, value in trainer.callback_metrics.items():
            points = self.points[name]
            if name.startswith(prefix) and (not points or points[-1][0] < trainer.current_epoch):
                points.append((trainer.current_epoch, float(value)))

    def state_dict(self) -> dict[str, Any]:
        return {"points": {name: list(points) for name, points in self.points.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.points = defaultdict(list, {name: list(points) for name, points in state_dict["points"].items()})


class MovableCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that keeps its memory when the run directory was moved or copied."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        before, now = str(state_dict["dirpath"]), str(self.dirpath)

        def moved(value: Any) -> Any:
            if isinstance(value, dict):
                return {moved(key): item for key, item in value.items()}
            return now + value.removeprefix(before) if isinstance(value, str) and value.startswith(before) else value

        super().load_state_dict({name: moved(value) for name, value in state_dict.items()})


class EpochLines(L.Callback):
    """One line per epoch, for logs and terminals without a cursor."""

    def __init__(self, every_n_epochs: int, monitor: str) -> None:
        self._every, self._monitor, self._started = every_n_epochs, monitor, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs or -1
        if epoch % self._every and epoch not in (1, last):
            return
        metrics = trainer.callback_metrics
        wanted = dict.fromkeys(("train/loss", "val/loss", self._monitor))
        scores = "  ".join(f"{name} {float(metrics[name]):.4g}" for name in wanted if name in metrics)
        log.info("epoch %*d/%d  %s  %.1f s", len(str(last)), epoch, last, scores, time.monotonic() - self._started)


class FigureWriter(L.Callback):
    """Draw a few validation samples into TensorBoard at chosen epochs."""

    def __init__(self, every_n_epochs: int) -> None:
        self._every = every_n_epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._every or (trainer.current_epoch + 1) % self._every or not trainer.is_global_zero:
            return
        task, data, logger = pl_module, getattr(trainer, "datamodule"), trainer.logger  # noqa: B009
        if isinstance(task, Task) and isinstance(data, DataModule) and isinstance(logger, TensorBoardLogger):
            batch = task.transfer_batch_to_device(data.batch("val", FIGURE_SAMPLES), task.device, 0)
            task.eval()
            log_drawings(task.figures(batch, task.predict(batch)), logger, trainer.global_step)
            task.train()


class StopSignals(L.Callback):
    """On SIGINT, SIGTERM or SIGUSR1: finish the batch, write ``last.ckpt``, leave with ``Interrupted``.

    A second Ctrl-C stops at once. Outside training the signals raise immediately.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._received, self._training = run, 0, False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._previous = {signum: signal.signal(signum, self._handle) for signum in self._SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        again = bool(self._received)
        self._received = signum
        if again or not self._training:
            raise Interrupted(signum)
        log.warning("%s: stopping after this batch; once more stops at once", signal.Signals(signum).name)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = True
        self._skip_seen_samples(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._training = False

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if self._received:
            self._training = False
            trainer.save_checkpoint(self._run.last)
            log.info(
                "stopped by %s; continue with: eai-train resume=%s", signal.Signals(self._received).name, self._run.path
            )
            raise Interrupted(self._received)

    @staticmethod
    def _skip_seen_samples(trainer: L.Trainer) -> None:
        # Lightning counts the batches of an interrupted epoch, but would serve its first ones again.
        loop, loader = trainer.fit_loop, trainer.train_dataloader
        done = loop.epoch_loop.batch_progress.current.ready
        if loader is not None and isinstance(loader.sampler, EpochOrder) and loop.restarting and done < len(loader):
            loader.sampler.skip = done * loader.batch_size
