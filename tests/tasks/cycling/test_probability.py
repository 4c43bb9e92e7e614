"""The CRPS against its integral, and in the scores of the methods that issue a distribution."""

from __future__ import annotations

import math

import pytest
import torch

from eai.tasks.cycling.ensemble import EnsembleTransform
from eai.tasks.cycling.forecast import Exact
from eai.tasks.cycling.kalman import kalman
from eai.tasks.cycling.probability import crps, crps_normal
from eai.tasks.cycling.references import climate
from eai.tasks.cycling.scores import final_scores, per_cycle
from eai.variational.networks import RegularNetwork
from tests.tasks.cycling.cases import N, cycles

STEP = 1e-3
AXIS = torch.arange(-8, 8, STEP, dtype=torch.float64)


def integral(below: torch.Tensor, truth: float) -> float:
    """∫ (F − 1{x ≥ y})² dx by the rectangle rule, F on the axis."""
    return (STEP * (below - (truth <= AXIS).double()).square().sum()).item()


def test_crps_of_an_ensemble_is_its_integral(generator: torch.Generator) -> None:
    x = torch.randn(3, 5, 7, generator=generator, dtype=torch.float64)
    y = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    for b in range(3):
        each = [
            integral((x[b, :, i, None] <= AXIS).double().mean(0), y[b, i].item()) for i in range(7)
        ]  # fmt: skip
        # The rule is off by at most a step for each of the six jumps.
        assert crps(x, y)[b].item() == pytest.approx(sum(each) / 7, abs=6 * STEP)


def test_crps_of_one_member_is_the_absolute_error_and_no_member_is_preferred(generator: torch.Generator) -> None:
    x, y = torch.randn(3, 5, 7, generator=generator), torch.randn(3, 7, generator=generator)
    torch.testing.assert_close(crps(x[:, :1], y), (x[:, 0] - y).abs().double().mean(1))
    assert torch.equal(crps(x.flip(1), y), crps(x, y))
    torch.testing.assert_close(crps(3 * x, 3 * y), 3 * crps(x, y))
    torch.testing.assert_close(crps(x.repeat(1, 4, 1), y), crps(x, y))  # the same distribution


def test_crps_of_a_normal_distribution_is_its_integral_and_least_for_the_distribution_that_truth_has(
    generator: torch.Generator,
) -> None:
    mean, std, y = torch.tensor([[0.3]]).double(), torch.tensor([[1.7]]).double(), torch.tensor([[-0.4]])
    below = (1 + torch.erf((AXIS - 0.3) / 1.7 / math.sqrt(2))) / 2
    assert crps_normal(mean, std, y).item() == pytest.approx(integral(below, -0.4), abs=2 * STEP)
    truth = mean + std * torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    scores = {by: crps_normal(mean.expand(20_000, 1), by * std, truth).mean().item() for by in (0.7, 1.0, 1.4)}
    assert min(scores, key=lambda by: scores[by]) == 1.0
    # E CRPS = σ/√π; the standard error is 1.7 · 0.4/√20,000 = 0.005.
    assert scores[1.0] == pytest.approx(1.7 / math.sqrt(math.pi), abs=0.015)


@pytest.mark.parametrize("steady", [False, True])
def test_filters_that_know_their_error_have_the_crps_of_a_consistent_distribution(steady: bool) -> None:
    data = cycles(network=RegularNetwork(N, 2), n_test=40, steps_test=60)
    batch = data.batch("test")
    exact = kalman(data, batch, 0, steady=steady)
    # Of a normal error that is as large as the filter says, the CRPS is σ/√π. The grid has equal spreads but for every
    # second point; 40 × 30 independent-ish fields make the standard error 2 %.
    expected = exact.spread[:, 30:].mean() / math.sqrt(math.pi)
    assert exact.crps[:, 30:].mean().item() == pytest.approx(expected.item(), rel=0.06)
    ensemble = EnsembleTransform(data, Exact(data.system), climate(data), 60).run(batch, 0)
    for estimate in (exact, ensemble):
        scored = per_cycle(data.operator, batch, estimate, 30, 1.0)
        error = (estimate.analysis - batch.truth[:, :60])[:, 30:].abs().mean()
        value = scored["crps_analysis"]
        assert torch.is_tensor(value)
        torch.testing.assert_close(value, estimate.crps[:, 30:].mean(1))
        assert 0.5 < value.mean() / error < 0.9  # of a consistent normal distribution 1/√2
        means = {name: one.double().mean().item() for name, one in scored.items() if torch.is_tensor(one)}
        assert final_scores(means)["crps_analysis"] == pytest.approx(value.mean().item(), rel=1e-6)


def test_members_are_those_after_inflation() -> None:
    data = cycles(network=RegularNetwork(N, 2), steps_test=12)
    batch, states = data.batch("test"), climate(data)
    least, more = (EnsembleTransform(data, Exact(data.system), states, 9, inflation) for inflation in (1.0, 1.3))
    (_, mean, few), (_, same, wide) = (next(iter(one.cycle(batch))) for one in (least, more))
    assert torch.equal(mean, same)
    # In its beginning a cycle is inflated by 1.1 at least.
    torch.testing.assert_close((wide - mean[:, None]) / 1.3, (few - mean[:, None]) / 1.1)
    torch.testing.assert_close(wide.var(1).mean(1).sqrt(), more.run(batch, 0).spread[:, 0])
