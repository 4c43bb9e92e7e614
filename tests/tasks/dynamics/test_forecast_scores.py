"""Forecasts and their scores, training on windows, and which nets can work on which data. B=3, T=7, n=13."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from matplotlib.animation import FuncAnimation

from eai.core.errors import ConfigError
from eai.core.learn.figures import caption, render
from eai.core.learn.scores import SampleMeans
from eai.core.style.wording import in_words
from eai.tasks.dynamics import plots_scores, scores
from eai.tasks.dynamics.advection import Advection2D, Fourier, VariableSpeed
from eai.tasks.dynamics.baselines import climatological_mean, persistence
from eai.tasks.dynamics.burgers import Burgers
from eai.tasks.dynamics.data import Batch, SingleWave, Trajectories, nothing_static
from eai.tasks.dynamics.forecast import Forecast, RolloutMSE, Unroll, forecast, one_step, rollout
from eai.tasks.dynamics.graphs import Graph, grid2d, ring
from eai.tasks.dynamics.nets import GCN, InteractionNetwork, LearnedStencil
from eai.tasks.dynamics.task import Dynamics
from tests.runs import assert_say_what_to_see

B, T, N, C = 3, 7, 13, 2
NOTHING = torch.zeros(B, N, 0)
SMALL = {"n_train": 5, "n_val": 3, "n_test": 4, "nt": 3, "nt_test": 6, "batch_size": 2}


@pytest.fixture
def batch(generator: torch.Generator) -> Batch:
    return nothing_static(torch.randn(B, T, N, 1, generator=generator))


def make_task(graph: Graph, static: int = 0, unroll: Unroll | None = None, layers: int = 2) -> Dynamics:
    torch.manual_seed(0)
    net = InteractionNetwork(graph, layers, 7, static, LearnedStencil(graph, layers, 3, 5, static))
    return Dynamics(net, RolloutMSE(), unroll or Unroll(), partial(torch.optim.Adam, lr=1e-3))


def scored(task: Dynamics, batches: list[Batch]) -> dict[str, float]:
    means = SampleMeans()
    for batch in batches:
        means.update(task.scores(batch, task.predict(batch)))
    return task.summarise(means.compute())


def test_one_step_and_rollout_equal_loops_over_samples_and_times(generator: torch.Generator) -> None:
    u = torch.randn(B, T, N, C, generator=generator)
    static = torch.randn(B, N, 1, generator=generator)
    matrix = torch.randn(N, N, generator=generator) / 4

    def step(state: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        return torch.einsum("ij,bjc->bic", matrix, state) + known

    single, free = one_step(step, u, static), rollout(step, u[:, 0], static, T - 1)
    for b in range(B):
        state = u[b, 0]
        for t in range(T - 1):
            state = matrix @ state + static[b]
            torch.testing.assert_close(single[b, t], matrix @ u[b, t] + static[b])
            torch.testing.assert_close(free[b, t], state)


def test_windows_are_rollouts_from_every_state_that_leaves_k_true_ones_after_it(batch: Batch) -> None:
    def step(u: torch.Tensor, static: torch.Tensor) -> torch.Tensor:
        return 0.5 * u.roll(1, 1)

    output = Unroll(steps=3)(step, batch, epoch=0, training=True)
    assert output.predicted.shape == output.truth.shape == (B, T - 3, 3, N, 1)
    for start in range(T - 3):
        expected = rollout(step, batch.u[:, start], batch.static, 3)
        torch.testing.assert_close(output.predicted[:, start], expected)
        assert torch.equal(output.truth[:, start], batch.u[:, start + 1 : start + 4])


def test_drawn_windows_are_different_ones_of_the_same_trajectory_and_differ_between_calls(batch: Batch) -> None:
    torch.manual_seed(1)
    unroll, whole = Unroll(steps=2, windows=2), Unroll(steps=2)(persistence, batch, 0, training=True).truth
    seen = set()
    for _ in range(20):
        drawn = unroll(persistence, batch, 0, training=True).truth
        assert drawn.shape[1] == 2
        for b in range(B):
            at = [next(w for w in range(T - 2) if torch.equal(whole[b, w], window)) for window in drawn[b]]
            assert at[0] != at[1]
            seen.update(at)
    assert seen == set(range(T - 2))
    assert unroll(persistence, batch, 0, training=False).truth.shape[1] == T - 2


def test_curriculum_adds_a_step_every_few_epochs_up_to_the_last() -> None:
    unroll = Unroll(steps=3, grow_every_n_epochs=4)
    assert [unroll.steps_at(epoch) for epoch in (0, 3, 4, 8, 100)] == [1, 1, 2, 3, 3]
    assert Unroll(steps=3).steps_at(0) == 3


def test_pushforward_cuts_the_gradient_between_the_steps_and_leaves_the_values(batch: Batch) -> None:
    gradients, values = {}, {}
    for pushforward in (False, True):
        factor = torch.tensor(0.7, requires_grad=True)
        output = Unroll(steps=2, pushforward=pushforward)(lambda u, static, a=factor: a * u, batch, 0, training=True)
        values[pushforward] = output.predicted.detach()
        output.predicted[:, :, 1].sum().backward()
        gradients[pushforward] = factor.grad
    assert torch.equal(values[True], values[False])
    # d(a² u)/da = 2 a u, of which the last step alone contributes a u.
    torch.testing.assert_close(gradients[False], 2 * gradients[True])


def test_noise_has_the_stated_standard_deviation_and_is_absent_in_evaluation(generator: torch.Generator) -> None:
    torch.manual_seed(2)
    batch = nothing_static(3 * torch.randn(40, 2, 51, 1, generator=generator))
    unroll = Unroll(noise=0.1)
    added = (unroll(persistence, batch, 0, training=True).predicted - batch.u[:, None, :1]).std() / batch.u[:, 0].std()
    assert added.item() == pytest.approx(0.1, rel=0.05)  # of 2,040 numbers: 1.6 % is one standard error
    assert torch.equal(unroll(persistence, batch, 0, training=False).predicted, batch.u[:, None, :1])


def test_loss_is_the_mean_square_over_windows_and_steps_and_does_not_mix_samples(batch: Batch) -> None:
    output = Unroll(steps=2)(persistence, batch, 0, training=True)
    terms = RolloutMSE()(output, batch)
    for b in range(B):
        squares = [
            (batch.u[b, start] - batch.u[b, start + k]).square().mean().item() for start in range(T - 2) for k in (1, 2)
        ]
        assert terms["mse"][b].item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_nrmse_and_acc_of_persistence_equal_the_explicit_formulas(batch: Batch) -> None:
    free, climatology = forecast(persistence, batch).rollout, torch.tensor(0.2)
    got, correlation = scores.nrmse(free, batch.u[:, 1:]), scores.acc(free, batch.u[:, 1:], climatology)
    for b in range(B):
        first = [value - 0.2 for value in batch.u[b, 0, :, 0].tolist()]
        for lead in range(1, T):
            truth = [value - 0.2 for value in batch.u[b, lead, :, 0].tolist()]
            error = sum((p - t) ** 2 for p, t in zip(first, truth, strict=True))
            power = sum((t + 0.2) ** 2 for t in truth)
            assert got[b, lead - 1].item() == pytest.approx(math.sqrt(error / power), rel=1e-5)
            product = sum(p * t for p, t in zip(first, truth, strict=True))
            norm = math.sqrt(sum(p * p for p in first) * sum(t * t for t in truth))
            assert correlation[b, lead - 1].item() == pytest.approx(product / norm, rel=1e-4, abs=1e-6)


def test_persistence_of_the_wave_has_nrmse_of_twice_the_sine_of_half_the_phase() -> None:
    batch = SingleWave(nx=N, nt=9, speed=0.6).batch("test")
    got = scores.nrmse(forecast(persistence, batch).rollout, batch.u[:, 1:])[0]
    expected = 2 * torch.sin(0.3 * torch.arange(1, 9)).abs()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_useful_lead_time_ends_at_the_first_fall_below_point_six() -> None:
    correlation = torch.tensor([[0.9, 0.7, 0.59, 0.9], [0.1, 0.9, 0.9, 0.9], [0.9, 0.8, 0.7, 0.6]])
    assert scores.useful_lead_time(correlation).tolist() == [2, 0, 4]


def test_mode_errors_are_those_that_were_put_in() -> None:
    x = 2 * math.pi / N * torch.arange(N, dtype=torch.float64)
    truth = torch.sin(x) + 0.5 * torch.cos(2 * x)
    predicted = 0.9 * torch.sin(x - 0.3) + 0.5 * 1.2 * torch.cos(2 * x + 0.1) + torch.sin(4 * x)
    errors = scores.mode_errors(predicted[None, :, None], truth[None, :, None], (N,), 3)
    assert errors["amplitude_error/mode_01"][0].item() == pytest.approx(0.1)
    assert errors["phase_error/mode_01"][0].item() == pytest.approx(0.3)
    assert errors["amplitude_error/mode_02"][0].item() == pytest.approx(0.2)
    assert errors["phase_error/mode_02"][0].item() == pytest.approx(0.1)
    assert errors["phase_error/mode_03"][1].item() == 0  # the truth has nothing there


def test_mode_errors_weigh_a_sample_by_its_variance_in_the_mode() -> None:
    x = 2 * math.pi / N * torch.arange(N, dtype=torch.float64)
    truth = torch.stack([3 * torch.sin(2 * x), torch.sin(2 * x)])[:, :, None]
    predicted = truth * torch.tensor([1.1, 1.4])[:, None, None]
    means = SampleMeans()
    means.update(scores.mode_errors(predicted, truth, (N,), 2))
    # Variances of 9 and 1; no sample has anything in mode 1.
    assert means.compute()["amplitude_error/mode_02"] == pytest.approx((9 * 0.1 + 0.4) / 10, rel=1e-6)
    assert "amplitude_error/mode_01" not in means.compute()


@pytest.mark.parametrize("shape", [(N,), (5, 7)])
def test_spectrum_sums_to_the_mean_square(shape: tuple[int, ...], generator: torch.Generator) -> None:
    u = torch.randn(B, math.prod(shape), C, generator=generator)
    power = scores.power_by_wavenumber(u, shape).sum(1)
    torch.testing.assert_close(power, u.square().mean(1).sum(1))


def test_mass_drift_is_the_difference_of_the_means_over_the_rms(batch: Batch) -> None:
    truth = batch.u[:, 1:]
    drift = scores.mass_drift(truth + 0.25, truth)
    torch.testing.assert_close(drift, 0.25 / truth[:, -1].square().mean((1, 2)).sqrt())


def test_a_rollout_that_leaves_all_bounds_is_scored_by_a_finite_number() -> None:
    batch = SingleWave(nx=N).batch("test")
    task = make_task(ring(N, 2))
    lost = forecast(lambda u, static: 1e20 * u * u, batch)
    means = SampleMeans()
    means.update(task.scores(batch, lost))
    values = task.summarise(means.compute())
    assert values["nrmse/lead_14"] == scores.LOST
    assert all(math.isfinite(value) for value in values.values())


DATA = [
    (SingleWave(nx=N), ring(N, 2), 0),
    (Fourier(nx=N, **SMALL), ring(N, 2), 0),
    (VariableSpeed(nx=N, modes=3, **SMALL), ring(N, 2), 1),
    (Burgers(nx=N, **SMALL), ring(N, 2), 0),
    (Advection2D(ny=7, nx=9, modes=2, **SMALL), grid2d(7, 9, 1), 0),
]


@pytest.mark.parametrize(("data", "graph", "static"), DATA, ids=lambda value: type(value).__name__)
def test_references_are_scored_in_the_same_keys_and_the_solution_has_no_error(
    data: Trajectories, graph: Graph, static: int
) -> None:
    task = make_task(graph, static)
    task.check_data(data)
    task.prepare(data)
    batch, by_method = data.batch("test"), {}
    for name, method in {"network": task.predict, **task.baselines(data)}.items():
        means = SampleMeans()
        means.update(task.scores(batch, method(batch)))
        by_method[name] = task.summarise(means.compute())
    classical = {"upwind", "lax_wendroff", "semi_lagrangian_linear", "semi_lagrangian_cubic"}
    assert classical | {"persistence", "climatology", "network", "reference"} < set(by_method)
    assert all(values.keys() == by_method["network"].keys() for values in by_method.values())
    solution, last = by_method["reference"], batch.u.shape[1] - 1
    assert solution[f"nrmse/lead_{last:02d}"] < 1e-6  # states are stored in single precision
    assert solution[f"acc/lead_{last:02d}"] == pytest.approx(1)
    assert solution["useful_lead_time"] == last
    assert by_method["persistence"]["skill_persistence"] == 0
    assert by_method["climatology"][f"acc/lead_{last:02d}"] == 0


def test_scores_do_not_depend_on_the_batch_size(batch: Batch) -> None:
    task = make_task(ring(N, 2))
    whole = scored(task, [batch])
    for sizes in ([1, 1, 1], [2, 1]):
        parts = [nothing_static(part) for part in batch.u.split(sizes)]
        assert scored(task, parts) == pytest.approx(whole, rel=1e-5, abs=1e-7)


def test_scores_are_given_at_the_leads_that_are_asked_for(batch: Batch) -> None:
    torch.manual_seed(0)
    net = GCN(ring(N, 2), width=5, layers=1)
    task = Dynamics(net, RolloutMSE(), Unroll(), partial(torch.optim.Adam, lr=1e-3), leads=[1, 4, 99])
    assert [key for key in scored(task, [batch]) if key.startswith("nrmse/")] == ["nrmse/lead_01", "nrmse/lead_04"]


def test_net_that_cannot_reach_the_signal_is_refused_with_both_numbers() -> None:
    data = SingleWave(nx=25)  # 2.39 cells per step
    make_task(ring(25, 3), layers=1).check_data(data)
    with pytest.raises(ConfigError, match=r"^model\.net\.graph: .* at least 3 cells .* 2\.39; got a reach of 2 \(2 l"):
        make_task(ring(25, 1)).check_data(data)
    with pytest.raises(ConfigError, match=r"at least 2 cells per step along axis 1.* 1\.30; got a reach of 1"):
        make_task(grid2d(7, 9, 1), layers=1).check_data(Advection2D(ny=7, nx=9, modes=2, **SMALL))


def test_net_that_does_not_fit_the_data_is_refused_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"^model\.net\.graph: expected the grid of data, \(25,\), got \(13,\)"):
        make_task(ring(N, 2)).check_data(SingleWave(nx=25))
    with pytest.raises(ConfigError, match=r"^model\.unroll\.steps: expected at most 2, .* got 3"):
        make_task(ring(N, 2), unroll=Unroll(steps=3)).check_data(Fourier(nx=N, **SMALL))
    with pytest.raises(ConfigError, match=r"^model\.net\.static_features: expected 1, .* got 0"):
        make_task(ring(N, 2)).check_data(VariableSpeed(nx=N, modes=3, **SMALL))


@pytest.mark.parametrize(("data", "graph", "static"), DATA, ids=lambda value: type(value).__name__)
def test_every_figure_can_be_drawn(data: Trajectories, graph: Graph, static: int) -> None:
    task = make_task(graph, static)
    task.prepare(data)
    batch = data.batch("test", 2)
    estimate = task.predict(batch)
    drawings = {**task.figures(batch, estimate), **task.closing_figures(data, batch, estimate)}
    assert {"maps" if len(data.shape) == 2 else "one_step", "nrmse", "spectra", "rollout"} < set(drawings)
    assert_say_what_to_see({name: caption(drawing) for name, drawing in drawings.items()})
    for name, drawing in drawings.items():
        if isinstance(drawing, FuncAnimation):
            assert name == "rollout"
            assert len(list(drawing.new_frame_seq())) == batch.u.shape[1]
            assert render(drawing).startswith(b"GIF8")
            continue
        assert render(drawing).startswith(b"\x89PNG")
        for axes in drawing.axes:
            assert axes.get_xlabel() or axes.get_ylabel() or axes.get_title(), name


def test_climatology_is_the_mean_of_the_training_states(generator: torch.Generator) -> None:
    u = torch.randn(B, T, N, C, generator=generator) + 3
    assert climatological_mean(nothing_static(u)).item() == pytest.approx(u.double().mean().item(), rel=1e-6)


def test_skill_is_the_share_of_the_mean_square_error_of_persistence_that_is_gone() -> None:
    means = {"mse": 0.09, "mse_persistence": 0.36, "mse_lead/03": 0.02, "mse_lead_persistence/03": 0.16, "nrmse": 0.5}
    assert make_task(ring(N, 2)).summarise(means) == pytest.approx(
        {"mse": 0.09, "nrmse": 0.5, "skill_persistence": 0.75, "skill_persistence/lead_03": 0.875}
    )


def test_comparison_draws_the_strongest_of_many_methods_whatever_their_names() -> None:
    data = SingleWave(nx=N)
    batch = data.batch("test")
    truth = batch.u[:, 1:]
    wrong = {f"scheme {i}": Forecast(truth, truth * (1 + 0.1 * i)) for i in range(1, 31)}
    always = {name: Forecast(truth, truth) for name in ("network", "persistence", "reference")}
    figure = plots_scores.of_methods(data, batch, wrong | always)["nrmse"]
    (legend,) = figure.legends
    shown = [text.get_text().partition(":")[0] for text in legend.get_texts()]
    assert sorted(shown) == sorted([*map(in_words, always), *(f"scheme {i}" for i in range(1, 7))])
    styles = {
        (line.get_color(), line.get_linestyle()) for line in figure.axes[0].get_lines() if len(line.get_xdata()) > 2
    }
    assert len(styles) == 9


def test_rollout_of_the_estimate_starts_from_the_first_state_alone(batch: Batch) -> None:
    task = make_task(ring(N, 2))
    changed = nothing_static(torch.cat([batch.u[:, :1], batch.u[:, 1:] + 1], dim=1))
    before, after = task.predict(batch), task.predict(changed)
    assert torch.equal(before.rollout, after.rollout)
    torch.testing.assert_close(before.one_step[:, 0], before.rollout[:, 0], rtol=0, atol=1e-6)


def test_rollout_longer_than_the_trajectories_that_validate_is_refused_by_name() -> None:
    data = Fourier(nx=13, **{**SMALL, "nt": 4, "nt_test": 3})
    task = make_task(ring(13, 3), unroll=Unroll(steps=3))
    with pytest.raises(ConfigError, match=r"^model.unroll.steps: expected at most 2.*validation.*got 3"):
        task.check_data(data)


def test_leads_that_no_trajectory_reaches_are_refused_by_name() -> None:
    task = make_task(ring(13, 3))
    task.leads = [6, 9]
    with pytest.raises(ConfigError, match=r"^model.leads: expected one of 1 to 5.*got \[6, 9\]"):
        task.check_data(Fourier(nx=13, **SMALL))
