"""The ten patterns with random frequency, phase, centre, rotation and contrast, and random smooth fields."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eai.core.learn.data import Split
from eai.tasks.recovery.patterns import CLASSES, NOISE

# Share of each parameter's range, [0, 1): what test data draw from, and what training and validation leave out.
HELD_OUT = (0.4, 0.6)
# The same for frequencies above all those of training; waves then still have a period of four pixels at 28.
ABOVE = (1.0, 1.375)


def shares(
    shape: tuple[int, ...], split: Split, generator: torch.Generator, beyond: bool = False
) -> Float[Tensor, ...]:
    """Uniform numbers: on [0, 1) without ``HELD_OUT``, for test data on ``HELD_OUT`` or, if ``beyond``, ``ABOVE``."""
    low, high = HELD_OUT
    u = torch.rand(shape, generator=generator, device=generator.device)
    if split == "test":
        low, high = ABOVE if beyond else HELD_OUT
        return low + (high - low) * u
    u = u * (1 - (high - low))
    return torch.where(u < low, u, u + (high - low))


def varied(
    label: Int[Tensor, " b"], height: int, width: int, split: Split, generator: torch.Generator, beyond: bool = False
) -> Float[Tensor, "b 1 h w"]:
    """One image for each label of :data:`eai.tasks.recovery.patterns.CLASSES`, each with parameters of its own.

    With shares s from :func:`shares` for frequency and contrast, and free uniform numbers for phase, centre and
    rotation: frequency factor 0.6 + 0.8 s (training 0.6 to 0.92 and 1.08 to 1.4, test 0.92 to 1.08, ``beyond`` 1.4 to
    1.7), contrast 0.5 + 0.5 s (training 0.5 to 0.7 and 0.8 to 1, test and ``beyond`` 0.7 to 0.8), centre within ±0.3
    half widths, phase and rotation over the whole circle. Values lie in [0, 1] around ½.
    """
    count, device = len(label), generator.device
    factor = 0.6 + 0.8 * shares((count,), split, generator, beyond)
    contrast = 0.5 + 0.5 * shares((count,), split, generator)
    free = torch.rand(4, count, 1, 1, generator=generator, device=device)
    phase, angle = 2 * math.pi * free[0], 2 * math.pi * free[1]
    y = torch.linspace(-1, 1, height, device=device)[None, :, None] - 0.6 * (free[2] - 0.5)
    x = torch.linspace(-1, 1, width, device=device)[None, None, :] - 0.6 * (free[3] - 0.5)
    u, v = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    z = torch.empty(count, height, width, device=device)
    for k, name in enumerate(CLASSES):
        mine = label == k
        z[mine] = _pattern(name, u[mine], v[mine], factor[mine, None, None], phase[mine])
    noise = torch.rand(z.shape, generator=generator, device=device)
    around = (label == NOISE)[:, None, None] & ((u.square() + v.square()).sqrt() * factor[:, None, None] > 0.5)
    z = torch.where(around, noise, z)
    return (0.5 + contrast[:, None, None] * (z - 0.5))[:, None]


def _pattern(
    name: str,
    u: Float[Tensor, "b h w"],
    v: Float[Tensor, "b h w"],
    factor: Float[Tensor, "b 1 1"],
    phase: Float[Tensor, "b 1 1"],
) -> Float[Tensor, "b h w"]:
    """A class in turned coordinates (u, v), values in [0, 1]; waves have a period of at least four pixels at 28."""
    r, wave = (u**2 + v**2).sqrt(), 12 * factor
    across, along = torch.sin(wave * u + phase), torch.sin(wave * v + phase)

    def half(z: Tensor) -> Tensor:
        return (z + 1) / 2

    def step(inside: Bool[Tensor, "b h w"]) -> Tensor:
        return inside.to(u.dtype)

    return {
        "concentric_circles": lambda: half(torch.sin(5 * factor * r**2 + phase)),
        "vertical_stripes": lambda: step(across > 0),
        "horizontal_stripes": lambda: half(along),
        "diagonal": lambda: step((u * factor).abs() < 0.1),
        "checkerboard": lambda: step(across * along > 0),
        "star": lambda: half(torch.sin(2 * (5 * factor).round() * torch.atan2(v, u) + phase)),
        "spiral": lambda: half(torch.sin(6 * factor * r + phase)),
        "noise_with_circle": lambda: step(r * factor <= 0.5),
        "diamond": lambda: step((u.abs() + v.abs()) * factor <= 0.5),
        "grid_of_dots": lambda: step((across > 0.6) & (along > 0.6)),
    }[name]()


def fields(count: int, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "b 1 h w"]:
    """Gaussian random fields, band-limited: periodic, isotropic spectrum k⁻³ up to a wavelength of four pixels.

    Each is scaled to [0, 1] by its own smallest and largest value.
    """
    white = torch.randn(count, height, width, generator=generator, device=generator.device)
    row, column = torch.fft.fftfreq(height), torch.fft.rfftfreq(width)
    k = (row[:, None] ** 2 + column**2).sqrt().to(generator.device)
    amplitude = torch.where((k > 0) & (k <= 0.25), k.clamp(min=1e-6) ** -1.5, 0.0)
    z = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
    low, high = z.amin((1, 2), keepdim=True), z.amax((1, 2), keepdim=True)
    return ((z - low) / (high - low))[:, None]
