"""Background-error covariances: positive definite, and every fast product equal to dense linear algebra."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from eai.variational.covariance import (
    DiagonalCovariance,
    GaspariCohnCovariance,
    GaussianCovariance,
    SlidesCovariance,
    SOARCovariance,
    gaspari_cohn,
)
from eai.variational.covariance_base import Covariance, DenseCovariance, StationaryCovariance
from eai.variational.estimated_covariance import (
    EnsembleCovariance,
    HybridCovariance,
    NMCCovariance,
    localised_estimate,
    nmc_estimate,
)
from eai.variational.grid import angles
from eai.variational.power_law import PowerLawCovariance
from tests.variational.cases import B, N, generator_of, normal

STATIONARY: dict[str, Callable[[int], Covariance]] = {
    "Gaussian": GaussianCovariance,
    "SOAR": SOARCovariance,
    "GaspariCohn": GaspariCohnCovariance,
    "PowerLaw": PowerLawCovariance,
    "Diagonal": DiagonalCovariance,
}
MODELS: dict[str, Callable[[int], Covariance]] = {
    **STATIONARY,
    "Slides": SlidesCovariance,
    "NMC": lambda n: NMCCovariance(SOARCovariance(n), members=40),
    "Ensemble": lambda n: EnsembleCovariance(SOARCovariance(n)),
    "Hybrid": lambda n: HybridCovariance(GaussianCovariance(n), EnsembleCovariance(SOARCovariance(n)), 0.3),
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
stationary = pytest.mark.parametrize("model", STATIONARY.values(), ids=STATIONARY.keys())
sizes = pytest.mark.parametrize("n", [8, 13, 60, 257])


def chords(n: int) -> torch.Tensor:
    """Distances between the points of the unit circle, from their coordinates."""
    points = torch.stack([torch.cos(angles(n)), torch.sin(angles(n))], 1)
    return (points[:, None] - points[None, :]).norm(dim=2)


@models
@sizes
def test_covariance_is_symmetric_and_positive_definite(model: Callable[[int], Covariance], n: int) -> None:
    covariance = model(n)
    matrix = covariance.matrix
    assert matrix.shape == (n, n)
    torch.testing.assert_close(matrix, matrix.T, rtol=0, atol=1e-14)  # a product X Xᵀ is symmetric up to rounding
    assert torch.linalg.eigvalsh(matrix)[0] > 0
    assert covariance.eigenvalues.min() > 0


@models
@sizes
def test_products_agree_with_dense_linear_algebra(model: Callable[[int], Covariance], n: int) -> None:
    covariance = model(n)
    matrix, v = covariance.matrix, normal(generator_of(1), B, n)
    torch.testing.assert_close(covariance.multiply(v), v @ matrix, rtol=0, atol=1e-12 * n)
    # A stable solution has a relative error of about condition · rounding.
    inverse = torch.linalg.solve(matrix, v.T).T
    condition = torch.linalg.cond(matrix).item()
    tolerance = 10 * condition * torch.finfo(torch.float64).eps
    assert (covariance.solve(v) - inverse).norm() <= tolerance * inverse.norm()
    torch.testing.assert_close(covariance.squared_norm(v), (v * inverse).sum(1), rtol=tolerance, atol=0)
    torch.testing.assert_close(covariance.multiply(covariance.solve(v)), v, rtol=0, atol=tolerance * 10)


@models
def test_entries_are_those_of_the_matrix_for_indices_that_broadcast(model: Callable[[int], Covariance]) -> None:
    covariance = model(N)
    i, j = torch.tensor([[0], [12], [5]]), torch.tensor([7, 0, 12, 3, 5])
    assert torch.equal(covariance.entries(i, j), covariance.matrix[i, j])
    assert covariance.entries(i, j).shape == (3, 5)


@models
def test_filter_takes_one_response_for_all_rows_or_one_for_each(model: Callable[[int], Covariance]) -> None:
    covariance, v = model(N), normal(generator_of(1), B, N)
    powers = torch.stack([torch.ones_like(covariance.eigenvalues), covariance.eigenvalues, covariance.eigenvalues**2])
    each = covariance.filter(v, powers)
    expected = torch.stack([v[0], covariance.matrix @ v[1], covariance.matrix @ covariance.matrix @ v[2]])
    torch.testing.assert_close(each, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(covariance.filter(v, powers[1])[2], covariance.matrix @ v[2], rtol=0, atol=1e-12)


@models
def test_draws_have_the_covariance_and_mean_zero(model: Callable[[int], Covariance]) -> None:
    covariance, count = model(N), 40_000
    draws = covariance.sample(count, generator_of(2))
    assert draws.dtype == torch.float64
    variance = covariance.matrix.diagonal()
    # Entries of a sample covariance have variance (B_ii B_jj + B_ij²)/count; five of their standard deviations.
    deviation = ((variance[:, None] * variance + covariance.matrix**2) / count).sqrt()
    assert ((draws.T @ draws / count - covariance.matrix).abs() < 5 * deviation).all()
    assert (draws.mean(0).abs() < 5 * (variance / count).sqrt()).all()


@models
def test_draws_repeat_under_a_seed(model: Callable[[int], Covariance]) -> None:
    covariance = model(N)
    assert torch.equal(covariance.sample(B, generator_of(2)), covariance.sample(B, generator_of(2)))
    assert not torch.equal(covariance.sample(B, generator_of(2)), covariance.sample(B, generator_of(3)))


@models
def test_covariance_is_rebuilt_from_its_configuration_and_not_from_a_checkpoint(
    model: Callable[[int], Covariance],
) -> None:
    assert model(N).state_dict() == {}


@stationary
@sizes
def test_stationary_covariance_is_circulant(model: Callable[[int], Covariance], n: int) -> None:
    matrix = model(n).matrix
    assert torch.equal(matrix.roll((1, 1), (0, 1)), matrix)


def test_covariance_of_the_slides_is_not_circulant() -> None:
    matrix = SlidesCovariance(N).matrix
    assert not torch.allclose(matrix.roll((1, 1), (0, 1)), matrix)


@stationary
def test_stationary_covariance_of_4096_points_needs_no_matrix(
    model: Callable[[int], Covariance],
) -> None:
    covariance = model(4096)
    assert sum(buffer.numel() for buffer in covariance.buffers()) <= 3 * 4096
    v = normal(generator_of(1), B, 4096)
    # The condition number reaches 1e12, of sixteen digits.
    torch.testing.assert_close(covariance.multiply(covariance.solve(v)), v, rtol=0, atol=1e-2)


def test_entries_follow_the_published_formulas_of_the_chord() -> None:
    d, one = chords(N), torch.eye(N).double()
    gaussian = GaussianCovariance(N, variance=0.7, length=0.9, nugget=0.01).matrix
    torch.testing.assert_close(gaussian, 0.7 * torch.exp(-(d**2) / (2 * 0.9**2)) + 0.01 * one, rtol=1e-12, atol=1e-14)
    soar = SOARCovariance(N, variance=0.7, length=0.6, nugget=0.02).matrix
    torch.testing.assert_close(soar, 0.7 * (1 + d / 0.6) * torch.exp(-d / 0.6) + 0.02 * one, rtol=1e-12, atol=1e-14)
    compact = GaspariCohnCovariance(N, variance=0.7, support=1.7, nugget=0.03).matrix
    torch.testing.assert_close(compact, 0.7 * gaspari_cohn(d, 1.7) + 0.03 * one, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(DiagonalCovariance(N, variance=0.7).matrix, 0.7 * one, rtol=1e-12, atol=0)


def test_covariance_of_the_slides_is_the_printed_one() -> None:
    theta = torch.tensor([round(2 * torch.pi * i / N, 3) for i in range(N)], dtype=torch.float64)
    line = theta[:, None] - theta
    expected = 0.5 * torch.exp(-(line**2) / (2 * 1.5**2)) + 0.001 * torch.eye(N).double()
    torch.testing.assert_close(SlidesCovariance(N).matrix, expected, rtol=1e-14, atol=1e-15)


def test_gaussian_of_the_distance_along_the_ring_is_refused_with_its_smallest_eigenvalue() -> None:
    apart = (angles(60)[:, None] - angles(60)).abs()
    along = torch.minimum(apart, 2 * torch.pi - apart)
    with pytest.raises(ValueError, match=r"^covariance: .*positive definite.*smallest eigenvalue -0\.18"):
        DenseCovariance(torch.exp(-(along**2) / (2 * 1.5**2)))


def test_stationary_covariance_that_is_not_positive_definite_is_refused_with_its_smallest_eigenvalue() -> None:
    along = torch.minimum(angles(60), 2 * torch.pi - angles(60))
    with pytest.raises(ValueError, match=r"^covariance: .*smallest eigenvalue -0\.18"):
        StationaryCovariance(torch.exp(-(along**2) / (2 * 1.5**2)))


def test_semidefinite_matrix_is_refused() -> None:
    v = normal(generator_of(1), N, N - 1)
    with pytest.raises(ValueError, match="smallest eigenvalue"):
        DenseCovariance(v @ v.T)


def test_eigenvalue_that_rounding_may_have_made_counts_as_zero() -> None:
    with pytest.raises(ValueError, match="smallest eigenvalue 1e-17"):
        DenseCovariance(torch.tensor([1.0, 1e-17], dtype=torch.float64).diag())
    assert DenseCovariance(torch.tensor([1.0, 1e-12], dtype=torch.float64).diag()).n == 2


def test_gaspari_cohn_is_one_at_zero_and_ends_smoothly_at_its_support() -> None:
    def at(*distances: float) -> torch.Tensor:
        return gaspari_cohn(torch.tensor(distances, dtype=torch.float64), 1.4)

    torch.testing.assert_close(at(0.0, 1.4, 1.5, 9.0), torch.tensor([1.0, 0, 0, 0]).double(), rtol=0, atol=1e-14)
    # 5/24 at half the support (Gaspari and Cohn 1999), from both sides.
    step = 1e-9
    torch.testing.assert_close(
        at(0.7 - step, 0.7, 0.7 + step), torch.full((3,), 5 / 24, dtype=torch.float64), rtol=0, atol=1e-8
    )
    falls = gaspari_cohn(torch.linspace(0, 1.4, 101).double(), 1.4).diff()
    assert (falls < 0).all()
    # The slope is continuous too: no jump beyond second differences of a smooth function.
    assert falls.diff().abs().max() < 2e-3


def test_gaspari_cohn_covariance_is_zero_beyond_its_support() -> None:
    matrix = GaspariCohnCovariance(60, support=0.8).matrix
    d = chords(60)
    assert (matrix[d > 0.8] == 0).all()
    assert (matrix[d < 0.7] > 0).all()


@pytest.mark.parametrize("n", [13, 60])
def test_power_law_has_the_stated_variance_and_slope(n: int) -> None:
    covariance = PowerLawCovariance(n, variance=0.7, k0=2.0, slope=3.0)
    torch.testing.assert_close(
        covariance.matrix.diagonal(), torch.full((n,), 0.7, dtype=torch.float64), rtol=1e-12, atol=0
    )
    k = torch.arange(n // 2 + 1).double()
    spectrum = covariance.eigenvalues / covariance.eigenvalues[0]
    torch.testing.assert_close(spectrum, (1 + (k / 2) ** 2) ** -1.5, rtol=1e-10, atol=0)


def test_power_law_falls_with_its_slope_at_high_wavenumbers() -> None:
    eigenvalues = PowerLawCovariance(1024, k0=2.0, slope=3.0).eigenvalues
    # (1 + (k/2)²)^(−3/2) is k^−3 up to a relative 6/k² at k = 200.
    assert math.log2(eigenvalues[200] / eigenvalues[400]) == pytest.approx(3, abs=1e-3)


def test_nmc_estimate_converges_to_the_covariance_of_the_errors() -> None:
    truth, count = GaussianCovariance(N, variance=0.7, length=0.9, nugget=0.01), 40_000
    g = generator_of(5)
    estimate = nmc_estimate(truth.sample(count, g) - truth.sample(count, g))
    deviation = 0.71 * (2 / count) ** 0.5  # largest standard deviation of an entry
    assert (estimate - truth.matrix).abs().max() < 5 * deviation
    whole = NMCCovariance(truth, members=count, nugget=0.02).matrix
    assert (whole - truth.matrix - 0.02 * torch.eye(N)).abs().max() < 5 * deviation


def test_estimate_from_fewer_samples_than_points_needs_its_nugget() -> None:
    assert NMCCovariance(SOARCovariance(N), members=5, nugget=1e-3).eigenvalues.min() == pytest.approx(1e-3, rel=1e-6)
    with pytest.raises(ValueError, match="smallest eigenvalue"):
        NMCCovariance(SOARCovariance(N), members=5, nugget=0.0)


def test_localised_estimate_is_zero_beyond_the_support_and_untouched_on_the_diagonal() -> None:
    ensemble = SOARCovariance(N, length=2.0).sample(7, generator_of(5)) + 3
    localised, d = localised_estimate(ensemble, 1.1), chords(N)
    assert (localised[d >= 1.1] == 0).all()
    assert (localised[d < 1.0] != 0).all()
    torch.testing.assert_close(localised.diagonal(), ensemble.var(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(localised, ensemble.T.cov() * gaspari_cohn(d, 1.1), rtol=1e-10, atol=1e-14)


def test_localisation_brings_a_small_ensemble_closer_to_the_truth() -> None:
    truth = SOARCovariance(60, length=0.2)
    raw, localised = (
        NMCCovariance(truth, members=20, nugget=1e-3).matrix,
        EnsembleCovariance(truth, members=20, support=1.5).matrix,
    )
    assert (localised - truth.matrix).norm() < 0.8 * (raw - truth.matrix).norm()


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_hybrid_is_the_weighted_mean(weight: float) -> None:
    static, ensemble = GaussianCovariance(N), EnsembleCovariance(SOARCovariance(N))
    hybrid = HybridCovariance(static, ensemble, weight).matrix
    torch.testing.assert_close(hybrid, (1 - weight) * static.matrix + weight * ensemble.matrix, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("variance", lambda: GaussianCovariance(N, variance=0.0)),
        ("variance", lambda: SlidesCovariance(N, variance=-1.0)),
        ("variance", lambda: PowerLawCovariance(N, variance=-1.0)),
        ("length", lambda: GaussianCovariance(N, length=0.0)),
        ("length", lambda: SOARCovariance(N, length=-1.0)),
        ("length", lambda: SlidesCovariance(N, length=0.0)),
        ("nugget", lambda: SOARCovariance(N, nugget=-0.1)),
        ("nugget", lambda: NMCCovariance(SOARCovariance(N), nugget=-0.1)),
        ("support", lambda: GaspariCohnCovariance(N, support=2.1)),
        ("support", lambda: EnsembleCovariance(SOARCovariance(N), support=0.0)),
        ("k0", lambda: PowerLawCovariance(N, k0=0.0)),
        ("slope", lambda: PowerLawCovariance(N, slope=-1.0)),
        ("n", lambda: DiagonalCovariance(1)),
        ("members", lambda: EnsembleCovariance(SOARCovariance(N), members=1)),
        ("members", lambda: NMCCovariance(SOARCovariance(N), members=0)),
        ("weight", lambda: HybridCovariance(SOARCovariance(N), SOARCovariance(N), 1.1)),
        ("ensemble", lambda: HybridCovariance(SOARCovariance(N), SOARCovariance(N + 2))),
        ("matrix", lambda: DenseCovariance(torch.ones(N, N - 1))),
        ("matrix", lambda: DenseCovariance(torch.eye(N) + torch.ones(N, N).triu(1))),
        ("column", lambda: StationaryCovariance(torch.arange(N).double())),
    ],
)
def test_bad_argument_is_named(argument: str, build: Callable[[], Covariance]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
