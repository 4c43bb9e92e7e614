"""Stochastic weight averaging: the mean of the weights at the ends of the last epochs."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from eai.core.errors import require


class SWA(WeightAveraging):
    """Validate, keep and score the equal-weight mean of the weights at the end of each epoch, from ``start`` on.

    Before that the weights themselves are validated. The learning rate's schedule stays what it is. Buffers are
    averaged like weights: the running statistics of a batch normalisation are means of those of the epochs, not
    computed anew. (Izmailov et al. 2018.)

    Args:
        start: fraction of the epochs after which averaging begins, 0 ≤ start < 1.
    """

    def __init__(self, start: float = 0.75) -> None:
        require(0 <= start < 1, "start", "0 ≤ start < 1", start)
        super().__init__(avg_fn=self.average)
        self.start, self._first, self._epoch_ends = start, 0, False

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self._first = int(self.start * (trainer.max_epochs or 0))
        super().setup(trainer, pl_module, stage)

    def average(self, averaged: Tensor, current: Tensor, epochs: Tensor) -> Tensor:
        """The new mean; ``epochs``, which checkpoints keep, counts those that have ended before this one."""
        count = int(epochs) - self._first
        if count < 1 or not averaged.is_floating_point():
            return current
        return averaged + (current - averaged) / (count + 1)

    def on_train_batch_end(self, trainer: L.Trainer, *rest: Any) -> None:
        # Before the epoch's validation, which on_train_epoch_end follows.
        self._epoch_ends = trainer.is_last_batch
        super().on_train_batch_end(trainer, *rest)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and self._epoch_ends
