"""The ten patterns of slide 2.2, with values in [0, 1].

All are functions of (height, width). x and y run over linspace(-1, 1) along columns and rows,
r² = x² + y², and *scaled* stands for (z − min z)/(max z − min z) over the image.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# A label is a position in this tuple.
CLASSES = (
    "concentric_circles",
    "vertical_stripes",
    "horizontal_stripes",
    "diagonal",
    "checkerboard",
    "star",
    "spiral",
    "noise_with_circle",
    "diamond",
    "grid_of_dots",
)
# The one class that is new in each sample; no net can know its noise where it does not see it.
NOISE = CLASSES.index("noise_with_circle")
# Pixels on an edge belong to the shape, whatever the rounding of their coordinates: shapes stay symmetric.
_ROUNDING = 1e-9


def _coordinates(height: int, width: int) -> tuple[Float[Tensor, "h 1"], Float[Tensor, "1 w"]]:
    # linspace(-1, 1), with an exact zero in the middle of an odd number of points: the star's angle needs it.
    y, x = (torch.arange(1 - n, n, 2, dtype=torch.float64) / (n - 1) for n in (height, width))
    return y[:, None], x[None, :]


def _scaled(z: Float[Tensor, "h w"]) -> Float[Tensor, "h w"]:
    return ((z - z.min()) / (z.max() - z.min())).float()


def concentric_circles(height: int, width: int) -> Float[Tensor, "h w"]:
    """sin(5 r²), scaled."""
    y, x = _coordinates(height, width)
    return _scaled(torch.sin(5 * (x**2 + y**2)))


def vertical_stripes(height: int, width: int) -> Float[Tensor, "h w"]:
    """1 in every second column, from the first."""
    z = torch.zeros(height, width)
    z[:, ::2] = 1
    return z


def horizontal_stripes(height: int, width: int) -> Float[Tensor, "h w"]:
    """1 in every second row, from the first."""
    z = torch.zeros(height, width)
    z[::2, :] = 1
    return z


def diagonal(height: int, width: int) -> Float[Tensor, "h w"]:
    """1 where row and column are equal."""
    return torch.eye(height, width)


def checkerboard(height: int, width: int) -> Float[Tensor, "h w"]:
    """(row + column) mod 2."""
    return ((torch.arange(height)[:, None] + torch.arange(width)) % 2).float()


def star(height: int, width: int) -> Float[Tensor, "h w"]:
    """sin(10 atan2(y, x)), scaled."""
    y, x = _coordinates(height, width)
    return _scaled(torch.sin(10 * torch.atan2(y, x)))


def spiral(height: int, width: int) -> Float[Tensor, "h w"]:
    """sin(6 r), scaled: the "spiral" of the slides, in fact rings."""
    y, x = _coordinates(height, width)
    return _scaled(torch.sin(6 * (x**2 + y**2).sqrt()))


def disc(height: int, width: int) -> Bool[Tensor, "h w"]:
    """Where r ≤ 0.5."""
    y, x = _coordinates(height, width)
    return x**2 + y**2 <= 0.25 + _ROUNDING


def noise_with_circle(count: int, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "b h w"]:
    """``count`` images of noise, uniform on [0, 1] and new in each, with 1 where r ≤ 0.5."""
    noise = torch.rand(count, height, width, generator=generator, device=generator.device)
    return noise.masked_fill(disc(height, width).to(generator.device), 1.0)


def diamond(height: int, width: int) -> Float[Tensor, "h w"]:
    """1 where |i − a|/a + |j − b|/b ≤ 1 in row i and column j, a = ⌊height/2⌋, b = ⌊width/2⌋: 419 of 28 × 28 pixels."""
    a, b = height // 2, width // 2
    # In whole numbers, so that pixels on the edge do not depend on rounding.
    i, j = (torch.arange(height) - a).abs()[:, None], (torch.arange(width) - b).abs()
    return (i * b + j * a <= a * b).float()


def grid_of_dots(height: int, width: int) -> Float[Tensor, "h w"]:
    """1 in every fourth row and column, from the first."""
    z = torch.zeros(height, width)
    z[::4, ::4] = 1
    return z


def class_means(height: int, width: int) -> Float[Tensor, "c h w"]:
    """E[x | class] in the order of ``CLASSES``: nine fixed patterns, and ½ for the noise of the tenth."""
    images = (
        concentric_circles(height, width),
        vertical_stripes(height, width),
        horizontal_stripes(height, width),
        diagonal(height, width),
        checkerboard(height, width),
        star(height, width),
        spiral(height, width),
        torch.full((height, width), 0.5).masked_fill(disc(height, width), 1.0),
        diamond(height, width),
        grid_of_dots(height, width),
    )
    return torch.stack(images)


def draw(label: Int[Tensor, " b"], height: int, width: int, generator: torch.Generator) -> Float[Tensor, "b 1 h w"]:
    """One image for each label; only those of the noise class are random."""
    images = class_means(height, width).to(label.device)[label]
    noisy = label == NOISE
    images[noisy] = noise_with_circle(int(noisy.sum()), height, width, generator)
    return images[:, None]
