"""Reference forecasts that are fitted: each is exact where its own model made the data."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eai.tasks.dynamics.data import Batch, unforced
from eai.tasks.dynamics.forecast import forecast
from eai.tasks.dynamics.history import with_history
from eai.tasks.dynamics.statistical import (
    autoregression,
    damping,
    inverse_model,
    linear_trend,
    references,
)

N, C = 7, 2


def trajectory(u: Tensor, first: int = 0) -> Batch:
    """One trajectory (t, n, c) as a batch, from time ``first``."""
    batch = unforced(u[None], u.new_zeros(1, u.shape[1], 0))
    return batch._replace(time=batch.time + first)


def pairs_of(u: Tensor, first: int = 0) -> Batch:
    """All pairs of successive states of a series (t, n, c)."""
    pairs = torch.stack([u[:-1], u[1:]], dim=1)
    batch = unforced(pairs, pairs.new_zeros(len(pairs), u.shape[1], 0))
    return batch._replace(time=batch.time + first + torch.arange(len(pairs))[:, None])


def test_linear_inverse_model_recovers_the_matrix_of_a_linear_system(generator: torch.Generator) -> None:
    size = N * C
    rotation = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    series = [torch.randn(size, generator=generator, dtype=torch.float64)]
    for _ in range(40):
        series.append(0.97 * rotation @ series[-1])
    u = torch.stack(series).view(-1, N, C)
    step = inverse_model(pairs_of(u), torch.rand(N, generator=generator) + 0.5, size)
    other = torch.randn(3, N, C, generator=generator, dtype=torch.float64)
    expected = 0.97 * (other.flatten(1) @ rotation.T).view(3, N, C)
    torch.testing.assert_close(step(other, other), expected, rtol=0, atol=1e-9)


def test_linear_inverse_model_forecasts_nothing_of_what_its_eofs_do_not_hold(generator: torch.Generator) -> None:
    pattern = torch.nn.functional.normalize(torch.randn(2, N, generator=generator, dtype=torch.float64), dim=1)
    other = pattern[1] - (pattern[0] @ pattern[1]) * pattern[0]
    u = (torch.randn(50, 1, generator=generator, dtype=torch.float64) * pattern[0])[..., None]
    step = inverse_model(pairs_of(u), torch.ones(N), 1)
    given = other[None, :, None]
    torch.testing.assert_close(step(given, given), torch.zeros_like(given), rtol=0, atol=1e-12)


def test_damping_is_the_share_that_is_left_of_a_decaying_field_and_never_grows() -> None:
    share = torch.tensor([0.9, 0.5, 0.0, 1.0, 0.3, 0.7, 1.2]).double()[:, None].expand(N, C)
    u = torch.stack([share**t for t in range(9)])
    torch.testing.assert_close(damping(pairs_of(u)), share.clamp(max=1), rtol=0, atol=1e-12)


def test_trend_of_a_field_that_grows_evenly_is_exact_at_later_times(generator: torch.Generator) -> None:
    level, slope = torch.randn(2, N, C, generator=generator)
    u = level + slope * torch.arange(-30.0, 25.0)[:, None, None]
    a, b = linear_trend(pairs_of(u[:31], -30))
    torch.testing.assert_close((a.float(), b.float()), (level, slope), rtol=0, atol=1e-5)
    later = trajectory(u[40:46], 10)
    methods = references(pairs_of(u[:31], -30), trajectory(u[31:36], 1), torch.ones(N))
    for name in ("linear_trend", "persistence_with_trend", "damped_to_trend"):
        for found in methods[name](later):
            torch.testing.assert_close(found, later.u[:, 1:], rtol=0, atol=1e-4)
    assert methods["persistence"](later).rollout[0, 3].equal(later.u[0, 0])
    assert methods["persistence"](later).one_step[0, 3].equal(later.u[0, 3])
    assert methods["climatology"](later).rollout.abs().max() == 0


def test_deviations_from_the_trend_are_damped_by_the_power_of_the_lead(generator: torch.Generator) -> None:
    slope = torch.randn(N, 1, generator=generator)
    time = torch.arange(12.0)
    u = slope * time[:, None, None] + torch.randn(12, N, 1, generator=generator)
    pairs, truth = pairs_of(u[:9]), trajectory(u[9:], 9)
    a, b = linear_trend(pairs)
    on = (a + b * time.double()[:, None, None]).float()
    share = damping(pairs._replace(u=pairs.u - torch.stack([on[:8], on[1:9]], 1)))
    found = references(pairs, truth, torch.ones(N))["damped_to_trend"](truth)
    expected = on[11] + share.float() ** 2 * (u[9] - on[9])
    torch.testing.assert_close(found.rollout[0, 1], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.one_step[0, 1], on[11] + share.float() * (u[10] - on[10]), rtol=0, atol=1e-4)


def test_autoregression_recovers_its_weights_and_keeps_any_mean(generator: torch.Generator) -> None:
    weights = torch.tensor([0.5, 0.2, -0.3], dtype=torch.float64)
    states = list(torch.randn(3, N, C, generator=generator, dtype=torch.float64))
    for _ in range(20):
        recent = torch.stack(states[:-4:-1])
        states.append(recent.mean(0) + torch.einsum("k,knc->nc", weights, recent - recent.mean(0)))
    u = with_history(torch.stack(states)[None], 2)[0]
    step = autoregression(pairs_of(u), 2)
    found = forecast(step, trajectory(u[:5])).rollout
    torch.testing.assert_close(found, u[None, 1:5], rtol=0, atol=1e-6)
    warmer = torch.randn(N, C, generator=generator, dtype=torch.float64).repeat(1, 3)
    torch.testing.assert_close(step(u + warmer, u), step(u, u) + warmer, rtol=0, atol=1e-9)


def test_recent_trend_is_exact_where_all_nodes_grow_alike(generator: torch.Generator) -> None:
    first, slope = torch.randn(N, C, generator=generator), torch.tensor([0.5, -2.0])
    u = first + slope * torch.arange(14.0)[:, None, None]
    states = with_history(u[None], 3)[0]
    batch = trajectory(states[4:9])
    weights = torch.rand(N, generator=generator)
    for found in references(pairs_of(states[:4]), batch, weights / weights.mean(), 3)["recent_trend"](batch):
        torch.testing.assert_close(found[0], u[8:12], rtol=0, atol=1e-4)


@pytest.mark.parametrize("history", [1, 3])
def test_recent_mean_holds_at_all_leads(generator: torch.Generator, history: int) -> None:
    u = torch.randn(20, N, C, generator=generator)
    states = with_history(u[None], history)[0]
    batch = trajectory(states[10:15])
    found = references(pairs_of(states[:10]), batch, torch.ones(N), history)["recent_mean"](batch)
    expected = u[10 : 11 + history].mean(0)
    torch.testing.assert_close(found.rollout, expected.expand(1, 4, N, C), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.one_step[0, 2], u[12 : 13 + history].mean(0), rtol=0, atol=1e-6)
