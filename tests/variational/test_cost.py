"""The identities of the 3D-Var cost, for every pairing of B, H and R that is linear; float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.covariance import GaussianCovariance
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import PointValue, PointwiseFunction
from tests.variational.cases import (
    CASES,
    COVARIANCES,
    OPERATORS,
    B,
    Case,
    N,
    P,
    assert_relative,
    autograd,
    consistent_batch,
    dense_h,
    dense_r,
    generator_of,
    normal,
    random_batch,
    rows,
    single,
    with_absurd_slots,
)


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


def dense_hessian(case: Case) -> Tensor:
    """B⁻¹ + Hᵀ R⁻¹ H for each sample, with the inverses written out."""
    cost, batch = case
    h = dense_h(cost.operator, batch)
    inverse_r = torch.linalg.inv(dense_r(cost.obs_error, batch))
    return torch.linalg.inv(cost.covariance.matrix) + h.mT @ inverse_r @ h


# Rounding in float64 is 2e-16, and the condition numbers of B, R and H B Hᵀ + R here are below 1e4: errors of 1e-11
# are to be expected, and 1e-8 is far from any that a wrong formula makes.


def test_cost_equals_the_explicit_formula_sample_by_sample(case: Case) -> None:
    cost, batch = case
    terms = cost(batch.xt, batch)
    h, r = dense_h(cost.operator, batch), dense_r(cost.obs_error, batch)
    for i in range(B):
        increment, residual = batch.xt[i] - batch.xb[i], batch.y[i] - h[i] @ batch.xt[i]
        background = 0.5 * increment @ torch.linalg.inv(cost.covariance.matrix) @ increment
        observation = 0.5 * residual @ torch.linalg.inv(r[i]) @ residual
        torch.testing.assert_close(terms["background"][i], background, rtol=1e-8, atol=0)
        torch.testing.assert_close(terms["observation"][i], observation, rtol=1e-8, atol=0)
        torch.testing.assert_close(cost.total(batch.xt, batch)[i], background + observation, rtol=1e-8, atol=0)


def test_gradient_equals_that_of_automatic_differentiation(case: Case) -> None:
    cost, batch = case
    assert_relative(cost.gradient(batch.xt, batch), autograd(cost, batch.xt, batch), 1e-8)


def test_gradient_equals_finite_differences(case: Case) -> None:
    # A central difference of a quadratic is exact for any step, so only rounding is left.
    cost, batch = case
    v = normal(generator_of(3), B, N)
    difference = (cost.total(batch.xt + v, batch) - cost.total(batch.xt - v, batch)) / 2
    assert_relative((cost.gradient(batch.xt, batch) * v).sum(1), difference, 1e-8)


def test_curvature_is_the_dense_hessian_times_the_direction(case: Case) -> None:
    cost, batch = case
    v = normal(generator_of(3), B, N)
    expected = torch.einsum("bij,bj->bi", dense_hessian(case), v)
    assert_relative(cost.curvature(batch.xt, v, batch), expected, 1e-8)


def test_gradient_vanishes_at_the_blue(case: Case) -> None:
    cost, batch = case
    blue = cost.minimiser(batch)
    at_background = cost.gradient(batch.xb, batch).norm(dim=1)
    assert (cost.gradient(blue, batch).norm(dim=1) < 1e-8 * at_background).all()
    assert (autograd(cost, blue, batch).norm(dim=1) < 1e-8 * at_background).all()


def test_minimum_is_the_cost_of_the_minimiser(case: Case) -> None:
    cost, batch = case
    torch.testing.assert_close(cost.minimum(batch), cost.total(cost.minimiser(batch), batch), rtol=1e-8, atol=0)


def test_excess_cost_is_the_distance_from_the_optimum_in_the_norm_of_the_analysis_error(case: Case) -> None:
    # J(x) − J* = ½ (x−x*)ᵀ A⁻¹ (x−x*), and A⁻¹ is the Hessian.
    cost, batch = case
    distance = batch.xt - cost.minimiser(batch)
    expected = 0.5 * torch.einsum("bi,bij,bj->b", distance, dense_hessian(case), distance)
    torch.testing.assert_close(cost.total(batch.xt, batch) - cost.minimum(batch), expected, rtol=1e-8, atol=0)


def test_analysis_variance_and_degrees_of_freedom_follow_from_the_dense_gain(case: Case) -> None:
    cost, batch = case
    b, h = cost.covariance.matrix, dense_h(cost.operator, batch)
    gain = b @ h.mT @ torch.linalg.inv(h @ b @ h.mT + dense_r(cost.obs_error, batch))
    analysis_error = (torch.eye(N).double() - gain @ h) @ b
    assert_relative(cost.analysis_variance(batch), analysis_error.diagonal(dim1=1, dim2=2), 1e-8)
    assert_relative(cost.degrees_of_freedom(batch), (h @ gain).diagonal(dim1=1, dim2=2).sum(1), 1e-8)
    # A is the inverse of the Hessian as well.
    assert_relative(torch.linalg.inv(dense_hessian(case)), analysis_error, 1e-8)


def test_optimum_at_once_is_the_optimum_part_by_part(case: Case) -> None:
    cost, batch = case
    optimum = cost.optimum(batch)
    observed = cost.observed_covariance(batch.xb.double(), batch)
    assert_relative(optimum.state, cost.minimiser(batch), 1e-12)
    assert_relative(optimum.cost, cost.minimum(batch), 1e-12)
    assert_relative(optimum.dfs, cost.degrees_of_freedom(batch), 1e-12)
    assert_relative(optimum.background_variance, observed.diagonal(dim1=1, dim2=2), 1e-12)


def test_regression_is_the_dense_formula(case: Case) -> None:
    # w = (H B Hᵀ + E)⁻¹ d with an error covariance E that is not R.
    cost, batch = case
    b, h = cost.covariance.matrix, dense_h(cost.operator, batch)
    error = torch.eye(P).double() + 0.3 * torch.ones(P, P).double()
    found = cost.regress(batch.xb, batch.y, error.expand(B, P, P), batch)
    weights = torch.linalg.solve(h @ b @ h.mT + error, batch.y[:, :, None])[:, :, 0]
    assert_relative(found.observed, h @ b @ h.mT, 1e-12)
    assert_relative(found.weights, weights, 1e-10)
    assert_relative(found.dual, torch.einsum("bpi,bp->bi", h, weights), 1e-10)


def results(cost: VariationalCost, batch: Batch) -> dict[str, Tensor]:
    """All that a cost says of a batch, per sample."""
    x, v = batch.xt, normal(generator_of(3), 1, N).expand_as(batch.xt)
    return {
        **cost(x, batch),
        "gradient": cost.gradient(x, batch),
        "curvature": cost.curvature(x, v, batch),
        "minimiser": cost.minimiser(batch),
        "minimum": cost.minimum(batch),
        "degrees of freedom": cost.degrees_of_freedom(batch),
        "analysis variance": cost.analysis_variance(batch),
    }


def test_results_of_a_sample_do_not_depend_on_the_batch_it_is_in(case: Case) -> None:
    # Products of other shapes may sum in another order: 1e-10, not equality.
    cost, batch = case
    whole, order = results(cost, batch), [2, 0, 1]
    shuffled = results(cost, rows(batch, order))
    for i in range(B):
        for name, alone in results(cost, rows(batch, [i])).items():
            assert_relative(alone[0], whole[name][i], 1e-10)
            assert_relative(shuffled[name][order.index(i)], whole[name][i], 1e-10)


def test_padding_and_withheld_observations_change_nothing(case: Case) -> None:
    cost, batch = case
    plain = results(cost, batch)
    for name, padded in results(cost, with_absurd_slots(batch)).items():
        assert_relative(padded, plain[name], 1e-10)


def test_withholding_an_observation_is_leaving_it_out(case: Case) -> None:
    cost, batch = case
    last = torch.arange(P) == P - 1
    withheld = batch._replace(
        obs_mask=(~last).double().expand(B, P), obs_withheld=last.double().expand(B, P), y=batch.y + 1e9 * last
    )
    without = Batch(*(field[:, :-1] if field.shape[1] == P else field for field in batch))
    shorter = results(cost, without)
    for name, result in results(cost, withheld).items():
        assert_relative(result, shorter[name], 1e-10)


def test_innovation_is_zero_where_an_observation_takes_no_part(case: Case) -> None:
    cost, batch = case
    padded = cost.innovation(with_absurd_slots(batch))
    assert (padded[:, [0, 1, -1]] == 0).all()
    expected = batch.y - torch.einsum("bpi,bi->bp", dense_h(cost.operator, batch), batch.xb)
    assert_relative(padded[:, 2:-1], expected, 1e-12)


def test_single_precision_agrees_with_double_precision(case: Case) -> None:
    # float32 rounds at 6e-8; the condition of B, below 1e3, does the rest.
    cost, batch = case
    coarse = VariationalCost(cost.covariance, cost.operator, cost.obs_error, precision="float32")
    for name, term in coarse(batch.xt.float(), single(batch)).items():
        assert term.dtype == torch.float32
        torch.testing.assert_close(term.double(), cost(batch.xt, batch)[name], rtol=1e-4, atol=0)
    gradient = autograd(coarse, batch.xt.float(), single(batch))
    assert_relative(gradient.double(), cost.gradient(batch.xt, batch), 1e-4)
    assert_relative(coarse.minimiser(single(batch)), cost.minimiser(batch), 1e-4)


def test_two_observations_at_one_point_count_as_one_of_half_the_variance() -> None:
    cost = VariationalCost(COVARIANCES["Gaussian"], PointValue(), ObservationError(0.3))
    batch = random_batch(cost.operator, cost.obs_error)
    twice = batch._replace(obs_index=torch.tensor([[4, 4, 0, 12, 7]]).expand(B, P))
    mean = twice.y[:, :2].mean(1, keepdim=True)
    half = 0.3 / 2**0.5
    once = twice._replace(
        y=torch.cat([mean, mean, twice.y[:, 2:]], 1),
        obs_sigma=twice.obs_sigma.index_fill(1, torch.tensor([0]), half),
        obs_mask=twice.obs_mask.index_fill(1, torch.tensor([1]), 0.0),
    )
    # σ of the batch went through float32, hence not 1e-10.
    assert_relative(cost.minimiser(twice), cost.minimiser(once), 1e-6)
    assert (cost.gradient(cost.minimiser(twice), twice).abs() < 1e-9).all()


# Non-linear H.


@pytest.mark.parametrize("inner", OPERATORS.values(), ids=OPERATORS.keys())
def test_gauss_newton_finds_a_stationary_point_for_exponential_observations(inner: torch.nn.Module) -> None:
    # Small increments: the curvature of exp is weak beside that of J, so that ten loops reach rounding.
    cost = VariationalCost(
        GaussianCovariance(N, variance=0.01, length=0.9, nugget=1e-4),
        PointwiseFunction(inner, "exp"),  # type: ignore[arg-type]
        ObservationError(0.1, sigma_max=0.2, correlation_length=0.7),
    )
    batch = consistent_batch(cost, ObservationNetwork(P, on_grid=isinstance(inner, PointValue)), B)
    optimum = cost.minimiser(batch)
    at_background = cost.gradient(batch.xb, batch).norm(dim=1)
    assert (autograd(cost, optimum, batch).norm(dim=1) < 1e-8 * at_background).all()
    assert_relative(cost.gradient(batch.xt, batch), autograd(cost, batch.xt, batch), 1e-8)
    torch.testing.assert_close(cost.minimum(batch), cost.total(optimum, batch), rtol=0, atol=0)
    # A minimum: higher in every direction.
    for seed in range(5):
        step = 1e-2 * normal(generator_of(seed), B, N)
        assert (cost.total(optimum + step, batch) > cost.minimum(batch)).all()


def test_absolute_values_whose_sign_the_background_knows_are_assimilated_as_point_values() -> None:
    linear = VariationalCost(COVARIANCES["SOAR"], PointValue(), ObservationError(0.3))
    speeds = VariationalCost(COVARIANCES["SOAR"], PointwiseFunction(PointValue(), "abs"), ObservationError(0.3))
    batch = random_batch(linear.operator, linear.obs_error)
    below = batch._replace(xb=batch.xb - 20, y=batch.y + 20)
    mirrored = below._replace(xb=-below.xb)
    assert_relative(speeds.minimiser(below), -linear.minimiser(mirrored), 1e-12)
    torch.testing.assert_close(speeds.minimum(below), linear.minimum(mirrored), rtol=1e-8, atol=0)
