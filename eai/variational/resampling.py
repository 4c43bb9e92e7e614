"""Fields brought to other numbers of points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from eai.variational.grid import Grid


def resample(field: Float[Tensor, "*b n"], grid: Grid, shape: Sequence[int]) -> Float[Tensor, "*b points"]:
    """Bring a field to other numbers of points: exact for the waves that both grids resolve.

    By Fourier series along periodic axes, by cosine series along bounded ones.

    Args:
        field: flat.
        grid: of the field.
        shape: numbers of points wanted.
    """
    if tuple(shape) == grid.shape:
        return field
    field = field.to(torch.promote_types(field.dtype, torch.float32))  # no FFT has fewer bits on a CPU
    values = field.unflatten(-1, grid.shape)
    for axis, (n, points, closed) in enumerate(
        zip(grid.shape, shape, grid.periodic, strict=True), values.ndim - grid.d
    ):
        if n == points:
            continue
        # A cosine series is a Fourier series of the field and its mirror image.
        whole = values if closed else torch.cat([values, values.flip(axis)], axis)
        old, new = whole.shape[axis], points if closed else 2 * points
        kept = (min(old, new) + 1) // 2  # below the smaller Nyquist wavenumber
        waves = torch.fft.rfft(whole, dim=axis).narrow(axis, 0, kept)
        if not closed:  # points lie in the middle of cells, whose width changes
            shift = torch.arange(kept, device=field.device) * (math.pi * (1 / new - 1 / old))
            waves = waves * torch.polar(torch.ones_like(shift), shift).view(-1, *[1] * (values.ndim - axis - 1))
        values = torch.fft.irfft(waves, n=new, dim=axis).narrow(axis, 0, points) * (new / old)
    return values.flatten(-grid.d)
