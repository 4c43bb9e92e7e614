"""A numerical scheme and a learned closure: what the scheme's grid does not resolve."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.dynamics.burgers import pseudo_spectral
from eai.tasks.dynamics.data import Batch


class ClosedSpectral(nn.Module):
    """u' = S(u) + σ (g(u, S(u)) − mean), S a pseudo-spectral step of Burgers' equation on the grid's own points.

    g are circular convolutions, zero before they are trained; σ is the standard deviation of S's error in one step of
    the training data. The net commutes with translations and keeps the mean of u, as the equation does. Gradients pass
    through the scheme. (Solver in the loop: Um et al. 2020; Kochkov et al. 2021.)

    Args:
        cells, diffusion: of the equation, see :class:`eai.tasks.dynamics.burgers.Burgers`.
        channels: of the hidden convolutions.
        layers: of convolutions, at least 2.
        kernel: their width, an odd number of points.
    """

    error_std: Tensor

    def __init__(self, cells: float, diffusion: float, channels: int = 32, layers: int = 4, kernel: int = 5) -> None:
        super().__init__()
        require(cells > 0, "cells", "above 0", cells)
        require(diffusion > 0, "diffusion", "above 0", diffusion)
        require(channels >= 1, "channels", "at least 1", channels)
        require(layers >= 2, "layers", "at least 2", layers)
        require(kernel >= 1 and kernel % 2 == 1, "kernel", "an odd number of points", kernel)
        self.cells, self.diffusion, self.static_features = cells, diffusion, 0
        self.register_buffer("error_std", torch.ones(()))
        sizes = [2, *[channels] * (layers - 1), 1]
        parts: list[nn.Module] = []
        for before, after in pairwise(sizes):
            convolution = nn.Conv1d(before, after, kernel, padding="same", padding_mode="circular")
            parts += [convolution, nn.GELU()]
        nn.init.zeros_(convolution.weight)
        self.correction = nn.Sequential(*parts[:-1])

    def fit_scales(self, batch: Batch) -> None:
        error = batch.u[:, 1:].flatten(0, 1) - self.scheme(batch.u[:, :-1].flatten(0, 1))
        self.error_std.copy_(error.std().clamp(min=1e-6))

    def scheme(self, u: Float[Tensor, "b n 1"]) -> Float[Tensor, "b n 1"]:
        """S(u), computed in float64."""
        return pseudo_spectral(u[:, :, 0], self.cells, self.diffusion, 1, finer=1)[:, 0, :, None].to(u.dtype)

    def forward(self, u: Float[Tensor, "b n 1"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n 1"]:
        after = self.scheme(u)
        change = self.correction(torch.cat([u, after], dim=2).transpose(1, 2)).transpose(1, 2)
        return after + self.error_std * (change - change.mean(1, keepdim=True))
