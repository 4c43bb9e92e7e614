"""The non-linear optimum is one, and what descends on J for a non-linear H never ends above where it began."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor, nn

import eai.variational.newton
from eai.tasks.assimilation.scores import analysis_diagnostics
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.covariance import GaussianCovariance
from eai.variational.nets import IncrementMLP, seen_innovations
from eai.variational.networks import ObservationNetwork
from eai.variational.newton import damped_newton
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, PointValue, PointwiseFunction, WindowAverage
from eai.variational.solver import Descent, UnrolledSolver, conjugate_gradients, descend
from tests.variational.cases import (
    OPERATORS,
    N,
    P,
    consistent_batch,
    dense_h,
    dense_r,
    double,
    generator_of,
    normal,
    rows,
)

COUNT = 7


def strong(error: ObservationError, count: int = COUNT) -> tuple[VariationalCost, Batch]:
    """Exponentials of increments of .7, seen to .05: Gauss-Newton's full steps overshoot to costs of 10⁶ and more."""
    cost = VariationalCost(
        GaussianCovariance(N, variance=0.5, length=0.9, nugget=0.01), PointwiseFunction(Interpolation(), "exp"), error
    )
    return cost, consistent_batch(cost, ObservationNetwork(P, on_grid=False, withheld=1), count)


ERRORS = {"uniform": ObservationError(0.05), "correlated": ObservationError(0.05, 0.1, correlation_length=0.7)}
errors = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())


@errors
def test_minimiser_is_that_of_scipy_from_several_starts(error: ObservationError) -> None:
    cost, batch = strong(error)
    optimum = cost.optimum(batch)
    assert (optimum.converged == 1).all()
    assert cost.total(batch.xb, batch).max() > 100 * optimum.cost.mean()
    inverse_b = torch.linalg.inv(cost.covariance.matrix).numpy()
    h = dense_h(Interpolation(), batch).numpy()
    inverse_r = torch.linalg.inv(dense_r(error, batch)).numpy()
    for i in range(3):
        kept = batch.obs_mask[i].bool().numpy()
        hi = h[i][kept]
        ri = np.linalg.inv(np.linalg.inv(inverse_r[i])[np.ix_(kept, kept)])
        xb, y = batch.xb[i].numpy(), batch.y[i].numpy()[kept]

        def value_and_gradient(
            x: np.ndarray, hi: np.ndarray = hi, ri: np.ndarray = ri, xb: np.ndarray = xb, y: np.ndarray = y
        ) -> tuple[float, np.ndarray]:
            seen = np.exp(hi @ x)
            increment, residual = inverse_b @ (x - xb), y - seen
            value = 0.5 * (x - xb) @ increment + 0.5 * residual @ ri @ residual
            return float(value), increment - hi.T @ (seen * (ri @ residual))

        starts = [xb, batch.xt[i].numpy(), xb + normal(generator_of(i), N).numpy()]
        options = {"maxiter": 5000, "gtol": 1e-9, "ftol": 1e-15, "maxfun": 20000, "maxcor": 30}
        found = [minimize(value_and_gradient, x, jac=True, method="L-BFGS-B", options=options) for x in starts]
        best = min(found, key=lambda result: result.fun)
        # L-BFGS ends at rounding of J over the slope: 1e-7 of J, and its root in the state.
        assert optimum.cost[i].item() == pytest.approx(best.fun, rel=1e-7)
        np.testing.assert_allclose(optimum.state[i].numpy(), best.x, atol=1e-3)


@errors
def test_gradient_vanishes_at_every_minimiser_and_the_rest_of_the_batch_does_not_matter(
    error: ObservationError,
) -> None:
    cost, batch = strong(error, 101)
    optimum = cost.optimum(batch)
    state = optimum.state.clone().requires_grad_()
    (slope,) = torch.autograd.grad(cost.total(state, batch).sum(), state)
    size = (slope * cost.covariance.multiply(slope)).sum(1)
    start = cost.gradient(batch.xb, batch)
    # The tolerance is 1e-8 of the norm; B⁻¹ of a state, which the search does not use, rounds at 1e-16 · cond(B).
    assert (size <= 1e-14 * (start * cost.covariance.multiply(start)).sum(1)).all()
    alone = cost.minimiser(rows(batch, [5]))
    torch.testing.assert_close(alone[0], optimum.state[5], rtol=0, atol=1e-7)


