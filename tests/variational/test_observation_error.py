"""R: the errors of observations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation
from tests.variational.cases import ERRORS, B, N, P, dense_r, generator_of, random_batch, standard_errors

errors = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())


@errors
def test_error_covariance_is_its_explicit_formula(error: ObservationError) -> None:
    batch = random_batch(Interpolation(), error)
    matrix = error.matrix(batch, N)
    torch.testing.assert_close(matrix, dense_r(error, batch), rtol=1e-12, atol=1e-15)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()


@errors
def test_weighing_is_the_product_with_the_inverse_of_the_part_that_counts(error: ObservationError) -> None:
    batch = random_batch(Interpolation(), error)
    mask = torch.tensor([1.0, 0, 1, 1, 0]).double().expand(B, P)
    weighed = error.weigh(batch.y, batch._replace(obs_mask=mask), N)
    assert (weighed[:, [1, 4]] == 0).all()
    kept = torch.tensor([0, 2, 3])
    part = dense_r(error, batch)[:, kept][:, :, kept]
    expected = torch.linalg.solve(part, batch.y[:, kept, None])[:, :, 0]
    torch.testing.assert_close(weighed[:, kept], expected, rtol=1e-10, atol=1e-12)


@errors
def test_drawn_errors_have_the_error_covariance_at_all_slots(error: ObservationError) -> None:
    # Whitened by the factor of R they are white; entries within five standard deviations, at most sqrt(2/count).
    count = 20_000
    batch = random_batch(Interpolation(), error, count=count)
    no_part = batch._replace(obs_mask=batch.obs_mask * (torch.arange(P) < 3))
    noise = error.draw(no_part, N, generator_of(6))
    factor = torch.linalg.cholesky(error.matrix(batch, N))
    white = torch.linalg.solve_triangular(factor, noise[:, :, None], upper=False)[:, :, 0]
    assert (white.T @ white / count - torch.eye(P)).abs().max() < 5 * (2 / count) ** 0.5
    assert (white.mean(0).abs() < 5 / count**0.5).all()


def test_standard_deviations_are_uniform_between_their_bounds() -> None:
    sigma = ObservationError(0.2, sigma_max=0.6).draw_sigma(4001, P, generator_of(6)).double()
    assert sigma.min() >= 0.2
    assert sigma.max() <= 0.6
    assert standard_errors(sigma.flatten() - 0.4).abs() < 4.5
    # The variance of a uniform variable is width²/12.
    assert standard_errors((sigma.flatten() - 0.4).square() - 0.4**2 / 12).abs() < 4.5
    assert torch.equal(ObservationError(0.2).draw_sigma(B, P, generator_of(6)), torch.full((B, P), 0.2))


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("sigma", lambda: ObservationError(0.0)),
        ("sigma", lambda: ObservationError(-0.1)),
        ("sigma_max", lambda: ObservationError(0.3, sigma_max=0.2)),
        ("correlation_length", lambda: ObservationError(0.3, correlation_length=-1.0)),
    ],
)
def test_bad_argument_is_named(argument: str, build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
