"""One-step and free forecasts, their scores, and which nets can work on which data. B=3, T=5, n=13."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from matplotlib.animation import FuncAnimation

from eai.core.errors import ConfigError
from eai.core.figures import render
from eai.core.scores import SampleMeans
from eai.tasks.dynamics.baselines import persistence
from eai.tasks.dynamics.data import Batch, SingleWave
from eai.tasks.dynamics.forecast import Forecast, OneStepMSE, forecast, nrmse, one_step, rollout
from eai.tasks.dynamics.graphs import ring
from eai.tasks.dynamics.nets import GCN
from eai.tasks.dynamics.task import Dynamics

B, T, N, C = 3, 5, 13, 2


@pytest.fixture
def batch(generator: torch.Generator) -> Batch:
    return Batch(torch.randn(B, T, N, 1, generator=generator))


def make_task(nx: int = N, hops: int = 2, layers: int = 2) -> Dynamics:
    torch.manual_seed(0)
    net = GCN(ring(nx, hops), width=7, layers=layers)
    return Dynamics(net, OneStepMSE(), partial(torch.optim.Adam, lr=1e-3))


def final_scores(task: Dynamics, batches: list[Batch]) -> dict[str, float]:
    means = SampleMeans()
    for batch in batches:
        means.update(task.scores(batch, task.predict(batch)))
    return task.summarise(means.compute())


def test_one_step_and_rollout_equal_loops_over_samples_and_times(generator: torch.Generator) -> None:
    u = torch.randn(B, T, N, C, generator=generator)
    matrix = torch.randn(N, N, generator=generator) / 4

    def step(state: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ij,bjc->bic", matrix, state)

    single, free = one_step(step, u), rollout(step, u[:, 0], T - 1)
    for b in range(B):
        state = u[b, 0]
        for t in range(T - 1):
            state = matrix @ state
            torch.testing.assert_close(single[b, t], matrix @ u[b, t])
            torch.testing.assert_close(free[b, t], state)


def test_nrmse_of_persistence_equals_the_explicit_formula(batch: Batch) -> None:
    got = nrmse(forecast(persistence, batch).rollout, batch.u[:, 1:])
    for b in range(B):
        for lead in range(1, T):
            error = sum((batch.u[b, 0, i, 0].item() - batch.u[b, lead, i, 0].item()) ** 2 for i in range(N)) / N
            power = sum(batch.u[b, lead, i, 0].item() ** 2 for i in range(N)) / N
            assert got[b, lead - 1].item() == pytest.approx(math.sqrt(error / power), rel=1e-5)


def test_persistence_of_the_wave_has_nrmse_of_twice_the_sine_of_half_the_phase() -> None:
    batch = SingleWave(nx=N, nt=9, speed=0.6).batch("test")
    got = nrmse(forecast(persistence, batch).rollout, batch.u[:, 1:])[0]
    expected = 2 * torch.sin(0.3 * torch.arange(1, 9)).abs()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_loss_is_the_mean_square_of_the_pairs_and_equals_the_score(batch: Batch) -> None:
    task = make_task()
    with torch.no_grad():
        predicted = task(batch)
        terms = task.loss(predicted, batch)
        scores = task.scores(batch, task.predict(batch))
    for b in range(B):
        squares = [
            (task.net(batch.u[b : b + 1, t])[0] - batch.u[b, t + 1]).square().mean().item() for t in range(T - 1)
        ]
        assert terms["mse"][b].item() == pytest.approx(sum(squares) / (T - 1), rel=1e-5)
    assert torch.equal(terms["mse"], scores["mse"])


def test_exact_baseline_has_no_error_and_persistence_no_skill() -> None:
    data, task = SingleWave(nx=N), make_task()
    batch = data.batch("test")
    scores = {}
    for name, method in task.baselines(data).items():
        means = SampleMeans()
        means.update(task.scores(batch, method(batch)))
        scores[name] = task.summarise(means.compute())
    assert set(scores) == {"persistence", "upwind", "exact"}
    assert scores["exact"]["mse"] < 1e-12
    assert scores["exact"]["nrmse/lead_14"] < 1e-5
    assert scores["exact"]["skill_persistence"] == pytest.approx(1)
    assert scores["persistence"]["skill_persistence"] == 0
    assert scores["upwind"]["mse"] < scores["persistence"]["mse"]
    keys = {"mse", "mse_rollout", "skill_persistence", *(f"nrmse/lead_{lead:02d}" for lead in range(1, 15))}
    assert all(set(of_method) == keys for of_method in scores.values())


def test_scores_do_not_depend_on_the_batch_size(batch: Batch) -> None:
    task = make_task()
    whole = final_scores(task, [batch])
    for sizes in ([1, 1, 1], [2, 1]):
        assert final_scores(task, [Batch(part) for part in batch.u.split(sizes)]) == pytest.approx(whole, rel=1e-6)


def test_net_that_cannot_reach_the_signal_is_refused_with_both_numbers() -> None:
    data = SingleWave(nx=25)  # 2.39 cells per step
    make_task(nx=25, hops=3, layers=1).check_data(data)
    with pytest.raises(ConfigError, match=r"^model\.net\.graph: .* at least 3 cells .* 2\.39; got a reach of 2 \(2 l"):
        make_task(nx=25, hops=1, layers=2).check_data(data)


def test_net_for_another_grid_is_refused_with_both_sizes() -> None:
    with pytest.raises(ConfigError, match=r"^model\.net\.graph\.nx: expected data\.nx = 25, got 13"):
        make_task(nx=N).check_data(SingleWave(nx=25))


def test_every_figure_can_be_drawn_also_of_the_shortest_period() -> None:
    data, task = SingleWave(nx=N, nt=8, split="time"), make_task()
    batch = data.batch("test")
    estimate = task.predict(batch)
    assert estimate.one_step.shape == (1, 1, N, 1)
    drawings = {**task.figures(batch, estimate), **task.closing_figures(data, batch, estimate)}
    for name, drawing in drawings.items():
        image = render(drawing)
        if isinstance(drawing, FuncAnimation):
            assert name == "rollout"
            assert image.startswith(b"GIF8")
            continue
        for axes in drawing.axes:
            assert axes.get_xlabel() or axes.get_ylabel() or axes.get_title(), name


def test_rollout_of_the_estimate_starts_from_the_first_state_alone(batch: Batch) -> None:
    task = make_task()
    changed = Batch(torch.cat([batch.u[:, :1], batch.u[:, 1:] + 1], dim=1))
    before, after = task.predict(batch), task.predict(changed)
    assert isinstance(before, Forecast)
    assert torch.equal(before.rollout, after.rollout)
    torch.testing.assert_close(before.one_step[:, 0], before.rollout[:, 0], rtol=0, atol=1e-6)
