"""A reference method whose one parameter is chosen on validation data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from eai.core.learn.data import DataModule
from eai.tasks.recovery.corruptions import Images, Levels
from eai.tasks.recovery.data import Batch

Method = Callable[[Batch], Images]


class Calibrated:
    """A method with the parameter that has the least mean square error on the first validation samples.

    Args:
        method: of a batch and one parameter for each sample.
        grid: of parameters.
        data: whose validation samples are used.
        per_level: the parameter is in units of each sample's level, which the method is told and a net is not.
        samples: of validation data to use.
    """

    def __init__(
        self,
        method: Callable[[Batch, Levels], Images],
        grid: Sequence[float],
        data: DataModule[Batch],
        per_level: bool,
        samples: int = 30,
    ) -> None:
        self._method, self._grid, self._data, self._per_level = method, grid, data, per_level
        self._samples = samples
        self.parameter: float | None = None

    def __call__(self, batch: Batch) -> Images:
        if self.parameter is None:
            val = self._data.batch("val", self._samples)
            self.parameter = min(self._grid, key=lambda p: self._error(val, p))
        return self._applied(batch, self.parameter)

    def _error(self, batch: Batch, parameter: float) -> float:
        squares = (self._applied(batch, parameter) - batch.x).square()
        return float((squares * batch.valid).sum() / batch.valid.sum().clamp(min=1))

    def _applied(self, batch: Batch, parameter: float) -> Images:
        unit = batch.level.clamp(min=1e-3) if self._per_level else torch.ones_like(batch.level)
        return self._method(batch, parameter * unit)
