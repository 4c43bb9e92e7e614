"""Observation operators, their tangents and adjoints; networks; observation errors."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eai.variational.batch import Batch
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import (
    Interpolation,
    ObservationOperator,
    PointValue,
    PointwiseFunction,
    WindowAverage,
)
from tests.variational.cases import (
    ERRORS,
    OPERATORS,
    B,
    N,
    P,
    dense_h,
    dense_r,
    generator_of,
    normal,
    random_batch,
    standard_errors,
)

NONLINEAR: dict[str, ObservationOperator] = {
    f"{function}-{name}": PointwiseFunction(inner, function)
    for function in ("exp", "abs")
    for name, inner in OPERATORS.items()
}
ALL: dict[str, ObservationOperator] = {**OPERATORS, **NONLINEAR}
linear = pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
nonlinear = pytest.mark.parametrize("operator", NONLINEAR.values(), ids=NONLINEAR.keys())
every = pytest.mark.parametrize("operator", ALL.values(), ids=ALL.keys())
errors = pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())


def batch_for(operator: ObservationOperator) -> Batch:
    return random_batch(getattr(operator, "inner", operator), ObservationError(0.3))


def observing(*index: int, fraction: float = 0.0, n: int = N) -> Batch:
    """One sample that observes at the given points."""
    p = len(index)
    ones, zeros = torch.ones(1, p).double(), torch.zeros(1, p).double()
    state = torch.zeros(1, n).double()
    return Batch(state, zeros, torch.tensor([index]), zeros + fraction, ones, ones, zeros, state, ones)


@every
@pytest.mark.parametrize("shared", [False, True], ids=["distinct points", "two at one point"])
def test_adjoint_is_the_transpose_of_the_tangent(operator: ObservationOperator, shared: bool) -> None:
    batch = batch_for(operator)
    if shared:
        batch = batch._replace(obs_index=torch.tensor([[0, 0, 12, 5, 5]]).expand(B, P))
    g = generator_of(4)
    v, w = normal(g, B, N), normal(g, B, P)
    left = (operator.tangent(batch.xt, v, batch) * w).sum(1)
    right = (v * operator.adjoint(batch.xt, w, batch)).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@every
def test_matrix_times_a_field_is_the_tangent(operator: ObservationOperator) -> None:
    batch = batch_for(operator)
    v = normal(generator_of(4), B, N)
    product = torch.einsum("bpn,bn->bp", operator.matrix(batch.xt, batch), v)
    torch.testing.assert_close(product, operator.tangent(batch.xt, v, batch), rtol=1e-12, atol=1e-14)


@linear
def test_linear_operator_is_its_explicit_matrix(operator: ObservationOperator) -> None:
    batch = batch_for(operator)
    matrix = operator.matrix(batch.xt, batch)
    torch.testing.assert_close(matrix, dense_h(operator, batch), rtol=1e-12, atol=0)
    product = torch.einsum("bpn,bn->bp", matrix, batch.xt)
    torch.testing.assert_close(operator(batch.xt, batch), product, rtol=1e-12, atol=1e-14)
    assert operator.linear
    # Every one of them observes a constant as it is.
    torch.testing.assert_close(operator(torch.full_like(batch.xt, 3.0), batch), torch.full((B, P), 3.0).double())


@nonlinear
def test_tangent_of_a_nonlinear_operator_agrees_with_finite_differences(operator: ObservationOperator) -> None:
    batch = batch_for(operator)
    v, step = normal(generator_of(4), B, N), 1e-5
    assert not operator.linear
    assert (operator(batch.xt, batch) > 10 * step).all()  # no kink of |·| within a step
    difference = (operator(batch.xt + step * v, batch) - operator(batch.xt - step * v, batch)) / (2 * step)
    # A central difference errs by step² = 1e-10 and by rounding/step = 1e-11, times values of some tens.
    torch.testing.assert_close(operator.tangent(batch.xt, v, batch), difference, rtol=1e-8, atol=1e-8)


@nonlinear
def test_nonlinear_operator_is_the_function_of_the_linear_one(operator: ObservationOperator) -> None:
    assert isinstance(operator, PointwiseFunction)
    batch = batch_for(operator)
    inner = torch.einsum("bpn,bn->bp", dense_h(operator.inner, batch), batch.xt)
    expected = inner.exp() if operator.function == "exp" else inner.abs()
    torch.testing.assert_close(operator(batch.xt, batch), expected, rtol=1e-12, atol=1e-14)


@every
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_observed_values_have_the_precision_of_the_state(operator: ObservationOperator, dtype: torch.dtype) -> None:
    batch = batch_for(operator)
    assert operator(batch.xt.to(dtype), batch).dtype == dtype


@pytest.mark.parametrize("n", [100, 180, 200, 240])
def test_every_index_is_observed_at_its_own_point(n: int) -> None:
    # int(i/n · n) is not i at these sizes.
    index, fraction, _, _ = ObservationNetwork(n).draw(B, n, generator_of(0))
    state = torch.arange(n).double().expand(B, n)
    batch = Batch(state, fraction, index, fraction, fraction + 1, fraction + 1, fraction, state, fraction + 1)
    for operator in (PointValue(), Interpolation(), WindowAverage(1)):
        assert torch.equal(operator(state, batch), index.double())
    assert torch.equal(index.sort(1).values, torch.arange(n).expand(B, n))


def test_interpolation_wraps_from_the_last_point_to_the_first() -> None:
    state = torch.zeros(1, N).double()
    state[0, N - 1], state[0, 0] = 2.0, 10.0
    batch = observing(N - 1, fraction=0.25)
    assert Interpolation()(state, batch).item() == pytest.approx(0.75 * 2 + 0.25 * 10, rel=1e-15)


def test_window_average_wraps_at_both_ends() -> None:
    state = torch.arange(N).double()[None]
    batch = observing(0, N - 1, 6)
    expected = torch.tensor([[(12 + 0 + 1) / 3, (11 + 12 + 0) / 3, 6.0]], dtype=torch.float64)
    torch.testing.assert_close(WindowAverage(3)(state, batch), expected, rtol=1e-14, atol=0)
    expected = torch.tensor([[(11 + 12 + 0 + 1 + 2) / 5, (10 + 11 + 12 + 0 + 1) / 5, 6.0]], dtype=torch.float64)
    torch.testing.assert_close(WindowAverage(5)(state, batch), expected, rtol=1e-14, atol=0)


def test_interpolation_is_exact_for_a_straight_line_and_second_order_for_a_sine() -> None:
    for n in (60, 120):
        theta = 2 * math.pi / n
        batch = observing(7, fraction=0.5, n=n)
        state = torch.sin(torch.arange(n).double() * theta)[None]
        error = (Interpolation()(state, batch) - math.sin(7.5 * theta)).abs().item()
        assert error < theta**2 / 8
    line = torch.arange(N).double()[None]
    assert Interpolation()(line, observing(7, fraction=0.3)).item() == pytest.approx(7.3, rel=1e-14)


# R


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


# Networks

NETWORKS: dict[str, ObservationNetwork] = {
    "points": ObservationNetwork(P),
    "between points": ObservationNetwork(P, on_grid=False),
    "varying number": ObservationNetwork(P, p_min=2),
    "clustered": ObservationNetwork(P, cluster=0.7),
    "void": ObservationNetwork(P, void=2.0),
    "withheld": ObservationNetwork(P, p_min=2, withheld=3, void=1.0, cluster=0.5),
}
networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def resultant_length(index: Tensor, n: int) -> Tensor:
    """|mean of exp(iθ)|: 0 for evenly spread, 1 for coinciding positions."""
    angle = index * (2 * math.pi / n)
    return torch.hypot(torch.cos(angle).mean(1), torch.sin(angle).mean(1))


@networks
def test_points_of_a_sample_are_distinct_and_on_the_ring(network: ObservationNetwork) -> None:
    index, fraction, _, _ = network.draw(101, N, generator_of(0))
    assert index.shape == fraction.shape == (101, network.slots)
    assert index.min() >= 0
    assert index.max() < N
    assert (index.sort(1).values.diff(dim=1) > 0).all()
    assert (fraction >= 0).all()
    assert (fraction < 1).all()
    assert bool((fraction == 0).all()) == network.on_grid


@networks
def test_draws_of_a_network_repeat_under_a_seed_and_move_from_sample_to_sample(network: ObservationNetwork) -> None:
    first, again = network.draw(101, N, generator_of(0)), network.draw(101, N, generator_of(0))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = network.draw(101, N, generator_of(1))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], first[0][1])


@networks
def test_number_of_assimilated_observations_is_in_its_range(network: ObservationNetwork) -> None:
    _, _, mask, withheld = network.draw(1001, N, generator_of(0))
    number = mask.sum(1)
    lowest = network.p if network.p_min is None else network.p_min
    assert set(number.tolist()) == set(range(lowest, network.p + 1))
    assert (withheld.sum(1) == network.withheld).all()
    assert (mask * withheld == 0).all()
    assert set(mask.unique().tolist()) | set(withheld.unique().tolist()) <= {0.0, 1.0}


def test_positions_are_uniform_on_the_ring() -> None:
    # χ² of the counts of 13 points, without replacement within a sample, is below that of independent draws:
    # 12 degrees of freedom exceed 40 with probability 7e-5.
    count = 4001
    index, fraction, _, _ = ObservationNetwork(P, on_grid=False).draw(count, N, generator_of(0))
    seen = torch.bincount(index.flatten(), minlength=N).double()
    expected = count * P / N
    assert ((seen - expected).square() / expected).sum() < 40
    assert standard_errors(fraction.flatten().double() - 0.5).abs() < 4.5


def test_each_slot_is_uniform_too() -> None:
    # Otherwise the slots that are padding or withheld would lie elsewhere.
    count = 4001
    index, _, _, _ = ObservationNetwork(P).draw(count, N, generator_of(0))
    for slot in range(P):
        seen = torch.bincount(index[:, slot], minlength=N).double()
        assert ((seen - count / N).square() / (count / N)).sum() < 40


def widest_gap(network: ObservationNetwork, n: int) -> Tensor:
    """The widest arc without observations, of each of 301 samples."""
    index, fraction, _, _ = network.draw(301, n, generator_of(0))
    angle = (index + fraction.double()).sort(1).values * (2 * math.pi / n)
    gaps = torch.cat([angle.diff(dim=1), angle[:, :1] + 2 * math.pi - angle[:, -1:]], 1)
    return gaps.amax(1)


on_or_off_grid = pytest.mark.parametrize("on_grid", [True, False], ids=["points", "between points"])


@on_or_off_grid
@pytest.mark.parametrize("cluster", [0.0, 0.7, 0.99])
def test_nothing_is_observed_in_the_void(on_grid: bool, cluster: float) -> None:
    # Positions are computed in float32, hence the 1e-5.
    network = ObservationNetwork(18, on_grid=on_grid, void=2.0, cluster=cluster)
    assert (widest_gap(network, 60) >= 2.0 - 1e-5).all()


def test_void_moves_from_sample_to_sample_around_the_whole_ring() -> None:
    index, _, _, _ = ObservationNetwork(P, void=2.0).draw(4001, N, generator_of(0))
    seen = torch.bincount(index.flatten(), minlength=N).double()
    # A sample's points fall together: χ² larger than of independent draws, by at most p.
    expected = seen.mean()
    assert ((seen - expected).square() / expected).sum() < 40 * P


@on_or_off_grid
@pytest.mark.parametrize("void", [0.5, 1.0, 2.0, 3.0])
def test_as_many_observations_as_the_void_leaves_points_are_possible(on_grid: bool, void: float) -> None:
    n = 60
    free = n - math.ceil(void / (2 * math.pi) * n) - (not on_grid)
    network = ObservationNetwork(free, on_grid=on_grid, void=void)
    network.check_grid(n)
    assert (widest_gap(network, n) >= void - 1e-5).all()
    with pytest.raises(ValueError, match=r"^network.p: expected"):
        ObservationNetwork(free + 1, on_grid=on_grid, void=void).check_grid(n)


def test_clusters_make_the_mean_resultant_length_larger() -> None:
    lengths = []
    for cluster in (0.0, 0.3, 0.6, 0.9, 0.99):
        index, _, _, _ = ObservationNetwork(P, cluster=cluster).draw(501, 60, generator_of(0))
        lengths.append(resultant_length(index, 60).mean().item())
    assert lengths == sorted(lengths)
    # Random directions: sqrt(π/4p) = 0.40. Five neighbours of 60: all but 1.
    assert lengths[0] < 0.45
    assert lengths[-1] > 0.95


def test_withheld_observations_are_as_clustered_as_assimilated_ones() -> None:
    network = ObservationNetwork(P, withheld=P, cluster=0.7)
    index, _, _, withheld = network.draw(4001, 60, generator_of(0))
    assert torch.equal(withheld, (torch.arange(2 * P) >= P).float().expand(4001, 2 * P))
    difference = resultant_length(index[:, :P], 60) - resultant_length(index[:, P:], 60)
    assert standard_errors(difference.double()).abs() < 4.5


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("p", lambda: ObservationNetwork(0)),
        ("network.p", lambda: ObservationNetwork(N + 1).check_grid(N)),
        ("network.p", lambda: ObservationNetwork(N, withheld=1).check_grid(N)),
        ("network.p", lambda: ObservationNetwork(N, void=0.1).check_grid(N)),
        ("p_min", lambda: ObservationNetwork(P, p_min=P + 1)),
        ("p_min", lambda: ObservationNetwork(P, p_min=0)),
        ("void", lambda: ObservationNetwork(P, void=7.0)),
        ("cluster", lambda: ObservationNetwork(P, cluster=1.0)),
        ("withheld", lambda: ObservationNetwork(P, withheld=-1)),
        ("sigma", lambda: ObservationError(0.0)),
        ("sigma", lambda: ObservationError(-0.1)),
        ("sigma_max", lambda: ObservationError(0.3, sigma_max=0.2)),
        ("correlation_length", lambda: ObservationError(0.3, correlation_length=-1.0)),
        ("width", lambda: WindowAverage(4)),
        ("width", lambda: WindowAverage(-1)),
        ("width", lambda: WindowAverage(15)(torch.zeros(1, N).double(), observing(3))),
    ],
)
def test_bad_argument_is_named(argument: str, build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
