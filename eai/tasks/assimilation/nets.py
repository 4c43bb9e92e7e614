"""Networks from a batch (background and observations) to the analysis."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.assimilation.data import Batch, innovation, on_grid


class TutorialMLP(nn.Module):
    """The net of slide 2.3: (x_b, y, index/n) → tanh (n+p)² → ReLU n → n, read as the analysis.

    958,908 parameters at n = 60, p = 18. It sees the values of the indices as numbers and is tied to p.

    Args:
        n: grid points.
        p: observations.
    """

    def __init__(self, n: int, p: int) -> None:
        super().__init__()
        require(n >= 1, "n", "at least 1", n)
        require(1 <= p <= n, "p", f"1 ≤ p ≤ n = {n}", p)
        self.n = n
        self.layers = nn.Sequential(
            nn.Linear(n + 2 * p, (n + p) ** 2), nn.Tanh(), nn.Linear((n + p) ** 2, n), nn.ReLU(), nn.Linear(n, n)
        )

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        return self.layers(torch.cat([batch.xb, batch.y, batch.obs_index / self.n], dim=1))


class IncrementMLP(nn.Module):
    """x_a = x_b + f(Hᵀ d, Hᵀ 1): the sums of the innovations and the number of observations per grid point.

    For linear H these are sufficient for the analysis increment, whatever the number of observations.

    Args:
        n: grid points.
        width: of the hidden layers.
        depth: number of hidden layers.
    """

    def __init__(self, n: int, width: int = 256, depth: int = 2) -> None:
        super().__init__()
        require(n >= 1, "n", "at least 1", n)
        require(width >= 1, "width", "at least 1", width)
        require(depth >= 1, "depth", "at least 1", depth)
        self.n = n
        sizes = [2 * n] + [width] * depth
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, n))

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        seen = on_grid(innovation(batch), batch.obs_index, self.n)
        count = on_grid(batch.obs_mask, batch.obs_index, self.n)
        return batch.xb + self.layers(torch.cat([seen, count], dim=1))
