"""What happens to an image before the net sees it: ``y, mask = corruption(x, generator)``."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eai.core.errors import require

Images = Float[Tensor, "b 1 h w"]


class Corruption(ABC):
    """From clean images x to corrupted ones y and a mask, 1 where a pixel was seen and 0 where it is hidden."""

    @abstractmethod
    def __call__(self, x: Images, generator: torch.Generator) -> tuple[Images, Images]: ...

    def check_size(self, height: int, width: int) -> None:  # noqa: B027 - no duty of a subclass
        """Raise ``ValueError`` if images of this size cannot be corrupted so. By default all can."""


class NoCorruption(Corruption):
    """y = x: the net is to reconstruct its input."""

    def __call__(self, x: Images, generator: torch.Generator) -> tuple[Images, Images]:
        return x.clone(), torch.ones_like(x)


class GaussianNoise(Corruption):
    """y = x + ε, ε ~ N(0, σ²) in each pixel, cut to [0, 1] on request; nothing is hidden.

    Args:
        sigma: standard deviation before clipping, in units of the image's range [0, 1].
        clip: cut y to [0, 1], as slide 2.2 does. Values at 0 and 1 then lose half of their noise.
    """

    def __init__(self, sigma: float = 0.2, clip: bool = True) -> None:
        require(sigma >= 0, "sigma", "0 or more", sigma)
        self.sigma, self.clip = sigma, clip

    def __call__(self, x: Images, generator: torch.Generator) -> tuple[Images, Images]:
        y = x + self.sigma * torch.randn(x.shape, generator=generator)
        return y.clamp(0, 1) if self.clip else y, torch.ones_like(x)


class Block(Corruption):
    """A square of pixels replaced by ``fill``, at a place of its own in each sample.

    All (h − size + 1)(w − size + 1) places within the image are equally likely, corners included.

    Args:
        size: edge of the square, in pixels, at most min(h, w).
        fill: what the net sees there, in [0, 1]. A pixel may have this value by itself.
    """

    def __init__(self, size: int = 10, fill: float = 0.0) -> None:
        require(size >= 1, "size", "at least 1", size)
        require(0 <= fill <= 1, "fill", "0 ≤ fill ≤ 1", fill)
        self.size, self.fill = size, fill

    def __call__(self, x: Images, generator: torch.Generator) -> tuple[Images, Images]:
        count, _, height, width = x.shape
        self.check_size(height, width)
        rows, columns = self._draw(count, height, generator), self._draw(count, width, generator)
        hidden = rows[:, None, :, None] & columns[:, None, None, :]
        return x.masked_fill(hidden, self.fill), (~hidden).to(x.dtype)

    def check_size(self, height: int, width: int) -> None:
        fits = self.size <= min(height, width)
        require(fits, "corruption", f"a block size of at most min(height, width) = {min(height, width)}", self.size)

    def _draw(self, count: int, length: int, generator: torch.Generator) -> Bool[Tensor, "b n"]:
        """For each sample, which of ``length`` rows (or columns) the block covers."""
        first: Int[Tensor, "b 1"] = torch.randint(length - self.size + 1, (count, 1), generator=generator)
        index = torch.arange(length)
        return (index >= first) & (index < first + self.size)
