"""What happens around the training steps of every run."""

from __future__ import annotations

import logging
import sys
import time
from collections import defaultdict
from contextlib import nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import Profiler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from eai.core.learn.data import DataModule
from eai.core.learn.figures import FIGURE_SAMPLES, log_drawings
from eai.core.learn.task import Task
from eai.core.schema import Monitor

epochs_log = logging.getLogger("eai.epochs")


class NoProfiler(Profiler):
    """Measure nothing, at no cost; Lightning's default opens fifty context managers per step for it."""

    _NOTHING = nullcontext()

    def profile(self, action_name: str) -> nullcontext[None]:  # type: ignore[override]
        return self._NOTHING

    def start(self, action_name: str) -> None:
        pass

    def stop(self, action_name: str) -> None:
        pass


class LastEpochValidates(L.Callback):
    """Validate after the last epoch, whatever the interval between validations is."""

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.current_epoch + 1 == trainer.max_epochs:
            trainer.check_val_every_n_epoch = 1


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
        # Pickling thousands of small objects takes longer than writing the weights: keep them as one tensor.
        rows = [(number, *point) for number, points in enumerate(self.points.values()) for point in points]
        return {"names": list(self.points), "rows": torch.tensor(rows, dtype=torch.float64).reshape(-1, 3)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        names = state_dict["names"]
        self.points = defaultdict(list, {name: [] for name in names})
        for number, epoch, value in state_dict["rows"].tolist():
            self.points[names[int(number)]].append((int(epoch), value))


class EpochLines(L.Callback):
    """One line per epoch, with scores only where that epoch brought new ones."""

    def __init__(self, every_n_epochs: int, monitor: str) -> None:
        self._every, self._monitor, self._started = every_n_epochs, monitor, 0.0
        self._validated = -1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs or -1
        if epoch % self._every and epoch not in (1, last):
            return
        assert isinstance(pl_module, Task)
        names = ["train/loss", *(("val/loss", self._monitor) if self._validated == trainer.current_epoch else ())]
        latest = pl_module.latest
        scores = "  ".join(f"{name} {latest[name]:.4g}" for name in dict.fromkeys(names) if name in latest)
        seconds = time.monotonic() - self._started
        epochs_log.info("epoch %*d/%d  %s  %.1f s", len(str(last)), epoch, last, scores, seconds)


class ProgressBar(L.Callback):
    """On a terminal: one bar of epochs, with steps per second, loss, monitored score and its best so far."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._best: float | None = None
        self._row: TaskID | None = None
        columns = (TextColumn("epoch"), MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[said]}"), refresh_per_second=4)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr):
                # The bar shows it; train.log has the lines.
                handler.addFilter(lambda record: record.name != epochs_log.name)
        self._started, self._first = time.monotonic(), trainer.global_step
        self._row = self._bar.add_task("", total=trainer.max_epochs, completed=trainer.current_epoch, said="")
        self._bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, Task)
        assert self._row is not None
        latest, score = pl_module.latest, self._monitor.score
        rate = (trainer.global_step - self._first) / max(time.monotonic() - self._started, 1e-9)
        said = [
            f"{rate:.3g} steps/s",
            *(f"{name} {latest[name]:.4g}" for name in ("train/loss", score) if name in latest),
        ]
        if self._best is not None:
            said.append(f"best {self._best:.4g}")
        self._bar.update(self._row, said="  ".join(said))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        if (value := pl_module.latest.get(self._monitor.score)) is not None:
            best = max if self._monitor.mode == "max" else min
            self._best = value if self._best is None else best(self._best, value)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self._row is not None:
            self._bar.update(self._row, completed=trainer.current_epoch + 1)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._bar.stop()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._bar.stop()


class FigureWriter(L.Callback):
    """Draw a few validation samples into TensorBoard at chosen epochs."""

    def __init__(self, every_n_epochs: int) -> None:
        self._every = every_n_epochs

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self._every or (trainer.current_epoch + 1) % self._every or not trainer.is_global_zero:
            return
        task, data, logger = pl_module, getattr(trainer, "datamodule"), next(iter(trainer.loggers), None)  # noqa: B009
        if isinstance(task, Task) and isinstance(data, DataModule) and isinstance(logger, TensorBoardLogger):
            batch = task.transfer_batch_to_device(data.batch("val", FIGURE_SAMPLES), task.device, 0)
            task.eval()
            log_drawings(task.figures(batch, task.predict(batch)), logger, trainer.global_step)
            task.train()
