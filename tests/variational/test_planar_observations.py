"""H on planes: bilinear interpolation, box averages, their adjoints; R by the distance in the plane."""

from __future__ import annotations

import pytest
import torch

from eai.variational.batch import Batch
from eai.variational.grid import Grid
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, LinearOperator, PointValue, PointwiseFunction, WindowAverage
from tests.variational.cases import generator_of, normal
from tests.variational.planes import GRIDS

P, B = 6, 3
grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


def batch_on(grid: Grid, on_grid: bool = False) -> Batch:
    g = generator_of(7)
    index, fraction, mask, withheld = ObservationNetwork(P, on_grid=on_grid).draw(B, grid, g)
    xb, y, sigma = normal(g, B, grid.n), normal(g, B, P), torch.full((B, P), 0.3)
    return Batch(xb, y, index, fraction, sigma, mask, withheld, xb, sigma)


def operators_on(grid: Grid) -> dict[str, LinearOperator]:
    return {"point": PointValue(), "interpolation": Interpolation(grid), "window": WindowAverage(3, grid)}


@grids
@pytest.mark.parametrize("name", ["point", "interpolation", "window"])
def test_adjoint_and_matrix_are_those_of_the_operator(grid: Grid, name: str) -> None:
    operator, batch = operators_on(grid)[name], batch_on(grid)
    g = generator_of(4)
    v, w = normal(g, B, grid.n), normal(g, B, P)
    observed = operator(v, batch)
    left, right = (observed * w).sum(1), (v * operator.adjoint(batch.xb, w, batch)).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)
    product = torch.einsum("bpn,bn->bp", operator.matrix(v, batch), v)
    torch.testing.assert_close(product, observed, rtol=1e-12, atol=1e-13)
    constant = operator(torch.full_like(v, 3.0), batch)
    torch.testing.assert_close(constant, torch.full_like(constant, 3.0), rtol=1e-6, atol=0)  # fractions are float32


def test_interpolation_is_exact_for_a_bilinear_field() -> None:
    grid = GRIDS["bounded"]
    batch = batch_on(grid)
    place = grid.position(torch.arange(grid.n), torch.zeros(grid.n, 2))

    def field(at: torch.Tensor) -> torch.Tensor:
        y, x = at.unbind(-1)
        return 0.3 - 1.7 * x + 0.4 * y + 2.1 * x * y

    observed = Interpolation(grid)(field(place).expand(B, -1), batch)
    expected = field(grid.position(batch.obs_index, batch.obs_fraction))
    torch.testing.assert_close(observed, expected, rtol=1e-12, atol=1e-12)


def test_interpolation_goes_on_at_the_other_side_of_a_periodic_axis_only() -> None:
    state = torch.arange(35.0, dtype=torch.float64)[None]
    last = batch_on(GRIDS["channel"])._replace(obs_index=torch.tensor([[13] + [0] * 5] * B))  # row 1, column 6
    last = last._replace(obs_fraction=torch.tensor([0.25, 0.5]).expand(B, P, 2))
    observed = Interpolation(GRIDS["channel"])(state.expand(B, -1), last)
    assert observed[0, 0].item() == pytest.approx(0.75 * (13 + 7) / 2 + 0.25 * (20 + 14) / 2, rel=1e-14)


def test_box_average_keeps_to_the_points_inside_the_domain() -> None:
    state = torch.arange(35.0, dtype=torch.float64).expand(B, -1)
    corner = batch_on(GRIDS["bounded"], on_grid=True)._replace(obs_index=torch.full((B, P), 6))
    inside = [5, 6, 12, 13]
    assert WindowAverage(3, GRIDS["bounded"])(state, corner)[0, 0].item() == pytest.approx(sum(inside) / 4, rel=1e-14)
    wrapped = [5, 6, 0, 12, 13, 7]
    assert WindowAverage(3, GRIDS["channel"])(state, corner)[0, 0].item() == pytest.approx(sum(wrapped) / 6, rel=1e-14)
    wrapped += [33, 34, 28]
    assert WindowAverage(3, GRIDS["periodic"])(state, corner)[0, 0].item() == pytest.approx(sum(wrapped) / 9, rel=1e-14)


def test_row_of_a_plane_is_observed_as_a_ring() -> None:
    ring, row = Grid([13]), Grid([1, 13])
    flat = batch_on(ring)
    batch = flat._replace(obs_fraction=torch.cat([torch.full((B, P, 1), 0.4), flat.obs_fraction], 2))
    expected = Interpolation()(flat.xb, flat)
    torch.testing.assert_close(Interpolation(row)(flat.xb, batch), expected, rtol=1e-7, atol=1e-7)  # 0.4 is a float32
    with pytest.raises(ValueError, match=r"^width: expected at most n = 1"):
        WindowAverage(3, row)(flat.xb, batch)


def test_nonlinear_function_has_the_slopes_of_finite_differences() -> None:
    grid = GRIDS["channel"]
    operator, batch = PointwiseFunction(Interpolation(grid), "exp"), batch_on(grid)
    v, step = normal(generator_of(4), B, grid.n), 1e-5
    difference = (operator(batch.xb + step * v, batch) - operator(batch.xb - step * v, batch)) / (2 * step)
    torch.testing.assert_close(operator.tangent(batch.xb, v, batch), difference, rtol=1e-8, atol=1e-8)


@grids
def test_correlation_of_errors_follows_the_distance_in_the_domain(grid: Grid) -> None:
    batch, error = batch_on(grid), ObservationError(0.3, correlation_length=0.7)
    place = grid.position(batch.obs_index, batch.obs_fraction)
    matrix = error.matrix(batch, grid)
    for k in range(P):
        apart = grid.distance(place[:, k : k + 1], place)
        torch.testing.assert_close(matrix[:, k], 0.3**2 * torch.exp(-apart / 0.7), rtol=1e-6, atol=0)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()


def test_operator_for_another_grid_is_refused() -> None:
    batch = batch_on(GRIDS["periodic"])
    with pytest.raises(ValueError, match=r"^operator.n: expected the state's number of points, 35, got 4 × 9"):
        Interpolation(Grid([4, 9]))(batch.xb, batch)
