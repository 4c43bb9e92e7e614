"""What happens to an image before the net sees it: ``y, mask, level = corruption(x, generator)``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from eai.core.errors import require
from eai.tasks.recovery.likelihood import GaussianLikelihood, Likelihood

Images = Float[Tensor, "b 1 h w"]
Levels = Float[Tensor, " b"]


def span(name: str, value: float | Sequence[float]) -> tuple[float, float]:
    """(smallest, largest) of a number or of a pair of numbers.

    Args:
        name: of the argument, for the message.
        value: that came.

    Raises:
        ValueError: it is neither.
    """
    ends = (value, value) if isinstance(value, (int, float)) else tuple(value)
    require(len(ends) == 2 and ends[0] <= ends[1], name, "a number or [smallest, largest]", value)
    return float(ends[0]), float(ends[1])


class Corruption(ABC):
    """From clean images x to corrupted ones y, a mask (1 where a pixel was seen, 0 where it is hidden) and levels.

    The level is the strength of each sample's corruption, drawn evenly from ``levels`` unless it is handed in.

    Attributes:
        levels: smallest and largest strength.
        integer: whether strengths are whole numbers.
        exact: whether seen pixels equal those of x, so that an estimate may keep them.
        hides: whether pixels are hidden.
        likelihood: p(y | x) of seen pixels that are not exact, if it is known. Without it nobody can say what is
            attainable: no bound is computed.
        unit: of the level, for the axis of a figure.
    """

    levels: tuple[float, float] = (0.0, 0.0)
    integer, exact, hides = False, False, True
    likelihood: Likelihood | None = None
    unit = "level"

    def __call__(
        self, x: Images, generator: torch.Generator, level: Levels | None = None
    ) -> tuple[Images, Images, Levels]:
        level = self.draw(len(x), generator) if level is None else level
        return (*self.apply(x, level, generator), level)

    def draw(self, count: int, generator: torch.Generator) -> Levels:
        """A level for each sample; a fixed one uses up no random number."""
        low, high = self.levels
        if low == high:
            return torch.full((count,), low, device=generator.device)
        uniform = torch.rand(count, generator=generator, device=generator.device)
        return (
            (low + uniform * (high + 1 - low)).floor().clamp(max=high) if self.integer else low + uniform * (high - low)
        )

    @abstractmethod
    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        """y and mask of each sample at its level."""

    def project(self, image: Images, mask: Images) -> Images:
        """What y keeps of an image where seen pixels have no error: by default the pixels that the mask marks."""
        return image * mask

    def check_size(self, height: int, width: int) -> None:  # noqa: B027 - no duty of a subclass
        """Raise ``ValueError`` if images of this size cannot be corrupted so. By default all can."""


class NoCorruption(Corruption):
    """y = x: the net is to reconstruct its input."""

    exact, hides = True, False

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        return x.clone(), torch.ones_like(x)


class GaussianNoise(Corruption):
    """y = x + ε, ε ~ N(0, σ²) in each pixel, cut to [0, 1] on request; nothing is hidden.

    Args:
        sigma: standard deviation before clipping, in units of the image's range [0, 1], or its range. The level.
        clip: cut y to [0, 1], as slide 2.2 does. Values at 0 and 1 then lose half of their noise.
    """

    hides, unit = False, "noise σ (grey value, 0 to 1)"

    def __init__(self, sigma: float | Sequence[float] = 0.2, clip: bool = True) -> None:
        self.levels, self.clip = span("sigma", sigma), clip
        require(self.levels[0] >= 0, "sigma", "0 or more", sigma)
        self.likelihood = GaussianLikelihood(clip)

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        noise = torch.randn(x.shape, generator=generator, device=generator.device)
        y = x + level[:, None, None, None] * noise
        return y.clamp(0, 1) if self.clip else y, torch.ones_like(x)


class SaltAndPepper(Corruption):
    """Each pixel is replaced with probability p, by 0 or by 1 with equal chance; the mask does not tell which.

    Args:
        fraction: p, in [0, 1], or its range. The level.
    """

    hides, unit = False, "fraction of pixels replaced"

    def __init__(self, fraction: float | Sequence[float] = 0.1) -> None:
        self.levels = span("fraction", fraction)
        require(self.levels[0] >= 0 and self.levels[1] <= 1, "fraction", "0 ≤ fraction ≤ 1", fraction)

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        chance = torch.rand(x.shape, generator=generator, device=generator.device)
        p = level[:, None, None, None]
        y = torch.where(chance < p / 2, 0.0, torch.where(chance < p, 1.0, x))
        return y, torch.ones_like(x)


class Block(Corruption):
    """A square of pixels replaced by ``fill``, at a place of its own in each sample.

    All (h − size + 1)(w − size + 1) places within the image are equally likely, corners included.

    Args:
        size: edge of the square, in pixels, at most min(h, w), or its range. The level.
        fill: what the net sees there, in [0, 1]. A pixel may have this value by itself.
    """

    integer, exact, unit = True, True, "block edge (pixels)"

    def __init__(self, size: int | Sequence[int] = 10, fill: float = 0.0) -> None:
        self.levels, self.fill = span("size", size), fill
        require(self.levels[0] >= 1, "size", "at least 1", size)
        require(0 <= fill <= 1, "fill", "0 ≤ fill ≤ 1", fill)

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        height, width = x.shape[-2:]
        self._check_fit(int(level.max()), height, width)
        rows, columns = self._cover(level, height, generator), self._cover(level, width, generator)
        hidden = rows[:, None, :, None] & columns[:, None, None, :]
        return x.masked_fill(hidden, self.fill), (~hidden).to(x.dtype)

    def check_size(self, height: int, width: int) -> None:
        self._check_fit(int(self.levels[1]), height, width)

    @staticmethod
    def _check_fit(size: int, height: int, width: int) -> None:
        least = min(height, width)
        require(size <= least, "corruption", f"a block size of at most min(height, width) = {least}", size)

    def _cover(self, level: Levels, length: int, generator: torch.Generator) -> Bool[Tensor, "b n"]:
        """For each sample, which of ``length`` rows (or columns) the block covers."""
        if self.levels[0] == self.levels[1] and bool((level == level[0]).all()):
            places = length - int(level[0]) + 1
            first = torch.randint(places, (len(level), 1), generator=generator, device=generator.device)
        else:
            uniform = torch.rand(len(level), generator=generator, device=generator.device)
            first = (uniform * (length - level + 1)).floor().long()[:, None]
        index = torch.arange(length, device=generator.device)
        return (index >= first) & (index < first + level[:, None])


class RandomPixels(Corruption):
    """Each pixel is hidden (y = 0) with probability ``fraction``, independently.

    Args:
        fraction: in [0, 1], or its range. The level.
    """

    exact, unit = True, "fraction of pixels hidden"

    def __init__(self, fraction: float | Sequence[float] = 0.5) -> None:
        self.levels = span("fraction", fraction)
        require(self.levels[0] >= 0 and self.levels[1] <= 1, "fraction", "0 ≤ fraction ≤ 1", fraction)

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        chance = torch.rand(x.shape, generator=generator, device=generator.device)
        mask = (chance >= level[:, None, None, None]).to(x.dtype)
        return x * mask, mask


class Stripes(Corruption):
    """Each row is hidden (y = 0) with probability ``fraction``, as lines that a scanner lost.

    Args:
        fraction: in [0, 1], or its range. The level.
    """

    exact, unit = True, "fraction of rows hidden"

    def __init__(self, fraction: float | Sequence[float] = 0.3) -> None:
        self.levels = span("fraction", fraction)
        require(self.levels[0] >= 0 and self.levels[1] <= 1, "fraction", "0 ≤ fraction ≤ 1", fraction)

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        chance = torch.rand((len(x), 1, x.shape[2], 1), generator=generator, device=generator.device)
        mask = (chance >= level[:, None, None, None]).to(x.dtype).expand_as(x).clone()
        return x * mask, mask


class Chain(Corruption):
    """Several corruptions one after the other; a pixel hidden by any of them is hidden, with y = 0.

    The level is that of the first corruption; the others draw their own.

    Args:
        parts: in the order in which they act; downscaling cannot be one.
    """

    def __init__(self, parts: Sequence[Corruption]) -> None:
        require(len(parts) >= 1, "parts", "at least one corruption", len(parts))
        self.parts = list(parts)
        first = self.parts[0]
        self.levels, self.integer, self.unit = first.levels, first.integer, first.unit
        self.exact = all(part.exact for part in self.parts)
        self.hides = any(part.hides for part in self.parts)

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        y, mask = self.parts[0].apply(x, level, generator)
        for part in self.parts[1:]:
            y, further, _ = part(y, generator)
            mask = mask * further
        return torch.where(mask == 1, y, 0.0), mask

    def check_size(self, height: int, width: int) -> None:
        for part in self.parts:
            part.check_size(height, width)
