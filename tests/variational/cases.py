"""Small assimilation problems, on sizes that no transposed axis survives (B=3, n=13, p=5), and dense references."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from eai.variational.batch import Batch
from eai.variational.cost import SlidesCost, VariationalCost
from eai.variational.covariance import (
    DiagonalCovariance,
    GaspariCohnCovariance,
    GaussianCovariance,
    SlidesCovariance,
    SOARCovariance,
)
from eai.variational.covariance_base import Covariance
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, LinearOperator, ObservationOperator, PointValue, WindowAverage
from eai.variational.power_law import PowerLawCovariance

B, N, P = 3, 13, 5

COVARIANCES: dict[str, Covariance] = {
    "Gaussian": GaussianCovariance(N, variance=0.7, length=0.9, nugget=0.01),
    "SOAR": SOARCovariance(N, variance=0.7, length=0.6),
    "GaspariCohn": GaspariCohnCovariance(N, variance=0.7, support=1.7),
    "PowerLaw": PowerLawCovariance(N, variance=0.7, k0=1.5, slope=3.0),
    "Diagonal": DiagonalCovariance(N, variance=0.7),
    "Slides": SlidesCovariance(N, variance=0.7, length=0.9, nugget=0.01),
}
OPERATORS: dict[str, LinearOperator] = {
    "PointValue": PointValue(),
    "Interpolation": Interpolation(),
    "WindowAverage": WindowAverage(3),
}
ERRORS: dict[str, ObservationError] = {
    "uniform": ObservationError(0.3),
    "per_observation": ObservationError(0.2, sigma_max=0.6),
    "correlated": ObservationError(0.2, sigma_max=0.6, correlation_length=0.7),
}


class Case(NamedTuple):
    cost: VariationalCost
    batch: Batch


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=generator)


def double(batch: Batch) -> Batch:
    return Batch(*(field.double() if field.is_floating_point() else field for field in batch))


def single(batch: Batch) -> Batch:
    return Batch(*(field.float() if field.is_floating_point() else field for field in batch))


def random_batch(
    operator: ObservationOperator, error: ObservationError, seed: int = 7, count: int = B, n: int = N, p: int = P
) -> Batch:
    """States and observations that have nothing to do with each other: enough for identities in x, x_b and y."""
    g = generator_of(seed)
    network = ObservationNetwork(p, on_grid=isinstance(operator, PointValue))
    index, fraction, mask, withheld = network.draw(count, n, g)
    sigma = error.draw_sigma(count, p, g)
    xb, y, xt = normal(g, count, n), normal(g, count, p), normal(g, count, n)
    return double(Batch(xb, y, index, fraction, sigma, mask, withheld, xt, sigma))


def consistent_batch(cost: VariationalCost, network: ObservationNetwork, count: int, seed: int = 11) -> Batch:
    """x_t = x_b + e with e ~ N(0, B), y = H x_t + ε with ε ~ N(0, R), all in float64."""
    g, n = generator_of(seed), cost.covariance.n
    index, fraction, mask, withheld = network.draw(count, n, g)
    sigma = cost.obs_error.draw_sigma(count, network.slots, g)
    xb = normal(g, count, n)
    xt = xb + cost.covariance.sample(count, g)
    batch = double(Batch(xb, torch.zeros(count, network.slots), index, fraction, sigma, mask, withheld, xt, sigma))
    return batch._replace(y=cost.operator(xt, batch) + cost.obs_error.draw(batch, n, g))


CASES = {
    f"{b}-{h}-{r}": Case(VariationalCost(B_, H_, R_), random_batch(H_, R_))
    for (b, B_), (h, H_), (r, R_) in product(COVARIANCES.items(), OPERATORS.items(), ERRORS.items())
}


def rows(batch: Batch, index: list[int]) -> Batch:
    return Batch(*(field[index] for field in batch))


def dense_h(operator: ObservationOperator, batch: Batch, n: int = N) -> Tensor:
    """H of a linear operator, written out entry by entry."""
    h = torch.zeros(*batch.y.shape, n, dtype=torch.float64)
    for b, k in product(range(batch.y.shape[0]), range(batch.y.shape[1])):
        i, f = int(batch.obs_index[b, k]), float(batch.obs_fraction[b, k, 0])
        if isinstance(operator, PointValue):
            h[b, k, i] = 1
        elif isinstance(operator, Interpolation):
            h[b, k, i] += 1 - f
            h[b, k, (i + 1) % n] += f
        elif isinstance(operator, WindowAverage):
            for offset in range(-(operator.width // 2), operator.width // 2 + 1):
                h[b, k, (i + offset) % n] += 1 / operator.width
    return h


def dense_r(error: ObservationError, batch: Batch, n: int = N) -> Tensor:
    """R of observations that all take part, written out entry by entry."""
    count, p = batch.y.shape
    r = torch.zeros(count, p, p, dtype=torch.float64)
    angle = (batch.obs_index + batch.obs_fraction[..., 0]) * (2 * torch.pi / n)
    points = torch.stack([torch.cos(angle), torch.sin(angle)], 2)  # on the unit circle, where chords are distances
    for b, k, m in product(range(count), range(p), range(p)):
        both = batch.obs_sigma[b, k] * batch.obs_sigma[b, m]
        if error.correlation_length:
            r[b, k, m] = both * torch.exp(-(points[b, k] - points[b, m]).norm() / error.correlation_length)
        elif k == m:
            r[b, k, m] = both
    return r


def standard_errors(samples: Tensor) -> Tensor:
    """How many standard errors the mean of ``samples`` over its first axis lies from zero."""
    return samples.mean(0) / (samples.std(0) / len(samples) ** 0.5)


def autograd(cost: VariationalCost | SlidesCost, state: Tensor, batch: Batch) -> Tensor:
    state = state.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cost.total(state, batch).sum(), state)
    return gradient


def assert_relative(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    """The largest error beside the largest entry: an entry may be zero by chance."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


def with_absurd_slots(batch: Batch) -> Batch:
    """Slots of padding in front and a withheld one at the end, all with values that would show."""

    def around(field: Tensor, front: float, end: float) -> Tensor:
        ends = field[:, :2], field[:, :1]
        return torch.cat([torch.full_like(ends[0], front), field, torch.full_like(ends[1], end)], 1)

    return batch._replace(
        y=around(batch.y, 1e30, -1e30),
        obs_index=around(batch.obs_index, N - 1, 0),
        obs_fraction=around(batch.obs_fraction, 0.9, 0.0),
        obs_sigma=around(batch.obs_sigma, 1e-6, 1e-9),
        obs_sigma_true=around(batch.obs_sigma, 1e-6, 1e-9),
        obs_mask=around(batch.obs_mask, 0.0, 0.0),
        obs_withheld=around(batch.obs_withheld, 0.0, 1.0),
    )
