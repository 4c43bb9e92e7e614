"""B on planes and lines: every quick product equal to dense linear algebra, and no matrix where there must be none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eai.variational.covariance import DiagonalCovariance, GaussianCovariance, SOARCovariance
from eai.variational.covariance_base import Covariance, DenseCovariance, StationaryCovariance
from eai.variational.eigenbasis import Fourier, Kronecker
from eai.variational.estimated_covariance import EnsembleCovariance, HybridCovariance, NMCCovariance
from eai.variational.grid import Grid
from eai.variational.power_law import PowerLawCovariance
from tests.variational.cases import B, generator_of, normal
from tests.variational.planes import FAMILIES, GRIDS

ONE = torch.ones((), dtype=torch.float64)
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
separable = pytest.mark.parametrize("separable", [False, True], ids=["isotropic", "separable"])
Family = Callable[[Grid, bool], Covariance]


@grids
@families
@separable
def test_products_agree_with_dense_linear_algebra(family: Family, grid: Grid, separable: bool) -> None:
    covariance = family(grid, separable)
    matrix, v = covariance.matrix, normal(generator_of(1), B, grid.n)
    values, vectors = torch.linalg.eigh(matrix)
    assert values[0] > 0
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-14)
    torch.testing.assert_close(covariance.multiply(v), v @ matrix, rtol=0, atol=1e-12)
    inverse = torch.linalg.solve(matrix, v.T).T
    tolerance = 10 * (values[-1] / values[0]).item() * torch.finfo(torch.float64).eps
    assert (covariance.solve(v) - inverse).norm() <= tolerance * inverse.norm()
    torch.testing.assert_close(covariance.squared_norm(v), (v * inverse).sum(1), rtol=tolerance, atol=0)
    root = (vectors * values.sqrt()) @ vectors.T
    torch.testing.assert_close(
        covariance.filter(v, covariance.eigenvalues.sqrt()), v @ root, rtol=0, atol=1e-8
    )  # the square root of an eigenvalue of rounding's size
    found = covariance.eigenvalues if covariance.eigenvalues.numel() == grid.n else covariance.eigenvalues.unique()
    assert found.min().item() == pytest.approx(values[0].item(), rel=tolerance)
    assert found.max().item() == pytest.approx(values[-1].item(), rel=1e-12)


def test_periodic_planes_take_fourier_and_bounded_products_factors() -> None:
    assert isinstance(SOARCovariance(GRIDS["periodic"]).basis, Fourier)
    for name in ("bounded", "channel", "column"):
        basis = GaussianCovariance(GRIDS[name]).basis
        assert isinstance(basis, Kronecker)
        assert basis.shape == GRIDS[name].shape


def test_fourier_and_factors_agree_where_both_apply() -> None:
    # The axes' circulant matrices by hand, and the same covariance by FFT.
    grid, v = GRIDS["periodic"], normal(generator_of(1), B, 35)
    quick = SOARCovariance(grid, 0.7, 0.6, nugget=0.02, separable=True)
    pairs = [torch.linalg.eigh(SOARCovariance(size, 1.0, 0.6).matrix) for size in grid.shape]
    factors = Kronecker([vectors for _, vectors in pairs])
    values = 0.7 * torch.kron(pairs[0][0], pairs[1][0]) + 0.02
    for power in (1.0, -1.0, 0.5, -0.5):
        expected = factors.back(factors(v) * values**power)
        torch.testing.assert_close(quick.filter(v, quick.eigenvalues**power), expected, rtol=0, atol=1e-11)


def expected_entries(name: str, grid: Grid) -> Tensor:
    """Isotropic covariances from the coordinates, written out."""
    place = grid.position(torch.arange(grid.n), torch.zeros(grid.n, grid.d))
    square = torch.zeros(grid.n, grid.n, dtype=torch.float64)
    for axis, (length, closed) in enumerate(zip(grid.extent, grid.periodic, strict=True)):
        x = place[:, axis]
        if closed:  # on a circle whose circumference is the extent
            turn, radius = 2 * torch.pi * x / length, length / (2 * torch.pi)
            for part in (torch.cos(turn), torch.sin(turn)):
                square = square + (radius * (part[:, None] - part)) ** 2
        else:
            square = square + (x[:, None] - x) ** 2
    d, one = square.sqrt(), torch.eye(grid.n).double()
    if name == "Gaussian":
        return 0.7 * torch.exp(-square / (2 * 0.9**2)) + 0.01 * one
    return 0.7 * (1 + d / 0.6) * torch.exp(-d / 0.6)


@grids
@pytest.mark.parametrize("name", ["Gaussian", "SOAR"])
def test_entries_follow_the_formulas_of_the_distance(name: str, grid: Grid) -> None:
    matrix = FAMILIES[name](grid, False).matrix
    torch.testing.assert_close(matrix, expected_entries(name, grid), rtol=0, atol=1e-13)


@grids
@families
@separable
def test_lookup_of_entries_is_the_matrix_and_rescaling_is_what_scaled_entries_say(
    family: Family, grid: Grid, separable: bool
) -> None:
    covariance = family(grid, separable)
    i, j = torch.tensor([[0], [12], [5]]), torch.tensor([7, 0, 12, 3])
    assert torch.equal(covariance.entries(i, j), covariance.matrix[i, j])
    torch.testing.assert_close(covariance.scaled_entries(i, j, ONE, ONE), covariance.entries(i, j), rtol=0, atol=1e-13)
    length = 0.8 if covariance.has_length else 1.0
    changed = covariance.rescaled(1.3, length)
    assert changed.grid == grid
    scaled = covariance.scaled_entries(i, j, 1.3 * ONE, length * ONE)
    torch.testing.assert_close(changed.entries(i, j), scaled, rtol=0, atol=1e-12)
    torch.testing.assert_close(covariance.plus_constant(0.3).matrix, covariance.matrix + 0.3, rtol=0, atol=1e-12)


@families
@separable
def test_plane_of_one_row_is_the_ring(family: Family, separable: bool) -> None:
    ring, row = family(Grid([13]), separable), family(Grid([1, 13]), separable)
    v = normal(generator_of(1), B, 13)
    torch.testing.assert_close(row.matrix, ring.matrix, rtol=0, atol=1e-12)
    torch.testing.assert_close(row.solve(v), ring.solve(v), rtol=1e-12, atol=1e-12)


def test_power_law_of_a_plane_has_the_stated_variance_and_spectrum() -> None:
    covariance = PowerLawCovariance(GRIDS["periodic"], 0.7, 1.5, 3.0)
    k_y, k_x = torch.meshgrid(torch.tensor([0.0, 1, 2, 2, 1]), torch.arange(4.0), indexing="ij")
    expected = (1 + (k_y**2 + k_x**2).double() / 1.5**2) ** -1.5
    spectrum = covariance.eigenvalues.view(5, 4)
    torch.testing.assert_close(spectrum / spectrum[0, 0], expected, rtol=1e-10, atol=0)
    for grid in GRIDS.values():
        diagonal = PowerLawCovariance(grid, 0.7).matrix.diagonal()
        torch.testing.assert_close(diagonal, torch.full_like(diagonal, 0.7), rtol=1e-12, atol=0)


@grids
def test_draws_have_the_covariance(grid: Grid) -> None:
    covariance, count = SOARCovariance(grid, 0.7, 0.6), 40_000
    draws, variance = covariance.sample(count, generator_of(2)), covariance.matrix.diagonal()
    # Entries of a sample covariance have variance (B_ii B_jj + B_ij²)/count; five of their standard deviations.
    deviation = ((variance[:, None] * variance + covariance.matrix**2) / count).sqrt()
    assert ((draws.T @ draws / count - covariance.matrix).abs() < 5 * deviation).all()


def test_estimates_keep_the_grid_of_the_truth() -> None:
    truth = SOARCovariance(GRIDS["channel"], 0.7, 0.3)
    ensemble = EnsembleCovariance(truth, members=9, support=1.0)
    for estimate in (ensemble, NMCCovariance(truth, members=9), HybridCovariance(truth, ensemble)):
        assert estimate.grid == GRIDS["channel"]
    far = GRIDS["channel"].between(torch.arange(35)[:, None], torch.arange(35))
    assert (ensemble.matrix[torch.hypot(*far) > 1.0] == 0).all()
    with pytest.raises(ValueError, match=r"^ensemble: expected the grid of static, 5 × 7, got 5 × 7 \(a channel\)"):
        HybridCovariance(SOARCovariance(GRIDS["periodic"]), ensemble)


@pytest.mark.parametrize(
    "build",
    [
        lambda: SOARCovariance(Grid([64, 65], periodic=False)),
        lambda: PowerLawCovariance(Grid([64, 65], periodic=[True, False])),
        lambda: GaussianCovariance(4097).matrix,
        lambda: DenseCovariance(torch.zeros(1).expand(4097, 4097)),
        lambda: GaussianCovariance(Grid([64, 65], periodic=False)).plus_constant(0.1),
        lambda: NMCCovariance(SOARCovariance(4097)),
        lambda: EnsembleCovariance(SOARCovariance(4097)),
    ],
    ids=["isotropic, bounded", "channel", "matrix", "dense", "bounded, offset", "NMC", "ensemble"],
)
def test_no_matrix_of_more_than_4096_points_is_written_out(build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"^covariance: expected at most 4,096 points .*separable = true\), got 4"):
        build()


@pytest.mark.parametrize(
    "build",
    [
        lambda: SOARCovariance(Grid([128, 130]), length=0.3),
        lambda: SOARCovariance(Grid([128, 130], periodic=False), length=0.3, separable=True),
        lambda: GaussianCovariance(Grid([128, 130], periodic=[False, True]), length=0.3),
        lambda: PowerLawCovariance(Grid([128, 130], periodic=False), separable=True),
        lambda: DiagonalCovariance(Grid([128, 130], periodic=False)),
    ],
    ids=["periodic", "bounded SOAR", "Gaussian channel", "bounded power law", "diagonal"],
)
def test_large_planes_need_no_matrix(build: Callable[[], Covariance]) -> None:
    covariance = build()
    n = covariance.n
    # The spectrum, the lags of twice the axes, and the axes' eigenvectors.
    assert sum(buffer.numel() for buffer in covariance.buffers()) <= 7 * n
    v = normal(generator_of(1), 2, n)
    condition = (covariance.eigenvalues.max() / covariance.eigenvalues.min()).item()
    again = covariance.multiply(covariance.solve(v))
    assert (again - v).norm() < 1e-14 * condition * v.norm()


def test_covariance_that_is_not_positive_definite_is_refused_on_a_plane() -> None:
    grid = Grid([12, 12])
    along = torch.minimum(torch.arange(12.0), 12 - torch.arange(12.0)).double() * (2 * torch.pi / 12)
    column = torch.exp(-(along[:, None] ** 2 + along**2) / (2 * 1.5**2)).flatten()
    with pytest.raises(ValueError, match=r"^covariance: .*smallest eigenvalue -0\."):
        StationaryCovariance(column, grid)
