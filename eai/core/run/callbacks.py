"""What happens around the training steps of every run."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from contextlib import nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import Profiler

from eai.core.learn.data import DataModule
from eai.core.learn.figures import log_drawings
from eai.core.learn.task import Task

log = logging.getLogger("eai")
FIGURE_SAMPLES = 6


class NoProfiler(Profiler):
    """Measures nothing at no cost: Lightning's own makes fifty context managers per step to measure nothing."""

    _NOTHING = nullcontext()

    def profile(self, action_name: str) -> nullcontext[None]:  # type: ignore[override]
        return self._NOTHING

    def start(self, action_name: str) -> None:
        pass

    def stop(self, action_name: str) -> None:
        pass


class History(L.Callback):
    """All scalars of train and validation by epoch, kept in the checkpoint, for the learning curves."""

    def __init__(self) -> None:
        self.points: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._collect(trainer, pl_module, "val/")

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._collect(trainer, pl_module, "train/")

    def _collect(self, trainer: L.Trainer, pl_module: L.LightningModule, prefix: str) -> None:
        assert isinstance(pl_module, Task)
        for name, value in pl_module.latest.items():
            points = self.points[name]
            if name.startswith(prefix) and (not points or points[-1][0] < trainer.current_epoch):
                points.append((trainer.current_epoch, value))

    def state_dict(self) -> dict[str, Any]:
        # As one tensor: to pickle thousands of small things takes longer than to write the weights.
        rows = [(number, *point) for number, points in enumerate(self.points.values()) for point in points]
        return {"names": list(self.points), "rows": torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        names = state_dict["names"]
        self.points = defaultdict(list, {name: [] for name in names})
        for number, epoch, value in state_dict["rows"].tolist():
            self.points[names[int(number)]].append((int(epoch), value))


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
        assert isinstance(pl_module, Task)
        metrics = pl_module.latest
        wanted = dict.fromkeys(("train/loss", "val/loss", self._monitor))
        scores = "  ".join(f"{name} {metrics[name]:.4g}" for name in wanted if name in metrics)
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
