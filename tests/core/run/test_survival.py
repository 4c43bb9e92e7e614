"""Runs that are stopped or killed: nothing is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, Interrupted, NonFiniteLossError, RunInUseError
from eai.core.files import read_json, write_json
from eai.core.learn.data import Blocks
from eai.core.learn.task import Task
from eai.core.run.board import Board
from eai.core.run.callbacks import KeepSignals
from eai.core.run.checkpoints import LastCheckpoint
from eai.core.run.finished import evaluate
from eai.core.run.processes import reported
from eai.core.signals import StopSignals
from tests.core.run.children import start, train_and_die, train_until_stopped
from tests.core.run.stops import BLOCKS, OFTEN, SPARSE, STEPS, signal_at
from tests.runs import Train, assert_same_result, composed, train_in


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_same_command_continues_a_run_stopped_at_any_step_to_the_same_result_bit_for_bit(
    step: int, whole: RunDirectory, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, LastCheckpoint, "on_train_batch_end", step, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(*SPARSE)
    assert_same_result(train(*SPARSE), whole)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_stopped_run_is_preempted_with_the_signals_exit_code(
    signum: int, code: int, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal_at(monkeypatch, LastCheckpoint, "on_train_batch_end", 6, signum)
    with pytest.raises(Interrupted) as stop:
        train(*SPARSE)
    status = read_json(tmp_path / "run" / "status.json")
    assert (status["state"], status["exit_code"], stop.value.exit_code) == ("PREEMPTED", code, code)
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 6


@pytest.mark.parametrize("step", [4, 8, 12])
def test_stop_during_validation_waits_for_its_end_and_loses_nothing(
    step: int, whole: RunDirectory, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, Task, "on_validation_epoch_end", step, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(*SPARSE)
    assert_same_result(train(*SPARSE), whole)


def test_stop_while_scoring_leaves_the_training_finished(
    whole: RunDirectory, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Task, *_: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "on_test_epoch_end", stop)
        with pytest.raises(Interrupted):
            train(*SPARSE)
    assert_same_result(train(*SPARSE), whole)


@pytest.mark.parametrize("step", [3, 9, 11])
def test_killed_run_loses_at_most_what_came_after_its_last_checkpoint(
    step: int, whole: RunDirectory, tmp_path: Path
) -> None:
    process = start(train_and_die, tmp_path / "run", (*BLOCKS, "reporting.checkpoint_every_n_steps=3"), step)
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    run = RunDirectory(tmp_path / "run")
    assert read_json(run.status)["state"] == "RUNNING"
    if step > 3:
        assert step - torch.load(run.last, weights_only=True)["global_step"] <= 3
    assert_same_result(train_in(run.path, (*BLOCKS, "reporting.checkpoint_every_n_steps=3")), whole)


@pytest.fixture(scope="module")
def seconds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """What a process takes for a run that nothing interrupts."""
    took = 0.0
    for name in ("first", "second"):  # the first waits for the server that the others are forked from
        started = time.monotonic()
        process = start(train_until_stopped, tmp_path_factory.mktemp("timed") / name, OFTEN)
        process.join(timeout=120)
        assert process.exitcode == 0
        took = time.monotonic() - started
    return took


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("repeat", range(12))
def test_kills_and_signals_at_random_moments_change_nothing(
    repeat: int, seconds: float, whole: RunDirectory, tmp_path: Path
) -> None:
    chance = random.Random(repeat)
    run = RunDirectory(tmp_path / "run")
    for signum in (chance.choice([signal.SIGKILL, signal.SIGTERM]) for _ in range(3)):
        process = start(train_until_stopped, run.path, OFTEN)
        process.join(timeout=chance.uniform(0.2, 1) * seconds)
        if process.is_alive():
            os.kill(process.pid, signum)
        process.join(timeout=60)
        assert process.exitcode in (0, -signal.SIGKILL, -signal.SIGTERM, 143)
    assert_same_result(train_in(run.path, OFTEN), whole)


def test_intervals_in_steps_and_in_minutes_are_kept(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    save = LastCheckpoint._save

    def noted(self: LastCheckpoint, trainer: L.Trainer) -> None:
        saved.append(trainer.global_step)
        save(self, trainer)

    monkeypatch.setattr(LastCheckpoint, "_save", noted)
    train(*BLOCKS, "reporting.checkpoint_every_n_steps=3", run="steps")
    # 8 and 12 end an epoch: the second is a multiple of the interval in epochs, the last is the end.
    assert saved == [3, 6, 8, 9, 12]
    saved.clear()
    train(*SPARSE, "reporting.checkpoint_every_n_minutes=1e-9", run="minutes")
    assert saved == list(range(1, STEPS + 1))


@pytest.mark.parametrize("signals", [1, 2, 5])
def test_run_stopped_within_a_block_saves_at_its_end_and_continues_bit_for_bit(
    signals: int, whole: RunDirectory, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Blocks, "LARGEST", 3)
    original, batches = Task.forward_loss, []

    def with_signal(self: Task, batch: Any) -> Any:
        batches.append(batch)
        if len(batches) == signals:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Task, "forward_loss", with_signal)
        with pytest.raises(Interrupted):
            train(*BLOCKS)
    assert len(batches) < STEPS
    assert_same_result(train(*BLOCKS), whole)


def test_two_runs_cannot_share_a_directory(train: Train, finished: RunDirectory) -> None:
    with (
        finished.locked(),
        pytest.raises(RunInUseError, match=rf"hydra\.run\.dir: {finished.path} is in use by process {os.getpid()}"),
    ):
        train(f"resume={finished.path}", run="finished")
    assert read_json(finished.status)["state"] == "COMPLETED"


def test_directory_is_kept_from_another_configuration_and_left_alone_when_completed(train: Train) -> None:
    run = train(*SPARSE)
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"}
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir: .* another configuration: seed is 0 there, 1 here"):
        train(*SPARSE, "seed=1")
    train(*SPARSE)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*") if path.name != ".lock"} == before


def test_failed_run_is_continued_by_the_same_command_where_it_was(
    train: Train, whole: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: LastCheckpoint, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == 10:
            raise NonFiniteLossError("a cosmic ray")

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_batch_start", fail)
        with pytest.raises(NonFiniteLossError):
            train(*SPARSE)
    assert_same_result(train(*SPARSE), whole)


def test_signal_before_the_first_step_stops_the_run_as_any_other(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, Board, "on_train_start", 0, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(*SPARSE, "optimization.accumulate=2")
    assert read_json(tmp_path / "run" / "status.json")["exit_code"] == 143


@pytest.mark.parametrize("hook", ["on_fit_end", "on_validation_start"])
def test_signal_at_the_end_of_training_stops_the_run_before_it_is_scored(
    hook: str, train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, KeepSignals, hook, STEPS, signal.SIGUSR1)
        with pytest.raises(Interrupted):
            train(*SPARSE)
    assert read_json(tmp_path / "run" / "status.json")["state"] == "PREEMPTED"
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_evaluation_is_stopped_by_sigterm(whole: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signal_at(monkeypatch, Task, "on_test_epoch_start", 0, signal.SIGTERM)
    with pytest.raises(Interrupted):
        evaluate(composed("evaluate", [f"run={whole.path}", f"output={tmp_path / 'scores'}"]))
    assert read_json(tmp_path / "scores" / "status.json")["state"] == "PREEMPTED"


def test_signal_that_came_too_late_is_obeyed_after_the_run_and_the_first_one_says_why() -> None:
    def warned_then_stopped() -> None:
        with StopSignals() as stop, stop.deferred():
            signal.raise_signal(signal.SIGUSR1)
            stop._since -= 1
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted), StopSignals() as stop, stop.deferred():
        signal.raise_signal(signal.SIGTERM)
    with pytest.raises(Interrupted) as told:
        warned_then_stopped()
    assert told.value.signum == signal.SIGUSR1


def test_signal_waits_while_the_end_of_a_run_or_of_a_rank_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_and_stop(path: Path, content: dict[str, Any]) -> None:
        if content["state"] == "FAILED":
            os.kill(os.getpid(), signal.SIGTERM)
        write_json(path, content)

    monkeypatch.setattr("eai.core.directory.write_json", write_and_stop)
    run = RunDirectory(tmp_path)
    with pytest.raises(Interrupted), StopSignals(), run.tracked():
        raise NonFiniteLossError("a cosmic ray")
    assert read_json(run.status)["reason"] == "NonFiniteLossError: a cosmic ray"
    with pytest.raises(Interrupted), StopSignals(), reported(run, 0):
        raise RuntimeError("Connection closed by peer")
    (report,) = run.rank_reports()
    assert (report["state"], report["lost_peer"]) == ("FAILED", True)


def test_second_signal_within_half_a_second_counts_as_the_first_and_a_later_one_stops_at_once() -> None:
    stop = StopSignals()
    with suppress(Interrupted), stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGINT
        stop._since -= 1
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)
