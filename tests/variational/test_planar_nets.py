"""The exact minimiser, nets and solver on planes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from eai.tasks.assimilation.data import Curves, RandomFields, Twin
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.covariance import GaussianCovariance, SOARCovariance
from eai.variational.covariance_base import Covariance
from eai.variational.graph_net import ObservationGraphNet
from eai.variational.grid import Grid
from eai.variational.nets import CircularConvolution, IncrementMLP, observation_fields
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, LinearOperator, PointwiseFunction, WindowAverage
from eai.variational.resampling import resample
from eai.variational.solver import UnrolledSolver, conjugate_gradients
from eai.variational.tracks import TrackNetwork
from tests.variational.cases import double, generator_of
from tests.variational.planes import FAMILIES, GRIDS

B, P = 3, 6
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())
PLANES = {
    "periodic": Grid([9, 12]),
    "bounded": Grid([9, 12], periodic=False),
    "channel": Grid([9, 12], periodic=[False, True]),
}
planes = pytest.mark.parametrize("grid", PLANES.values(), ids=PLANES.keys())


def cost_on(
    grid: Grid, covariance: Covariance | None = None, operator: LinearOperator | None = None
) -> VariationalCost:
    b = covariance or SOARCovariance(grid, 0.7, 0.6)
    return VariationalCost(b, operator or Interpolation(grid), ObservationError(0.3))


def batch_of(cost: VariationalCost, network: ObservationNetwork | None = None, count: int = B) -> Batch:
    grid = cost.covariance.grid
    network = network or ObservationNetwork(P, p_min=2, on_grid=False, withheld=2)
    sizes = {"n": grid, "n_train": 1, "n_val": 1, "n_test": count}
    return Twin(cost.covariance, cost.operator, cost.obs_error, network, RandomFields(), **sizes).batch("test")


@grids
@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES.keys())
@pytest.mark.parametrize("window", [False, True], ids=["interpolation", "window"])
def test_gradient_vanishes_at_the_exact_minimiser(family: object, grid: Grid, window: bool) -> None:
    covariance = family(grid, False)  # type: ignore[operator]
    cost = cost_on(grid, covariance, WindowAverage(3, grid) if window else None)
    batch = double(batch_of(cost))
    state = cost.minimiser(batch)
    gradient, start = cost.gradient(state, batch), cost.gradient(batch.xb, batch)
    norm, first = ((g * covariance.multiply(g)).sum(1).sqrt() for g in (gradient, start))
    assert (norm < 1e-9 * first).all()
    optimum = cost.optimum(batch)
    torch.testing.assert_close(optimum.cost, cost.total(state, batch), rtol=1e-8, atol=1e-10)
    assert (optimum.dfs < batch.obs_mask.sum(1)).all()


def test_minimiser_and_spread_are_those_of_dense_algebra() -> None:
    cost = cost_on(GRIDS["channel"])
    batch = double(batch_of(cost, ObservationNetwork(P, on_grid=False)))
    b, h = cost.covariance.matrix, cost.operator.matrix(batch.xb, batch)
    gain = b @ h.mT @ torch.linalg.inv(h @ b @ h.mT + 0.09 * torch.eye(P))
    expected = batch.xb + (gain @ cost.innovation(batch)[:, :, None])[:, :, 0]
    torch.testing.assert_close(cost.minimiser(batch), expected, rtol=1e-6, atol=1e-6)  # σ is a float32
    variance = (b - gain @ h @ b).diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(cost.analysis_variance(batch), variance, rtol=1e-6, atol=1e-6)


def test_search_for_a_nonlinear_minimum_converges_on_a_plane() -> None:
    grid = GRIDS["bounded"]
    cost = VariationalCost(
        GaussianCovariance(grid, 0.3, 0.5), PointwiseFunction(Interpolation(grid)), ObservationError(0.3)
    )
    batch = batch_of(cost)
    assert cost.optimum(batch).converged.all()
    assert (cost.total(conjugate_gradients(cost, batch, 10), batch) < 1.01 * cost.optimum(batch).cost).all()


@grids
def test_conjugate_gradients_reach_the_minimum_in_as_many_steps_as_observations(grid: Grid) -> None:
    cost = cost_on(grid)
    batch = double(batch_of(cost))
    torch.testing.assert_close(conjugate_gradients(cost, batch, P + 1), cost.minimiser(batch), rtol=0, atol=1e-8)


def nets_on(cost: VariationalCost, smooth: bool = False) -> dict[str, nn.Module]:
    torch.manual_seed(0)
    shape = cost.covariance.grid.shape
    nets: dict[str, nn.Module] = {
        "convolution": CircularConvolution(cost, points=shape, channels=6, blocks=3, kernel=3, smooth=smooth),
        "graph": ObservationGraphNet(cost, width=6, layers=2, reach=1, hops=(6, 12)),
        "mlp": IncrementMLP(cost, width=9, depth=1),
    }
    for net in nets.values():
        for parameter in net.parameters():  # the nets start from the uniform increment; move them away from it
            nn.init.normal_(parameter, std=0.3)
    return nets


@pytest.mark.parametrize("name", ["convolution", "graph"])
@pytest.mark.parametrize("smooth", [False, True])
def test_moving_everything_on_a_periodic_plane_moves_the_analysis(name: str, smooth: bool) -> None:
    grid = PLANES["periodic"]
    cost = cost_on(grid)
    net, batch = nets_on(cost, smooth)[name], batch_of(cost)

    def moved(field: torch.Tensor) -> torch.Tensor:
        return field.view(B, *grid.shape).roll((2, -5), (1, 2)).flatten(1)

    index, _ = grid.moved(batch.obs_index, torch.tensor([[2, -5]]))
    there = net(batch._replace(xb=moved(batch.xb), obs_index=index[..., 0]))
    torch.testing.assert_close(there, moved(net(batch)), rtol=1e-4, atol=1e-5)


@planes
@pytest.mark.parametrize("name", ["convolution", "graph", "mlp"])
def test_analysis_depends_on_nothing_but_background_and_assimilated_observations(name: str, grid: Grid) -> None:
    cost = cost_on(grid)
    net, batch = nets_on(cost)[name], batch_of(cost)
    analysis = net(batch)
    absurd = torch.where(batch.obs_mask > 0, batch.y, 1e3)
    elsewhere = torch.where(batch.obs_mask > 0, batch.obs_index, 0)
    changed = batch._replace(y=absurd, obs_index=elsewhere, xt=batch.xt + 7)
    torch.testing.assert_close(net(changed), analysis, rtol=1e-4, atol=1e-5)
    alone = torch.cat([net(Batch(*(field[i : i + 1] for field in batch))) for i in range(B)])
    torch.testing.assert_close(alone, analysis, rtol=1e-4, atol=1e-5)


def test_nets_do_not_see_across_a_closed_edge() -> None:
    # One observation on the first row of a channel whose B ends after two rows: far rows differ by what nets carry.
    grid, reach = Grid([24, 12], periodic=[False, True]), 3
    cost = cost_on(grid)
    first, last = torch.zeros(1, 1).long(), torch.full((1, 1), grid.n - 1)
    batch = batch_of(cost, ObservationNetwork(1, on_grid=False), 1)
    torch.manual_seed(0)
    net = ObservationGraphNet(cost, width=6, layers=1, reach=1, hops=(3,))
    edges = {
        (int(a), int(b))
        for a, b in zip(*net.ring.tolist(), strict=True)  # type: ignore[operator, union-attr]
    }
    rows = {(a // 12, b // 12) for a, b in edges}
    assert max(abs(a - b) for a, b in rows) <= reach
    for corner in (first, last):
        seen, _ = net._observation_edges(batch._replace(obs_index=corner))  # type: ignore[operator]
        assert len({int(i) // 12 for i in seen[1]} & {0, 23}) == 1


@planes
def test_weights_go_to_another_number_of_points(grid: Grid) -> None:
    other = grid.resized([11, 10])
    for name in ("convolution", "graph"):
        small, large = nets_on(cost_on(grid))[name], nets_on(cost_on(other))[name]
        large.load_state_dict(small.state_dict())
        assert large(batch_of(cost_on(other))).shape == (B, 110)


@planes
def test_cost_decreases_from_step_to_step_of_the_solver(grid: Grid) -> None:
    cost = cost_on(grid)
    solver, batch = UnrolledSolver(cost, nets_on(cost)["convolution"], steps=4).eval(), batch_of(cost)
    costs = torch.stack([cost.total(state, batch) for state in solver.iterates(batch)])
    assert (costs.diff(dim=0) < 1e-9).all()
    assert (costs[-1] >= cost.minimum(batch)).all()


@grids
def test_fields_of_observations_are_sums_that_interpolation_would_read(grid: Grid) -> None:
    cost = cost_on(grid)
    batch = batch_of(cost)
    fields = observation_fields(cost, batch, grid, torch.float64)
    expected = cost.operator.adjoint(batch.xb.double(), cost.innovation(batch), batch)
    torch.testing.assert_close(fields[:, 0], expected, rtol=1e-6, atol=1e-6)  # fractions are float32
    for shape in ([9] * grid.d, [31] * grid.d):
        sums = observation_fields(cost, batch, grid.resized(shape), torch.float64).sum(2)
        torch.testing.assert_close(sums[:, 0], cost.innovation(batch).sum(1), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(sums[:, 1], batch.obs_mask.sum(1).double(), rtol=1e-6, atol=1e-6)


@grids
def test_resampling_is_exact_for_the_waves_of_both_grids(grid: Grid) -> None:
    def wave(on: Grid) -> torch.Tensor:
        places = on.position(torch.arange(on.n), torch.zeros(on.n, on.d)).unbind(-1)
        value = torch.full((on.n,), 0.3).double()
        for place, length, closed in zip(places, on.extent, on.periodic, strict=True):
            turn = 2 * math.pi * place / length
            value = value * (1 + (torch.sin(turn) if closed else torch.cos(0.5 * turn)) + torch.cos(turn))
        return value[None]

    for shape in ([11, 4], [4, 16], [9, 9]):
        other = grid.resized(shape[: grid.d])
        torch.testing.assert_close(resample(wave(grid), grid, other.shape), wave(other))
    assert torch.equal(resample(wave(grid), grid, grid.shape), wave(grid))


def test_analysis_of_a_quarter_of_a_million_points_needs_no_matrix() -> None:
    # B would have 2^36 numbers, 512 GiB.
    grid = Grid([512, 512])
    cost = cost_on(grid, SOARCovariance(grid, 0.7, 0.3))
    batch = batch_of(cost, TrackNetwork(40, tracks=3), 1)
    gradient = cost.gradient(cost.minimiser(batch), batch)
    start = cost.gradient(batch.xb, batch)
    assert gradient.norm() < 1e-5 * start.norm()
    net = CircularConvolution(cost, points=16, channels=4, blocks=2, kernel=3)
    assert (cost.total(UnrolledSolver(cost, net, 3).eval()(batch), batch) < cost.total(batch.xb, batch)).all()


def test_random_fields_of_planes_have_their_variance_and_curves_are_of_rings() -> None:
    for grid in PLANES.values():
        fields = RandomFields(1.3, 2.0, 4.0).draw(4001, grid, generator_of(0))
        # The mean square of each point, within five standard deviations √(2/count).
        assert (fields.square().mean(0) / 1.3 - 1).abs().max() < 5 * (2 / 4001) ** 0.5
        with pytest.raises(ValueError, match=r"^prior: expected RandomFields on a plane"):
            Curves().draw(3, grid, generator_of(0))


def test_grids_of_data_and_covariance_have_to_agree() -> None:
    cost, network = cost_on(PLANES["periodic"]), ObservationNetwork(P)
    with pytest.raises(ValueError, match=r"^covariance: expected size n = 9 × 12 \(bounded\), got 9 × 12"):
        Twin(cost.covariance, cost.operator, cost.obs_error, network, RandomFields(), n=PLANES["bounded"])


@pytest.mark.parametrize("points", [[9], [7, 12], [9, 12, 3]])
def test_points_of_another_number_of_axes_are_refused(points: list[int]) -> None:
    with pytest.raises(ValueError, match=r"^points: expected"):
        CircularConvolution(cost_on(PLANES["periodic"]), points=points)
