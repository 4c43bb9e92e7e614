"""Cycles in training: window after window, lost ones, and nothing lost when a run stops; what a run accepts."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest
import torch

import eai
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, Interrupted
from eai.core.files import read_json
from eai.core.run.checkpoints import LastCheckpoint
from eai.tasks.cycling.cycle import Cycled
from eai.tasks.cycling.data import Batch
from tests.core.jobs import run, started, until
from tests.core.run.test_survival import signal_at
from tests.runs import Train, assert_equal, assert_same_result
from tests.tasks.cycling.cases import TINY, cycles, of


def test_training_windows_follow_each_other_and_overlap_by_what_is_ahead() -> None:
    data = cycles(windows=3, window=4, ahead=2, batch_size=5)
    data.setup()
    samples = data.samples["train"].all
    assert samples.y.shape[:2] == (15, 6)
    assert samples.window.tolist() == [0] * 5 + [1] * 5 + [2] * 5
    torch.testing.assert_close(samples.truth[5:10, :2], samples.truth[:5, 4:])
    served = [batch.window.unique().tolist() for block in data.train_dataloader() for batch in block]
    assert served == [[0], [1], [2]]


def test_state_of_the_cycles_is_carried_from_window_to_window() -> None:
    data, task = of()
    samples = data.samples["train"].all
    windows = [Batch(*(field[i : i + 3] for field in samples)) for i in (0, 3)]
    task.train()
    first = task(windows[0])
    second = task(windows[1])
    torch.testing.assert_close(second.background[:, 0], first.last)
    again = task(windows[0])  # a new epoch begins cold
    torch.testing.assert_close(again.background[:, 0], windows[0].start)
    task.eval()
    torch.testing.assert_close(task(windows[1]).background[:, 0], windows[1].start)


def test_lost_cycle_begins_anew_and_no_truth_is_needed_to_see_it() -> None:
    data, task = of()
    samples = data.samples["train"].all
    batch = Batch(*(field[:3] for field in samples))._replace(truth=torch.full_like(samples.truth[:3], torch.nan))
    steps = batch.y.shape[1] - 1
    background = batch.y[:, :steps].clone()  # every point is observed, in order
    background[1] += 40.0
    memory = torch.ones(3, 8, 3)
    made = Cycled(background, background, background[:, :, None], background[:, -1], memory)
    state, kept = task._kept(batch, made)
    torch.testing.assert_close(state[[0, 2]], background[[0, 2], -1])
    torch.testing.assert_close(state[1], batch.start[1])
    assert kept[:, 0, 0].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("step", [2, 7])
def test_run_stopped_within_a_cycle_goes_on_to_the_same_result_bit_for_bit(
    step: int, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (*TINY, "reporting.checkpoint_every_n_steps=1")
    whole = train(*overrides, run="whole")
    with monkeypatch.context() as patch:
        signal_at(patch, LastCheckpoint, "on_train_batch_end", step, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(*overrides)
    resumed = train(*overrides)
    assert_same_result(resumed, whole)
    assert_equal(*(torch.load(run.last, weights_only=True)["cycles"] for run in (whole, resumed)))


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("data.system.dt=0.3", "data.system.interval=0.3"), "data.system.dt: expected a time step at which"),
        (("data.obs_error.sigma=0",), "data.obs_error.sigma: expected above 0"),
        (("data.network.every=3",), "data.network.every: expected a divisor of n = 8"),
        (("data.spin_up=20",), "steps_val: expected at least spin_up + 2"),
        (("loss/cycling=window", "model.loss.steps=4"), "data.ahead: expected at least 4"),
        (("model.forecast=nowhere",), "no such directory"),
    ],
)
def test_what_cannot_work_is_refused_with_its_key(overrides: tuple[str, ...], told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        of(*overrides)


def test_learned_forecast_is_taken_from_a_run_of_dynamics_and_stays_as_it_is(train: Train) -> None:
    grid = ("task=dynamics", "data.nx=16", "data.modes=2", "data.n_train=4", "data.n_val=2", "data.n_test=2")
    short = ("data.nt=3", "data.nt_test=3", "epochs=1", "validate_every_n_epochs=1", "figures.at_end=false")
    forecast = train(*grid, *short, "model/dynamics=stencil", run="forecast")
    learned = (*TINY, "data.n=16", f"model.forecast={forecast.path}")
    run = train(*learned, run="cycling")
    assert read_json(run.metrics)["test/model_error"] > 0.1  # a wave is no Lorenz-96
    before = torch.load(forecast.best, weights_only=True)["state_dict"]
    after = torch.load(run.best, weights_only=True)["state_dict"]
    shared = {name: value for name, value in after.items() if name.startswith("model.module.")}
    assert shared
    for name, value in shared.items():
        torch.testing.assert_close(value, before[name.removeprefix("model.module.")])
    with pytest.raises(ConfigError, match=r"model.forecast: expected a forecast on data.n = 8 points, got 16"):
        of(f"model.forecast={forecast.path}")


def test_number_of_points_can_change_after_training(train: Train) -> None:
    run = train(*TINY)
    loaded = eai.load_run(run.path, ["data.n=16"])
    batch = loaded.data.batch("test")
    assert loaded.module.predict(batch).analysis.shape == (2, 14, 16)


def test_saved_runs_find_classes_that_moved(finished: RunDirectory) -> None:
    for path in (finished.config, finished.path / ".hydra" / "config.yaml"):
        text = path.read_text()
        for file in ("networks", "observation_error"):
            text = text.replace(f"eai.variational.{file}.", "eai.variational.observations.")
        path.write_text(text.replace("eai.variational.", "eai.tasks.assimilation."))
    for cfg in (finished.load_config(), finished.load_composed()):
        assert cfg.model.loss._target_ == "eai.variational.cost.VariationalCost"
        assert cfg.data.network._target_ == "eai.variational.networks.ObservationNetwork"
        assert cfg.data.obs_error._target_ == "eai.variational.observation_error.ObservationError"
        assert cfg.shared.operator._target_.startswith("eai.variational.observations.")
        assert cfg.data._target_ == "eai.tasks.assimilation.data.Twin"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_every_process_goes_on_with_its_own_cycles(
    tmp_path: Path, clean_environment: dict[str, str], train: Train
) -> None:
    two = ("accelerator=ddp_cpu", "epochs=30", "validate_every_n_epochs=15", "reporting.checkpoint_every_n_steps=1")
    whole = train(*TINY, *two, run="whole")
    cut = tmp_path / "cut"
    command = (*TINY, *two, f"hydra.run.dir={cut}")
    with started("train", *command, cwd=tmp_path, env=clean_environment) as process:
        until((cut / "checkpoints" / "last.ckpt").is_file)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    saved = torch.load(cut / "checkpoints" / "last.ckpt", weights_only=True)
    assert 0 < saved["global_step"] < 120
    one, other = (state[0] for state in saved["cycles"])
    assert not torch.equal(one, other)
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 0
    assert RunDirectory(cut).metrics.read_bytes() == whole.metrics.read_bytes()
