"""Networks and the solver: what they cannot depend on, and that descent descends."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eai.core.errors import ConfigError
from eai.tasks.assimilation.data import Curves, Twin
from eai.tasks.assimilation.scores import analysis_diagnostics, final_scores, with_fewer_observations
from eai.tasks.assimilation.task import Assimilation
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.covariance import GaussianCovariance, SlidesCovariance
from eai.variational.graph_net import ObservationGraphNet
from eai.variational.grid import as_grid
from eai.variational.nets import (
    CircularConvolution,
    IncrementMLP,
    TutorialMLP,
    observation_fields,
    uniform_increment,
)
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, PointValue, PointwiseFunction
from eai.variational.resampling import resample
from eai.variational.solver import Descent, UnrolledSolver, conjugate_gradients

N, P = 13, 5


def make_cost(n: int = N, on_grid: bool = True, dense: bool = False) -> VariationalCost:
    covariance = SlidesCovariance(n, nugget=0.01) if dense else GaussianCovariance(n, nugget=0.01)
    return VariationalCost(covariance, PointValue() if on_grid else Interpolation(), ObservationError(0.1))


def make_batch(cost: VariationalCost, count: int = 3, p: int = P, p_min: int | None = None) -> Batch:
    on_grid = isinstance(cost.operator, PointValue)
    network = ObservationNetwork(p, p_min=p_min, on_grid=on_grid, withheld=2)
    twin = Twin(cost.covariance, cost.operator, cost.obs_error, network, Curves(), n=cost.covariance.n, n_test=count)
    return twin.batch("test")


def every_net(cost: VariationalCost) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    nets: dict[str, nn.Module] = {
        "mlp": IncrementMLP(cost, width=9, depth=2),
        "convolution": CircularConvolution(cost, points=cost.covariance.n, channels=6, blocks=3, kernel=3),
        "graph": ObservationGraphNet(cost, width=6, layers=2, reach=1, hops=(1, 3)),
    }
    for net in nets.values():
        for parameter in net.parameters():  # the nets start from the uniform increment; move them away from it
            nn.init.normal_(parameter, std=0.3)
    return {**nets, "solver": UnrolledSolver(cost, nets["mlp"], steps=3)}


@pytest.mark.parametrize("name", ["mlp", "convolution", "graph", "solver"])
@pytest.mark.parametrize("on_grid", [True, False])
def test_analysis_depends_on_nothing_but_background_and_assimilated_observations(name: str, on_grid: bool) -> None:
    cost = make_cost(on_grid=on_grid)
    net = every_net(cost)[name].eval()
    batch = make_batch(cost, p_min=2)
    analysis = net(batch)
    absurd = torch.where(batch.obs_mask > 0, batch.y, 1e3)
    moved = torch.where(batch.obs_mask > 0, batch.obs_index, 0)
    changed = batch._replace(y=absurd, obs_index=moved, xt=batch.xt + 7, obs_sigma_true=batch.obs_sigma + 3)
    torch.testing.assert_close(net(changed), analysis, rtol=1e-4, atol=1e-5)
    alone = torch.cat([net(Batch(*(field[i : i + 1] for field in batch))) for i in range(3)])
    torch.testing.assert_close(alone, analysis, rtol=1e-4, atol=1e-5)
    order = torch.randperm(batch.y.shape[1], generator=torch.Generator().manual_seed(1))
    slots = {
        f: getattr(batch, f)[:, order]
        for f in ("y", "obs_index", "obs_fraction", "obs_sigma", "obs_mask", "obs_withheld", "obs_sigma_true")
    }
    torch.testing.assert_close(net(batch._replace(**slots)), analysis, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["convolution", "graph"])
def test_rotating_the_ring_rotates_the_analysis(name: str) -> None:
    cost = make_cost()
    net, batch, shift = every_net(cost)[name], make_batch(cost), 4
    rotated = batch._replace(xb=batch.xb.roll(shift, 1), obs_index=(batch.obs_index + shift) % N)
    torch.testing.assert_close(net(rotated), net(batch).roll(shift, 1), rtol=1e-4, atol=1e-5)


def test_same_weights_give_the_same_analysis_on_a_grid_three_times_as_fine() -> None:
    # A smooth B, observations at the same angles: only the grid differs.
    torch.manual_seed(0)
    coarse, fine = (
        VariationalCost(GaussianCovariance(n, nugget=1e-6), PointValue(), ObservationError(0.1)) for n in (15, 45)
    )
    batch = make_batch(coarse)
    xb = resample(batch.xb, as_grid(15), [45])
    refined = batch._replace(xb=xb, obs_index=3 * batch.obs_index, xt=resample(batch.xt, as_grid(15), [45]))
    # Where the coarse grid's points are, the background is the same, hence the innovations.
    torch.testing.assert_close(xb[:, ::3], batch.xb, rtol=0, atol=1e-5)
    small, large = (CircularConvolution(cost, points=15, channels=6, blocks=3) for cost in (coarse, fine))
    for parameter in small.parameters():
        nn.init.normal_(parameter, std=0.3)
    large.load_state_dict(small.state_dict())
    spread = (uniform_increment(fine, refined)[:, ::3] - uniform_increment(coarse, batch)).abs().max()
    assert (large(refined)[:, ::3] - small(batch)).abs().max() < 0.05 + 3 * spread


def test_edges_of_the_graph_know_how_far_each_observation_is() -> None:
    # An observation moved by a cell less of index and a cell more of fraction is at the same place.
    cost = make_cost(on_grid=False)
    net, batch = every_net(cost)["graph"], make_batch(cost)
    seen: list[torch.Tensor] = []
    net.from_observations.along.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))  # type: ignore[union-attr, operator]
    net(batch)
    place = 2 * torch.pi / N * (batch.obs_index + batch.obs_fraction[..., 0])
    (span,) = net.span
    edges = seen[0][0, :, -1] if seen[0].ndim == 3 else seen[0][:, -1]
    expected = [
        ((point - index) * 2 * torch.pi / N - (there - index * 2 * torch.pi / N)).item()
        for index, there, mask in zip(batch.obs_index.flatten(), place.flatten(), batch.obs_mask.flatten(), strict=True)
        if mask == 1
        for point in range(int(index) - span, int(index) + span + 2)  # type: ignore[operator]
    ]
    torch.testing.assert_close(edges.double(), torch.tensor(expected).double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [29, 45])
def test_graph_net_takes_its_weights_to_another_grid(n: int) -> None:
    small, large = every_net(make_cost())["graph"], every_net(make_cost(n=n))["graph"]
    large.load_state_dict(small.state_dict())
    assert large(make_batch(make_cost(n=n))).shape == (3, n)


def test_resampling_is_exact_for_resolved_waves() -> None:
    def wave(n: int) -> torch.Tensor:
        angle = torch.arange(n).double() * 2 * torch.pi / n
        return (0.3 + torch.sin(2 * angle) + 0.5 * torch.cos(5 * angle))[None]

    for n, m in ((13, 31), (31, 13), (12, 30)):
        torch.testing.assert_close(resample(wave(n), as_grid(n), [m]), wave(m))


def test_sums_on_the_ring_keep_every_innovation() -> None:
    cost = make_cost(on_grid=False)
    batch = make_batch(cost)
    for points in (N, 7, 29):
        fields = observation_fields(cost, batch, as_grid(points)).sum(2)
        torch.testing.assert_close(fields[:, 0], cost.innovation(batch).float().sum(1))
        torch.testing.assert_close(fields[:, 1], batch.obs_mask.sum(1))


def test_tutorial_net_has_the_parameters_of_the_slides_and_is_tied_to_their_number_of_observations() -> None:
    net = TutorialMLP(60, 18)
    assert sum(parameter.numel() for parameter in net.parameters()) == 958_908
    with pytest.raises(ValueError, match=r"^p: expected the number of observations in the data, 7, got 5"):
        TutorialMLP(N, P)(make_batch(make_cost()))


def test_tutorial_net_in_blocks_has_the_values_and_gradients_of_the_whole_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batch = make_batch(make_cost(), count=8)
    torch.manual_seed(0)
    net = TutorialMLP(N, batch.y.shape[1])
    found = []
    for block in (8, 3):
        monkeypatch.setattr(TutorialMLP, "BLOCK", block)
        output = net(batch)
        found.append([output, *torch.autograd.grad(output.square().mean(), list(net.parameters()))])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-6)


def test_third_field_is_the_exact_increment_when_every_point_is_observed() -> None:
    # Then R⁻¹ is the same everywhere, and (B⁻¹ + ρ)⁻¹ Hᵀ R⁻¹ d is the BLUE's increment.
    cost = make_cost()
    network = ObservationNetwork(N)
    batch = Twin(cost.covariance, cost.operator, cost.obs_error, network, Curves(), n=N, n_test=3).batch("test")
    increment = (cost.minimiser(batch) - batch.xb).float()
    torch.testing.assert_close(uniform_increment(cost, batch).float(), increment, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("scale", [None, 1.0, 0.3])
def test_conjugate_gradients_reach_the_blue_in_as_many_steps_as_there_are_observations(
    dense: bool, scale: float | None
) -> None:
    # Preconditioned with B the Hessian is I plus a matrix of rank p: p + 1 distinct eigenvalues.
    cost = make_cost(dense=dense)
    batch = make_batch(cost)
    analysis = conjugate_gradients(cost, batch, P + 1 if scale is None else N, scale)
    torch.testing.assert_close(analysis, cost.minimiser(batch), rtol=1e-6, atol=1e-8)


def test_conjugate_gradients_minimise_over_the_krylov_space() -> None:
    cost = make_cost()
    batch = make_batch(cost, count=1)
    xb = batch.xb.double()
    directions = [cost.covariance.multiply(cost.gradient(xb, batch))]
    for _ in range(2):
        directions.append(cost.covariance.multiply(cost.curvature(xb, directions[-1], batch)))
    basis = torch.cat(directions).T / torch.stack([d.norm() for d in directions])
    hessian = torch.stack([cost.curvature(xb, column[None], batch)[0] for column in basis.T], 1)
    weights = torch.linalg.solve(basis.T @ hessian, -basis.T @ cost.gradient(xb, batch)[0])
    expected = xb[0] + basis @ weights
    torch.testing.assert_close(conjugate_gradients(cost, batch, 3)[0], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("on_grid", [True, False])
def test_cost_decreases_from_step_to_step_of_the_solver(on_grid: bool) -> None:
    cost = make_cost(on_grid=on_grid)
    solver = UnrolledSolver(cost, every_net(cost)["mlp"], steps=9).eval()
    nn.init.normal_(solver.log_scale)  # any learned preconditioner
    batch = make_batch(cost, count=17, p_min=1)
    costs = torch.stack([cost.total(state, batch) for state in solver.iterates(batch)])
    # 1e-9: rounding of float64, once a sample has converged.
    assert (costs.diff(dim=0) <= 1e-9 * costs[:-1]).all()
    excess = costs.sum(1) - cost.minimum(batch).sum()
    assert excess[-1] < 1e-3 * excess[0]


def test_descent_stays_where_it_is_at_the_minimum() -> None:
    cost = make_cost()
    batch = make_batch(cost)
    descent = Descent(cost, batch, cost.minimiser(batch))
    for _ in range(3):
        descent.step(cost.covariance.eigenvalues)
    torch.testing.assert_close(descent.state, cost.minimiser(batch), rtol=1e-6, atol=1e-8)


def test_training_passes_a_share_of_the_batch_through_the_steps() -> None:
    cost = make_cost()
    net = every_net(cost)["mlp"]
    solver = UnrolledSolver(cost, net, steps=4, unrolled=0.4)
    batch = make_batch(cost, count=5)
    trained, guess, final = solver.train()(batch), net(batch).double(), solver.eval()(batch)
    torch.testing.assert_close(trained[:2], final[:2])
    torch.testing.assert_close(trained[2:], guess[2:])
    cost.total(trained, batch).mean().backward()
    assert solver.log_scale.grad is not None
    assert (solver.log_scale.grad != 0).all()


def test_scores_of_the_optimum_are_one_and_those_of_the_background_zero_skill() -> None:
    cost = make_cost()
    batch = make_batch(cost, count=7)

    def scores(analysis: torch.Tensor) -> dict[str, float]:
        means = {}
        for name, item in analysis_diagnostics(cost, batch, analysis).items():
            value, weight = item if isinstance(item, tuple) else (item, torch.ones(7))
            means[name] = float((value * weight).sum() / weight.sum())
        return final_scores(means)

    optimum, background = scores(cost.minimiser(batch)), scores(batch.xb)
    assert optimum["j_ratio"] == pytest.approx(1, abs=1e-9)
    assert optimum["j_skill"] == pytest.approx(1, abs=1e-9)
    assert optimum["gap_to_optimum"] == pytest.approx(0, abs=1e-9)
    assert optimum["gradient_norm"] == pytest.approx(0, abs=1e-9)
    assert optimum["rmse_analysis"] == optimum["rmse_optimum"]
    assert background["j_skill"] == pytest.approx(0, abs=1e-9)
    assert background["gradient_norm"] == pytest.approx(1)
    assert background["o_a_std"] == pytest.approx(background["o_b_std"])


def test_observations_outside_the_domain_are_refused_before_training() -> None:
    cost = make_cost()
    data = Twin(cost.covariance, cost.operator, cost.obs_error, ObservationNetwork(P), Curves(), n=N, n_val=3)
    outside = data.batch("val")._replace(obs_index=torch.full((3, P), N))
    data.samples["val"].all = outside
    task = Assimilation(IncrementMLP(cost, width=9), cost, torch.optim.Adam)
    with pytest.raises(ConfigError, match=r"^data: expected observations at grid points 0 to 12, got 13 to 13"):
        task.check_data(data)


def test_fewer_observations_keep_the_first_assimilated_ones() -> None:
    batch = make_batch(make_cost(), p_min=2)
    fewer = with_fewer_observations(batch, 2)
    assert (fewer.obs_mask.sum(1) == 2).all()
    assert (fewer.obs_mask <= batch.obs_mask).all()


def test_net_for_a_non_linear_operator_trains_on_its_cost() -> None:
    cost = VariationalCost(GaussianCovariance(N), PointwiseFunction(PointValue(), "exp"), ObservationError(0.1))
    network = ObservationNetwork(P)
    batch = Twin(cost.covariance, cost.operator, cost.obs_error, network, Curves(), n=N, n_test=3).batch("test")
    solver = UnrolledSolver(cost, IncrementMLP(cost, width=9), steps=2, unrolled=1.0)
    cost.total(solver(batch), batch).mean().backward()
    gradients = [parameter.grad for parameter in solver.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
