"""Observation operators, their tangents and adjoints."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

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
    generator_of,
    normal,
    random_batch,
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
    return Batch(state, zeros, torch.tensor([index]), zeros[..., None] + fraction, ones, ones, zeros, state, ones)


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
    zeros = fraction[..., 0]
    batch = Batch(state, zeros, index, fraction, zeros + 1, zeros + 1, zeros, state, zeros + 1)
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


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("width", lambda: WindowAverage(4)),
        ("width", lambda: WindowAverage(-1)),
        ("width", lambda: WindowAverage(15)(torch.zeros(1, N).double(), observing(3))),
    ],
)
def test_bad_argument_is_named(argument: str, build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
