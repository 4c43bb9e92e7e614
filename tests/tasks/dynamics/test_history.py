"""Forecasts from several states, and forcing that is known in advance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.forecast import Unroll, forecast, known, one_step, rollout
from eai.tasks.dynamics.history import FromHistory, newest, recent_mean, with_history
from eai.tasks.dynamics.meshes import knn_points
from eai.tasks.dynamics.nets import InteractionNetwork

B, T, N, C, S, F, H = 3, 6, 7, 2, 1, 2, 3


@pytest.fixture
def batch(generator: torch.Generator) -> Batch:
    u, static = (torch.randn(*size, generator=generator) for size in ((B, T, N, C), (B, N, S)))
    return Batch(u, static, torch.randn(B, T, F, generator=generator), torch.arange(T).float().expand(B, -1))


def driven(u: Tensor, known: Tensor) -> Tensor:
    """A step that the static feature and the forcing move."""
    return 0.5 * u + known[:, :, :1] + known[:, :, 1:2] - 2 * known[:, :, 2:3]


def test_each_step_knows_the_forcing_at_the_time_of_its_state(batch: Batch) -> None:
    u, static, forcing, _ = batch
    drive = static[:, None] + (forcing[:, :, :1] - 2 * forcing[:, :, 1:])[:, :, None]
    single, free = forecast(driven, batch)
    torch.testing.assert_close(single, 0.5 * u[:, :-1] + drive[:, :-1])
    state = u[:, 0]
    for lead in range(T - 1):
        state = 0.5 * state + drive[:, lead]
        torch.testing.assert_close(free[:, lead], state)


def test_windows_of_training_have_the_forcing_of_their_own_times(batch: Batch) -> None:
    for windows in (None, 2):
        found = Unroll(steps=2, windows=windows)(driven, batch, epoch=0, training=True)
        for sample, row in enumerate(found.truth):
            for window, truth in enumerate(row):
                start = int((batch.u[sample, 1:] - truth[0]).abs().flatten(1).amax(1).argmin())
                part = batch.u[sample : sample + 1, start], batch.static[sample : sample + 1]
                expected = rollout(driven, *part, 2, forcing=batch.forcing[sample : sample + 1, start:])
                torch.testing.assert_close(found.predicted[sample, window], expected[0])


def test_without_forcing_the_same_static_features_are_handed_on(batch: Batch) -> None:
    assert known(batch.static, None) is batch.static
    assert known(batch.static, batch.forcing[:, 0, :0]) is batch.static
    still = one_step(lambda u, static: u + static, batch.u, batch.static)
    torch.testing.assert_close(still, batch.u[:, :-1] + batch.static[:, None])


def test_features_are_those_of_static_and_forcing_in_their_order(batch: Batch) -> None:
    mean, std = batch.features()
    torch.testing.assert_close(mean, torch.cat([batch.static.mean((0, 1)), batch.forcing.mean((0, 1))]))
    torch.testing.assert_close(std, torch.cat([batch.static.std((0, 1)), batch.forcing.std((0, 1))]))


def test_history_is_the_states_before_newest_first(batch: Batch) -> None:
    states = with_history(batch.u, H)
    assert states.shape == (B, T - H, N, C * (H + 1))
    for t in range(T - H):
        for back in range(H + 1):
            assert states[:, t, :, C * back : C * (back + 1)].equal(batch.u[:, t + H - back])
    assert newest(states, H).equal(batch.u[:, H:])
    torch.testing.assert_close(recent_mean(states[:, 0], H), batch.u[:, : H + 1].mean(1))
    assert with_history(batch.u, 0).equal(batch.u)


@pytest.fixture
def net(batch: Batch, generator: torch.Generator) -> FromHistory:
    """A net whose last layer is not zero, with scales of the data."""
    graph = knn_points(torch.randn(N, 3, generator=generator).double(), 3)
    inner = InteractionNetwork(graph, layers=1, width=5, static_features=S + F, state_channels=C * (H + 1))
    for weight in inner.decoder.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    net = FromHistory(inner, H)
    net.fit_scales(batch._replace(u=with_history(batch.u, H), forcing=batch.forcing[:, H:], time=batch.time[:, H:]))
    return net


def test_a_field_that_does_not_change_in_time_is_added_to_the_forecast(net: FromHistory, batch: Batch) -> None:
    states, seen = with_history(batch.u, H)[:, 0], known(batch.static, batch.forcing[:, 0])
    warmer = torch.randn(N, C).repeat(1, H + 1)
    torch.testing.assert_close(net(states + warmer, seen), net(states, seen) + warmer, rtol=0, atol=1e-5)
    assert (net(states, seen)[..., :C] - states[..., :C]).abs().max() > 0.1


def test_the_state_after_a_step_remembers_the_state_before(net: FromHistory, batch: Batch) -> None:
    states, seen = with_history(batch.u, H)[:, 0], known(batch.static, batch.forcing[:, 0])
    assert net(states, seen)[..., C:].equal(states[..., :-C])


def test_scales_are_those_of_deviations_from_the_recent_mean(net: FromHistory, batch: Batch) -> None:
    states = with_history(batch.u, H)
    away = newest(states, H) - recent_mean(states, H)
    torch.testing.assert_close(net.net.u_std[:C], away.std((0, 1, 2)))
    assert net.graph is net.net.graph
    assert (net.static_features, net.state_channels) == (S + F, C * (H + 1))


def test_history_that_is_not_the_datas_is_refused(net: FromHistory, batch: Batch) -> None:
    with pytest.raises(ValueError, match="history: expected that of the data, whose states have 7 channels, got 3"):
        net(torch.zeros(B, N, 7), batch.static)
    with pytest.raises(ValueError, match="history: expected at least 1, got 0"):
        FromHistory(net.net, 0)
