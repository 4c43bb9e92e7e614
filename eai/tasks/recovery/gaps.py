"""Gaps as satellites leave them: stripes between swaths, and clouds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from eai.core.errors import require
from eai.tasks.recovery.corruptions import Corruption, Images, Levels, span


class Swath(Corruption):
    """Inclined stripes of equal width are hidden (y = 0), as between the swaths of a satellite's passes.

    Pixel (i, j) is hidden where the fractional part of (j cos α + i sin α)/period + φ is less than the fraction. Each
    sample has an inclination α of its own, to the left or to the right with equal chance, and a phase φ.

    Args:
        fraction: hidden share, in [0, 1], or its range. The level.
        period: distance from one pass to the next, in pixels, more than 0.
        inclination: of the passes from the columns' direction, in degrees from 0 to 90, or its range.
    """

    exact, unit = True, "fraction hidden between swaths"

    def __init__(
        self,
        fraction: float | Sequence[float] = 0.5,
        period: float = 16.0,
        inclination: float | Sequence[float] = (10.0, 30.0),
    ) -> None:
        self.levels, self.period = span("fraction", fraction), period
        self.inclination = span("inclination", inclination)
        require(self.levels[0] >= 0 and self.levels[1] <= 1, "fraction", "0 ≤ fraction ≤ 1", fraction)
        require(period > 0, "period", "more than 0", period)
        inside = self.inclination[0] >= 0 and self.inclination[1] <= 90
        require(inside, "inclination", "0 to 90 degrees", inclination)

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        draw = torch.rand((3, len(x), 1, 1, 1), generator=generator, device=generator.device)
        low, high = self.inclination
        angle = torch.deg2rad(low + (high - low) * draw[0]) * torch.where(draw[1] < 0.5, -1, 1)
        row, column = (torch.arange(n, device=x.device, dtype=x.dtype) for n in x.shape[-2:])
        across = (column * angle.cos() + row[:, None] * angle.sin()) / self.period + draw[2]
        mask = (across - across.floor() >= level[:, None, None, None]).to(x.dtype)
        return x * mask, mask


class Clouds(Corruption):
    """The pixels with the largest values of a smooth random field are hidden (y = 0), as under clouds.

    The field is Gaussian with zero mean and the correlation exp(−d²/2 length²) at a distance d; it is periodic over the
    image. Exactly ⌊fraction · h · w⌋ pixels are hidden.

    Args:
        fraction: hidden share, in [0, 1], or its range. The level.
        length: of the clouds, in pixels, more than 0.
    """

    exact, unit = True, "fraction hidden by clouds"

    def __init__(self, fraction: float | Sequence[float] = 0.5, length: float = 4.0) -> None:
        self.levels, self.length = span("fraction", fraction), length
        require(self.levels[0] >= 0 and self.levels[1] <= 1, "fraction", "0 ≤ fraction ≤ 1", fraction)
        require(length > 0, "length", "more than 0", length)

    def field(self, x: Images, generator: torch.Generator) -> Images:
        """The random field, one for each image."""
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        height, width = x.shape[-2:]
        row, column = torch.fft.fftfreq(height, device=x.device), torch.fft.rfftfreq(width, device=x.device)
        square = row[:, None].square() + column.square()
        # The square root of the correlation's spectrum.
        amplitude = torch.exp(-square * (math.pi * self.length) ** 2)
        return torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=(height, width))

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        rank: Tensor = self.field(x, generator).flatten(1).argsort(1, descending=True).argsort(1)
        hidden = rank < (level[:, None] * rank.shape[1]).floor()
        mask = (~hidden).to(x.dtype).view_as(x)
        return x * mask, mask