def test_search_that_is_cut_short_says_which_samples_did_not_converge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eai.variational.newton, "LOOPS", 6)
    cost, batch = strong(ERRORS["uniform"], 101)
    optimum = cost.optimum(batch)
    gradient, start = (cost.gradient(x, batch) for x in (optimum.state, batch.xb))
    size = [(g * cost.covariance.multiply(g)).sum(1) for g in (gradient, start)]
    assert 0 < optimum.converged.mean() < 1
    assert (size[0] <= 1e-14 * size[1])[optimum.converged == 1].all()
    unconverged = analysis_diagnostics(cost, batch, batch.xb)["unconverged"]
    torch.testing.assert_close(unconverged, 1 - optimum.converged)


def test_damped_newton_halves_steps_that_would_climb() -> None:
    # f = √(1 + v²): the full Newton step from v is −v³, which diverges from |v| > 1.
    start = torch.tensor([[0.5], [3.0], [0.0]], dtype=torch.float64)

    def propose(v: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        gradient = v / (1 + v**2).sqrt()
        return gradient, -gradient * (1 + v**2) ** 1.5

    found, converged = damped_newton(start, lambda v, _: (1 + v**2).sqrt()[:, 0], propose, lambda g: g)
    torch.testing.assert_close(found, torch.zeros_like(found), rtol=0, atol=1e-7)
    assert (converged == 1).all()


def test_optimum_is_computed_once_for_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    cost, batch = strong(ERRORS["uniform"])
    first = cost.optimum(batch)
    assert cost.optimum(Batch(*batch)) is first
    # Another batch: computed anew.
    moved = batch._replace(y=batch.y + 1)
    assert not torch.equal(cost.optimum(moved).state, first.state)
    monkeypatch.setattr(cost, "regress", None)
    assert torch.equal(cost.minimum(moved), cost.optimum(moved).cost)
    with pytest.raises(TypeError):
        cost.optimum(batch)


@pytest.mark.parametrize("inner", OPERATORS.values(), ids=OPERATORS.keys())
def test_near_observations_are_the_logarithms_where_observations_are_sharp(inner: nn.Module) -> None:
    # z → log y as σ → 0, then y' = log y and σ' = σ/y.
    cost = VariationalCost(
        GaussianCovariance(N),
        PointwiseFunction(inner, "exp"),
        ObservationError(1e-5),  # type: ignore[arg-type]
    )
    batch = consistent_batch(cost, ObservationNetwork(P, on_grid=isinstance(inner, PointValue)), COUNT)
    near, like = cost.near(batch)
    torch.testing.assert_close(like.y, batch.y.log(), rtol=0, atol=1e-6)
    torch.testing.assert_close(like.obs_sigma, batch.obs_sigma / batch.y, rtol=1e-5, atol=0)
    torch.testing.assert_close(near.innovation(like), like.y - inner(batch.xb, batch))


def test_near_cost_touches_j_where_one_observation_alone_has_its_minimum() -> None:
    # One observation, B diagonal: the minimiser of the near cost is that of J, but for the last Newton step.
    cost = VariationalCost(
        GaussianCovariance(N, variance=0.5, length=0.01, nugget=0.0),
        PointwiseFunction(PointValue(), "exp"),
        ObservationError(0.3),
    )
    batch = consistent_batch(cost, ObservationNetwork(1), 31)
    near, like = cost.near(batch)
    torch.testing.assert_close(near.minimiser(like), cost.minimiser(batch), rtol=0, atol=1e-3)


def test_near_is_the_problem_itself_for_a_linear_operator() -> None:
    cost = VariationalCost(GaussianCovariance(N), WindowAverage(3), ObservationError(0.3))
    batch = consistent_batch(cost, ObservationNetwork(P), 3)
    near, like = cost.near(batch)
    assert near is cost
    assert like is batch
    d, weight = seen_innovations(cost, batch)
    assert torch.equal(d, cost.innovation(batch))
    assert torch.equal(weight, batch.obs_mask)


def test_weight_of_an_observation_is_its_gain_alone_and_zero_where_it_takes_no_part() -> None:
    cost, batch = strong(ERRORS["uniform"])
    d, weight = seen_innovations(cost, batch)
    near, like = cost.near(batch)
    gain = 0.51 / (0.51 + like.obs_sigma**2)
    torch.testing.assert_close(weight, gain * batch.obs_mask)
    torch.testing.assert_close(d, weight * near.innovation(like))
    assert (weight[batch.obs_mask == 0] == 0).all()


@errors
def test_no_step_on_a_non_linear_j_ever_raises_it(error: ObservationError) -> None:
    cost, batch = strong(error, 31)
    for scale in (1e-3, 1.0, 1e3):  # of the preconditioner: far too short and far too long steps too
        descent, costs = Descent(cost, batch, batch.xb), [cost.total(batch.xb, batch)]
        for _ in range(9):
            descent.step(scale * cost.covariance.eigenvalues)
            costs.append(cost.total(descent.state, batch))
        rise = torch.stack(costs).diff(dim=0)
        # Rounding of B⁻¹ (x − x_b), followed from step to step: 1e-10 of the first cost.
        assert (rise <= 1e-10 * costs[0]).all()
        assert costs[-1].sum() < 0.2 * costs[0].sum()
        # What it follows is the gradient at the state, not that of a model of J.
        torch.testing.assert_close(descent.gradient, cost.gradient(descent.state, batch), rtol=1e-6, atol=1e-4)


def test_relinearising_gradients_reach_the_optimum() -> None:
    cost, batch = strong(ERRORS["uniform"], 31)
    excess = [
        float(cost.total(conjugate_gradients(cost, batch, steps), batch).sum() / cost.minimum(batch).sum() - 1)
        for steps in (5, 10, 40, 80)
    ]
    # Ten steps, two of them on J, are within a tenth; eighty, sixteen of them on J, at the optimum.
    assert excess[1] < 0.1
    assert excess[3] < 1e-4
    assert excess == sorted(excess, reverse=True)


def test_analysis_of_the_solver_never_costs_more_than_its_first_guess() -> None:
    cost, batch = strong(ERRORS["uniform"], 101)
    torch.manual_seed(0)
    solver = UnrolledSolver(cost, IncrementMLP(cost, width=9), steps=6).eval()
    nn.init.normal_(solver.log_scale, std=3)
    states = solver.iterates(batch)
    assert len(states) == 7
    assert (cost.total(states[-1], batch) <= cost.total(states[0], batch) * (1 + 1e-10)).all()
    # Even from the optimum, from where the cost near J leads away.
    guess = cost.minimiser(batch)
    last = descend(cost, batch, guess, [cost.covariance.eigenvalues] * 5)[-1]
    assert (cost.total(last, batch) <= cost.minimum(batch) * (1 + 1e-9)).all()


def test_gradients_pass_through_relinearised_steps() -> None:
    cost, batch = strong(ERRORS["uniform"])
    torch.manual_seed(0)
    solver = UnrolledSolver(cost, IncrementMLP(cost, width=9), steps=4, unrolled=1.0)
    cost.total(solver(batch), batch).mean().backward()
    for parameter in solver.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
    assert solver.log_scale.grad is not None
    assert (solver.log_scale.grad != 0).all()


def test_single_precision_batches_have_the_minimiser_of_their_values() -> None:
    cost, batch = strong(ERRORS["uniform"])
    coarse = Batch(*(field.float() if field.is_floating_point() else field for field in batch))
    torch.testing.assert_close(cost.minimiser(coarse), cost.minimiser(double(coarse)), rtol=0, atol=1e-6)
