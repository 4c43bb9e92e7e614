"""Training steps without the detours: what Lightning's loop does for a plain step, and nothing else.

Lightning passes every step through some twenty hooks, closures and wrappers, which take longer than the arithmetic of a
small net. :class:`EpochLoop` makes the plain step itself: forward, zero the gradients, backward, optimizer, with the
same counters and the hooks at its start and end. Wherever a run asks for more (several processes, another precision,
accumulated or clipped gradients, schedules by step, validation within an epoch, a profiler, a hook within the step), it
leaves the step to Lightning; both give the same numbers, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loops.fetchers import _DataFetcher
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins import Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.model_helpers import is_overridden

from eai.core.learn.task import Task
from eai.core.run.callbacks import NoProfiler

# Hooks within the step, which only Lightning's own loop calls.
_WITHIN = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_WITHIN_MODULE = (
    *_WITHIN, "backward", "optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping",
    "on_before_batch_transfer", "on_after_batch_transfer",
)  # fmt: skip
_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class EpochLoop(_TrainingEpochLoop):
    """Lightning's loop over the batches of an epoch, with a short way for plain steps."""

    @classmethod
    def install(cls, trainer: L.Trainer) -> None:
        """Let ``trainer`` take its training steps through this loop."""
        own = trainer.fit_loop.epoch_loop
        trainer.fit_loop.epoch_loop = cls(trainer, min_steps=own.min_steps, max_steps=own.max_steps)

    def on_run_start(self, data_fetcher: _DataFetcher) -> None:
        super().on_run_start(data_fetcher)
        self._plain = is_plain(self.trainer)
        self._starts = _overridden(_callbacks(self.trainer), "on_train_batch_start")
        self._ends = _overridden(_callbacks(self.trainer), "on_train_batch_end")

    def advance(self, data_fetcher: _DataFetcher) -> None:
        if self.restarting or not self._plain:
            super().advance(data_fetcher)
            return
        trainer, task, progress = self.trainer, self.trainer.lightning_module, self.batch_progress
        assert isinstance(task, Task)
        connector = trainer._logger_connector
        self.val_loop.restarting = False
        batch, _, _ = next(data_fetcher)
        number = self.batch_idx + 1
        progress.is_last_batch = data_fetcher.done
        batch = trainer.strategy.batch_to_device(batch) if batch[0].device != task.device else batch
        progress.increment_ready()
        connector.on_batch_start(batch)
        task._current_fx_name = "on_train_batch_start"
        for start in self._starts:
            start(trainer, task, batch, number)
        if task.on_train_batch_start(batch, number) == -1:
            progress.increment_by(0, is_last_batch=True)
            raise StopIteration
        progress.increment_started()
        loss = self._step(trainer.optimizers[0], task, batch, number)
        progress.increment_processed()
        if self._num_ready_batches_reached():
            self.update_lr_schedulers("epoch", update_plateau_schedulers=False)
        outputs = {"loss": loss}
        task._current_fx_name = "on_train_batch_end"
        for end in self._ends:
            end(trainer, task, outputs, batch, number)
        task.on_train_batch_end(outputs, batch, number)
        task._current_fx_name = None
        progress.increment_completed()
        if self._results:  # what `self.log` was given
            connector.on_batch_end()
            connector.update_train_step_metrics()

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        trainer = self.trainer
        if self._plain and not (self.batch_progress.is_last_batch or trainer.should_stop or trainer.received_sigterm):
            self._batches_that_stepped += 1
        else:
            super().on_advance_end(data_fetcher)

    def _step(self, optimizer: torch.optim.Optimizer, task: Task, batch: Any, number: int) -> torch.Tensor:
        progress = self.automatic_optimization.optim_progress.optimizer
        progress.step.increment_ready()
        task._current_fx_name = "training_step"
        loss = task.training_step(batch, number)
        progress.zero_grad.increment_ready()
        progress.zero_grad.increment_started()
        optimizer.zero_grad()
        progress.zero_grad.increment_completed()
        loss.backward()
        optimizer.step()
        progress.step.increment_completed()
        return loss.detach()


def is_plain(trainer: L.Trainer) -> bool:
    """Whether a training step is forward, zero the gradients, backward and one optimizer's step, on one device."""
    # Trainer's annotations lack these.
    task, data, profiler = trainer.lightning_module, getattr(trainer, "datamodule"), getattr(trainer, "profiler")  # noqa: B009
    return (
        type(trainer.strategy) is SingleDeviceStrategy
        and type(trainer.precision_plugin) is Precision
        and type(profiler) is NoProfiler
        and trainer.accumulate_grad_batches == 1
        and not trainer.gradient_clip_val
        and isinstance(task, Task)
        and task.automatic_optimization
        and len(trainer.optimizers) == 1
        and not isinstance(trainer.optimizers[0], torch.optim.LBFGS)  # calls for the loss several times in a step
        and trainer.val_check_batch in (trainer.num_training_batches, math.inf)  # validation comes after the last step
        and all(s.interval == "epoch" and not s.reduce_on_plateau for s in trainer.lr_scheduler_configs)
        and not any(is_overridden(hook, callback, L.Callback) for callback in _callbacks(trainer) for hook in _WITHIN)
        and not is_overridden("training_step", task, Task)
        and not any(is_overridden(hook, task, L.LightningModule) for hook in _WITHIN_MODULE)
        and not any(is_overridden(hook, data, L.LightningDataModule) for hook in _TRANSFER)
    )


def _callbacks(trainer: L.Trainer) -> list[L.Callback]:
    return trainer.callbacks  # type: ignore[attr-defined]


def _overridden(callbacks: list[L.Callback], hook: str) -> list[Callable[..., None]]:
    return [getattr(callback, hook) for callback in callbacks if is_overridden(hook, callback, L.Callback)]
