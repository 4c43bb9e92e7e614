"""A Fourier layer alone: each wavenumber is turned and damped by a factor of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require


class SpectralNet(nn.Module):
    """u' = F⁻¹ (m ⊙ F u) on a periodic grid, with a complex factor m for each wavenumber; m = 1 at first.

    It is linear in u and commutes with translations: what it can learn is any equation with constant coefficients,
    and no other. Each factor is a regression of its own, so that it is learned in a few epochs to the precision of the
    numbers.

    Args:
        shape: of the grid, (nx,) or (ny, nx).
        static_features: 0; what changes from place to place cannot be used.
    """

    def __init__(self, shape: Sequence[int], static_features: int = 0) -> None:
        super().__init__()
        require(len(shape) in (1, 2) and min(shape) >= 3, "shape", "one or two numbers of at least 3", list(shape))
        require(static_features == 0, "static_features", "0", static_features)
        self.shape, self.static_features = tuple(shape), static_features
        factors = torch.zeros(*shape[:-1], shape[-1] // 2 + 1, 2)
        factors[..., 0] = 1
        self.factors = nn.Parameter(factors)  # real and imaginary parts

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        require(u.shape[1] == math.prod(self.shape), "shape", f"a grid of {u.shape[1]} points", self.shape)
        # Transforms need single precision at least.
        wide = torch.promote_types(u.dtype, torch.float32)
        field = u.to(wide).transpose(1, 2).unflatten(2, self.shape)
        axes = tuple(range(2, field.ndim))
        spectrum = torch.fft.rfftn(field, dim=axes) * torch.view_as_complex(self.factors.to(wide))
        moved = torch.fft.irfftn(spectrum, s=self.shape, dim=axes)
        return moved.flatten(2).transpose(1, 2).to(u.dtype)
