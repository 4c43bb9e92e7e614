"""Background-error covariances by name, on a ring or a plane: Gaussian, SOAR, Gaspari-Cohn, the slides'."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.variational.covariance_base import Covariance, DenseCovariance, StationaryCovariance
from eai.variational.grid import Grid, angles, as_grid


def slides_grid(n: int) -> Float[Tensor, " n"]:
    """The grid of slide 2.3: angles rounded to three decimals."""
    return (angles(n) * 1000).round() / 1000


def _correlate(
    correlation: Callable[[Tensor], Tensor], apart: Sequence[Tensor], length: float | Tensor, separable: bool
) -> Tensor:
    """ρ of the distance, or the product of the axes' ρ."""
    if separable:
        return reduce(torch.mul, [correlation(part / length) for part in apart])
    return correlation(reduce(torch.hypot, apart) / length)


def _even(column: Float[Tensor, " n"], grid: Grid) -> Float[Tensor, " n"]:
    """Exactly even along periodic axes, where rounding of the sine is not."""
    values = column.view(grid.shape)
    for axis, closed in enumerate(grid.periodic):
        if closed:
            values = 0.5 * (values + values.roll(-1, axis).flip(axis))
    return values.flatten()


class IsotropicCovariance(StationaryCovariance, ABC):
    """B_ij = variance · ρ(d/length) + nugget · δ_ij, d the distance of the points (see :class:`Grid`).

    On a ring d is the chord 2 sin(θ/2): a correlation ρ that is valid in the plane is valid on the ring for the chord.
    With ``separable`` B_ij = variance · Π_k ρ(d_k/length) + nugget · δ_ij, d_k the distance along axis k.

    Args:
        n: number of points of a ring, or a grid.
        variance: of the correlated part, in units of the state squared.
        length: of the correlation, in the unit of the grid's extent (radians on a ring).
        nugget: variance of an uncorrelated part.
        separable: a product over the axes: on a bounded grid of more than 4,096 points only a product is quick.
    """

    has_length = True

    def __init__(self, n: int | Grid, variance: float, length: float, nugget: float, separable: bool = False) -> None:
        grid = as_grid(n)
        require(grid.n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        require(length > 0, "length", "above 0", length)
        require(nugget >= 0, "nugget", "0 or more", nugget)
        product, zero = separable or grid.d == 1, torch.zeros((), dtype=torch.long)
        column = variance * _correlate(self.correlation, grid.between(torch.arange(grid.n), zero), length, product)
        column = _even(column, grid)
        column[0] += nugget
        super().__init__(column, grid, self._columns(grid, variance, length) if product else None, nugget)
        self.variance, self.length, self.nugget, self.separable = variance, length, nugget, separable

    @property
    def longest(self) -> float:
        """The greatest length that :meth:`rescaled` takes."""
        return math.inf

    @staticmethod
    @abstractmethod
    def correlation(distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """ρ of distances in lengths, from 1 at 0."""

    def _columns(self, grid: Grid, variance: float, length: float) -> list[Tensor]:
        """ρ along each axis, the first times the variance."""
        lines = [torch.arange(size, dtype=torch.float64) * h for size, h in zip(grid.shape, grid.spacing, strict=True)]
        columns = [self.correlation(part / length) for part in grid.apart(lines)]
        return [variance * columns[0], *columns[1:]]

    def scaled_entries(
        self, i: Int[Tensor, ...], j: Int[Tensor, ...], variance: Float[Tensor, ""], length: Float[Tensor, ""]
    ) -> Float[Tensor, ...]:
        scaled = (self.length * length).clamp(max=self.longest)
        apart = self.grid.between(i, j)
        correlated = self.variance * _correlate(self.correlation, apart, scaled, self.separable)
        return variance * correlated + self.nugget * (i == j).double()

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        scaled = min(self.length * length, self.longest)
        return type(self)(self.grid, self.variance * variance, scaled, self.nugget, self.separable)


class DiagonalCovariance(StationaryCovariance):
    """B = variance · I.

    Args:
        n: number of points of a ring, or a grid.
        variance: of each point.
    """

    def __init__(self, n: int | Grid, variance: float = 0.5) -> None:
        grid = as_grid(n)
        require(grid.n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        columns = [torch.eye(size, 1, dtype=torch.float64)[:, 0] for size in grid.shape]
        columns[0] = variance * columns[0]
        super().__init__(reduce(torch.kron, columns), grid, columns)
        self.variance = variance

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        return DiagonalCovariance(self.grid, self.variance * variance)


class GaussianCovariance(IsotropicCovariance):
    """B_ij = variance · exp(−d²/(2 length²)) + nugget · δ_ij, d the distance of the points; a product over the axes.

    Args:
        n, variance, length: see :class:`IsotropicCovariance`.
        nugget: variance of an uncorrelated part. A Gaussian of large length is numerically singular
            without it.
    """

    def __init__(self, n: int | Grid, variance: float = 0.5, length: float = 1.5, nugget: float = 0.001) -> None:
        super().__init__(n, variance, length, nugget, separable=True)

    @staticmethod
    def correlation(distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        return torch.exp(-(distance**2) / 2)

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        return GaussianCovariance(self.grid, self.variance * variance, self.length * length, self.nugget)


class SOARCovariance(IsotropicCovariance):
    """Second-order autoregressive: B_ij = variance · (1 + d/length) exp(−d/length) + nugget · δ_ij.

    Args:
        n, variance, length, nugget, separable: see :class:`IsotropicCovariance`.
    """

    def __init__(
        self,
        n: int | Grid,
        variance: float = 0.5,
        length: float = 0.5,
        nugget: float = 0.0,
        separable: bool = False,
    ) -> None:
        super().__init__(n, variance, length, nugget, separable)

    @staticmethod
    def correlation(distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        return (1 + distance) * torch.exp(-distance)


def gaspari_cohn(distance: Float[Tensor, ...], support: float) -> Float[Tensor, ...]:
    """The compactly supported correlation of Gaspari and Cohn (1999, eq. 4.10): 1 at 0, 0 beyond ``support``."""
    z = distance / (support / 2)
    near = -(z**5) / 4 + z**4 / 2 + 5 * z**3 / 8 - 5 * z**2 / 3 + 1
    safe = z.clamp(min=1e-9)
    far = z**5 / 12 - z**4 / 2 + 5 * z**3 / 8 + 5 * z**2 / 3 - 5 * z + 4 - 2 / (3 * safe)
    return torch.where(z <= 1, near, torch.where(z <= 2, far, torch.zeros_like(z)))


class GaspariCohnCovariance(IsotropicCovariance):
    """B_ij = variance · GC(d; support) + nugget · δ_ij: a Gaussian-like correlation that ends at ``support``.

    Args:
        n, variance, nugget, separable: see :class:`IsotropicCovariance`.
        support: where the correlation ends, at most the grid's diameter: 2 on a ring.
    """

    def __init__(
        self,
        n: int | Grid,
        variance: float = 0.5,
        support: float = 1.5,
        nugget: float = 0.0,
        separable: bool = False,
    ) -> None:
        widest = as_grid(n).diameter
        require(0 < support <= widest, "support", f"0 < support ≤ {widest:.4g}, the grid's diameter", support)
        super().__init__(n, variance, support, nugget, separable)

    @property
    def longest(self) -> float:
        return self.grid.diameter

    @staticmethod
    def correlation(distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        return gaspari_cohn(distance, 1.0)


class SlidesCovariance(DenseCovariance):
    """B of slide 2.3: a Gaussian of |θ_i − θ_j|, the distance on the line, which cuts the ring open at 0.

    The angles θ are rounded to three decimals, as on the slide.

    Args:
        n: number of points of the ring.
        variance: of the correlated part.
        length: of the correlation, in radians.
        nugget: variance of an uncorrelated part.
    """

    def __init__(self, n: int, variance: float = 0.5, length: float = 1.5, nugget: float = 0.001) -> None:
        require(n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        require(length > 0, "length", "above 0", length)
        require(nugget >= 0, "nugget", "0 or more", nugget)
        apart = slides_grid(n)[:, None] - slides_grid(n)[None, :]
        correlated = variance * torch.exp(-(apart**2) / (2 * length**2))
        super().__init__(correlated + nugget * torch.eye(n, dtype=torch.float64))
