"""Forecasts and observations at stations, with a systematic error that is known exactly."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import DataModule, Split


class Batch(NamedTuple):
    """b samples, one forecast each."""

    forecast: Tensor  # (b,) K from the station's mean
    season: Tensor  # (b,) phase of the year, radians
    height: Tensor  # (b,) km
    truth: Tensor  # (b,) K, the temperature that was observed


def bias(forecast: Tensor, season: Tensor, height: Tensor) -> Tensor:
    """E[forecast − truth | what is known]: too warm on summits in winter, and too moderate in its extremes (K)."""
    return 1.5 * height * torch.cos(season) - 0.2 * forecast + 0.8 * torch.tanh(forecast / 3)


class Stations(DataModule[Batch]):
    """Forecasts f ~ N(0, spread²), truths f − bias(f, season, height) + ε, ε ~ N(0, noise²).

    Args:
        spread: standard deviation of the forecasts, K.
        noise: standard deviation of the part of the error that nobody can predict, K.
        n_train, n_val, n_test: samples of each split.
        batch_size: samples of a training step.
        seed: of the data.
    """

    def __init__(
        self,
        spread: float = 5.0,
        noise: float = 1.0,
        n_train: int = 4000,
        n_val: int = 1000,
        n_test: int = 2000,
        batch_size: int = 100,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, fresh=False)
        require(spread > 0, "spread", "above 0", spread)
        require(noise > 0, "noise", "above 0", noise)
        self.spread, self.noise = spread, noise
        self.sizes: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}
        for split, size in self.sizes.items():
            require(size >= 1, f"n_{split}", "at least 1", size)

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        n = self.sizes[split]
        forecast = self.spread * torch.randn(n, generator=generator)
        season = 2 * math.pi * torch.rand(n, generator=generator)
        height = 3 * torch.rand(n, generator=generator)
        noise = self.noise * torch.randn(n, generator=generator)
        return Batch(forecast, season, height, forecast - bias(forecast, season, height) + noise)
