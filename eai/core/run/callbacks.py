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
from eai.core.signals import StopSignals
from eai.core.style.numerals import spell_number

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


class KeepSignals(L.Callback):
    """Stopping signals stay ours, although Lightning puts a handler of its own around them when it begins.

    That one communicates with the other processes in the middle of whatever they are doing, so that they may wait for
    each other for ever, ends a training with exit status 0, and lets a scoring go on. First among the callbacks, so
    that it is gone before any other one works.

    Args:
        stop: the signals.
    """

    def __init__(self, stop: StopSignals) -> None:
        self._stop = stop

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop.take()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop.take()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop.take()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._stop.take()


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


class Pace(L.Callback):
    """How fast a training goes and how good it has been so far, also before it was resumed.

    Args:
        monitor: the score that decides.
        history: where validation scores are kept.
    """

    def __init__(self, monitor: Monitor, history: History) -> None:
        self._monitor, self._history = monitor, history
        self._started, self._first_step, self._first_epoch = 0.0, 0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._started = time.monotonic()
        self._first_step, self._first_epoch = trainer.global_step, trainer.current_epoch

    @property
    def seconds(self) -> float:
        """Since training started or was resumed."""
        return time.monotonic() - self._started

    def rate(self, trainer: L.Trainer) -> str:
        """Optimisation steps per second."""
        return f"{spell_number((trainer.global_step - self._first_step) / max(self.seconds, 1e-9))} steps/s"

    def best(self) -> list[str]:
        """The best monitored score so far; empty before the first validation."""
        values = [value for _, value in self._history.points.get(self._monitor.score, ())]
        best = max if self._monitor.mode == "max" else min
        return [f"best {spell_number(best(values))}"] if values else []

    def left(self, epoch: int, last: int) -> str:
        """The time that is left if the other epochs take as long."""
        seconds = round(self.seconds / max(epoch - self._first_epoch, 1) * (last - epoch))
        return f"{seconds // 60} min {seconds % 60} s left" if seconds >= 60 else f"{seconds} s left"


class EpochLines(Pace):
    """One line per epoch, with scores only where that epoch brought new ones.

    Args:
        every_n_epochs: and after the first and the last one.
        monitor: the score that decides.
        history: where validation scores are kept.
    """

    def __init__(self, every_n_epochs: int, monitor: Monitor, history: History) -> None:
        super().__init__(monitor, history)
        self._every, self._validated = every_n_epochs, -1

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validated = trainer.current_epoch

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        epoch, last = trainer.current_epoch + 1, trainer.max_epochs or -1
        if epoch % self._every and epoch not in (1, last):
            return
        assert isinstance(pl_module, Task)
        validated = self._validated == trainer.current_epoch
        names = ["train/loss", *(("val/loss", self._monitor.score) if validated else ())]
        latest = pl_module.latest
        said = [f"{name} {spell_number(latest[name])}" for name in dict.fromkeys(names) if name in latest]
        said += [*(self.best() if validated else ()), f"{self.seconds:.1f} s", self.rate(trainer)]
        if epoch < last:
            said.append(self.left(epoch, last))
        epochs_log.info("epoch %*d/%d  %s", len(str(last)), epoch, last, "  ".join(said))


class ProgressBar(Pace):
    """On a terminal: one bar of epochs, with steps per second, loss, monitored score and its best so far.

    Args:
        monitor: the score that decides.
        history: where validation scores are kept.
    """

    def __init__(self, monitor: Monitor, history: History) -> None:
        super().__init__(monitor, history)
        self._row: TaskID | None = None
        columns = (TextColumn("epoch"), MofNCompleteColumn(), BarColumn(None), TimeRemainingColumn())
        self._bar = Progress(*columns, TextColumn("{task.fields[said]}"), refresh_per_second=4)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream in (sys.stdout, sys.stderr):
                # The bar shows it; train.log has the lines.
                handler.addFilter(lambda record: record.name != epochs_log.name)
        self._row = self._bar.add_task("", total=trainer.max_epochs, completed=trainer.current_epoch, said="")
        self._bar.start()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        assert isinstance(pl_module, Task)
        assert self._row is not None
        latest, score = pl_module.latest, self._monitor.score
        scores = [f"{name} {spell_number(latest[name])}" for name in ("train/loss", score) if name in latest]
        self._bar.update(self._row, said="  ".join([self.rate(trainer), *scores, *self.best()]))

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
