"""The power-law background-error covariance, and its spectrum for whoever draws fields."""

from __future__ import annotations

import math
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.variational.covariance_base import Covariance, StationaryCovariance, at_lags, lag_table
from eai.variational.eigenbasis import Fourier
from eai.variational.grid import Grid, as_grid


class PowerLawCovariance(StationaryCovariance):
    """Spectral: the eigenvalue of wavenumber k is proportional to (1 + (k/k0)²)^(−slope/2), with trace n · variance.

    k² = k_x² + k_y² on a plane; with ``separable`` the eigenvalue is a product over the axes. On a bounded axis c is
    that of a periodic one of twice its extent.

    Args:
        n: number of points of a ring, or a grid.
        variance: of each point.
        k0: wavenumber below which the spectrum is flat, in radians per unit of the grid's extent (waves on a ring).
        slope: of the decay beyond.
        separable: see :class:`eai.variational.covariance.IsotropicCovariance`.
    """

    def __init__(
        self, n: int | Grid, variance: float = 0.5, k0: float = 2.0, slope: float = 4.0, separable: bool = False
    ) -> None:
        grid = as_grid(n)
        require(grid.n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        require(k0 > 0, "k0", "above 0", k0)
        require(slope >= 0, "slope", "0 or more", slope)
        product = separable or grid.d == 1
        lines = [Grid([n], closed, [length]) for n, closed, length in
                 zip(grid.shape, grid.periodic, grid.extent, strict=True)]  # fmt: skip
        columns = [_power_law(line, variance if axis == 0 else 1.0, k0, slope) for axis, line in enumerate(lines)]
        column = reduce(torch.kron, columns) if product else _power_law(grid, variance, k0, slope)
        super().__init__(column, grid, columns if product else None)
        self.variance, self.k0, self.slope, self.separable = variance, k0, slope, separable

    has_length = True  # 1/k0

    def scaled_entries(
        self, i: Int[Tensor, ...], j: Int[Tensor, ...], variance: Float[Tensor, ""], length: Float[Tensor, ""]
    ) -> Float[Tensor, ...]:
        grid, k0 = self.grid, self.k0 / length
        if not self.separable:
            column = _power_law(grid, self.variance, k0, self.slope)
            return variance * at_lags(lag_table(column, grid), grid, i, j)
        entries = self.variance * variance
        for axis, (a, b) in enumerate(zip(grid.axes(i), grid.axes(j), strict=True)):
            line = Grid([grid.shape[axis]], grid.periodic[axis], [grid.extent[axis]])
            entries = entries * at_lags(lag_table(_power_law(line, 1.0, k0, self.slope), line), line, a, b)
        return entries

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        return PowerLawCovariance(self.grid, self.variance * variance, self.k0 / length, self.slope, self.separable)


def power_law_spectrum(n: int | Grid, variance: float, k0: float | Tensor, slope: float) -> Float[Tensor, " m"]:
    """The eigenvalues of :class:`PowerLawCovariance` on a periodic grid, flat as :class:`Fourier` orders them.

    Args:
        n, variance, k0, slope: see there.
    """
    grid, device = as_grid(n), k0.device if isinstance(k0, Tensor) else None
    waves = []
    for axis, (size, length) in enumerate(zip(grid.shape, grid.extent, strict=True)):
        last = axis == grid.d - 1
        count = torch.arange(size // 2 + 1 if last else size, dtype=torch.float64, device=device)
        count = count if last else torch.minimum(count, size - count)
        waves.append(count * (2 * math.pi / length))
    k = reduce(torch.hypot, torch.meshgrid(*waves, indexing="ij"))
    shape = ((1 + (k / k0) ** 2) ** (-slope / 2)).flatten()
    return shape * variance / Fourier(grid.shape).back(shape[None])[0, 0]


def _power_law(grid: Grid, variance: float, k0: float | Tensor, slope: float) -> Float[Tensor, " n"]:
    """The covariance with point 0."""
    domain = grid.doubled()
    column = Fourier(domain.shape).back(power_law_spectrum(domain, variance, k0, slope)[None])
    return grid.part_of_doubled(column)[0]
