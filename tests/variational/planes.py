"""Small planes, on sizes that no transposed axis survives (5 × 7), and the families of covariances on them."""

from __future__ import annotations

from collections.abc import Callable

from eai.variational.covariance import DiagonalCovariance, GaspariCohnCovariance, GaussianCovariance, SOARCovariance
from eai.variational.covariance_base import Covariance
from eai.variational.grid import Grid
from eai.variational.power_law import PowerLawCovariance

SHAPE = (5, 7)
GRIDS = {
    "periodic": Grid(SHAPE),
    "bounded": Grid(SHAPE, periodic=False, extent=[1.5, 4.0]),
    "channel": Grid(SHAPE, periodic=[False, True]),
    "column": Grid(SHAPE, periodic=[True, False]),
    "line": Grid([13], periodic=False),
}
FAMILIES: dict[str, Callable[[Grid, bool], Covariance]] = {
    "Gaussian": lambda grid, _: GaussianCovariance(grid, 0.7, 0.9, 0.01),
    "SOAR": lambda grid, separable: SOARCovariance(grid, 0.7, 0.6, separable=separable),
    "GaspariCohn": lambda grid, separable: GaspariCohnCovariance(grid, 0.7, 1.1, 0.02, separable),
    "PowerLaw": lambda grid, separable: PowerLawCovariance(grid, 0.7, 1.5, 3.0, separable),
    "Diagonal": lambda grid, _: DiagonalCovariance(grid, 0.7),
}
