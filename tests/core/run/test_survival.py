"""Runs that are stopped, killed, starved of disk or given damaged files: nothing is lost, nothing is executed."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from omegaconf import OmegaConf

import eai
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, DiskFullError, Interrupted, NonFiniteLossError, RunInUseError
from eai.core.files import read_json, write_json
from eai.core.learn.data import Blocks
from eai.core.learn.task import Task
from eai.core.run.checkpoints import AtomicCheckpointIO, LastCheckpoint, check_checkpoint
from tests.core.run.children import start, train_and_die, train_until_stopped, trainer_of
from tests.runs import TINY, Train, assert_equal, assert_same_result, train_in

# Three epochs of four steps, the last one of which is smaller; last.ckpt after every second epoch only.
BLOCKS = (*TINY, "figures.at_end=false", "reporting.checkpoint_every_n_epochs=2")
# An interval in steps that is never reached: every block is a single step, at which a test can stop the run.
SPARSE = (*BLOCKS, "reporting.checkpoint_every_n_steps=1000")
STEPS = 12
OFTEN = (*BLOCKS, "reporting.checkpoint_every_n_steps=2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run that nothing interrupts."""
    return train_in(tmp_path_factory.mktemp("whole") / "run", SPARSE)


def signal_at(monkeypatch: pytest.MonkeyPatch, owner: type, hook: str, step: int, signum: int) -> None:
    original = getattr(owner, hook)

    def with_signal(self: Any, *arguments: Any, **named: Any) -> Any:
        if trainer_of(self, arguments).global_step == step:
            os.kill(os.getpid(), signum)
        return original(self, *arguments, **named)

    monkeypatch.setattr(owner, hook, with_signal)


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


def test_truncated_checkpoint_is_refused_and_the_one_before_it_used_on_request(
    train: Train, whole: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, LastCheckpoint, "on_train_batch_end", 10, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(*SPARSE)
    run = RunDirectory(tmp_path / "run")
    run.last.write_bytes(run.last.read_bytes()[:2000])
    with pytest.raises(ConfigError, match=r"last\.ckpt is truncated.*eai-train resume=.*previous\.ckpt"):
        train(*SPARSE)
    assert check_checkpoint(run.previous)["global_step"] == 8
    assert_same_result(train(f"resume={run.previous}"), whole)


def test_interrupted_write_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "step": 1}, path)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "step": 2}, path)
    assert check_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, timeout=20, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted by this user")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], timeout=20, check=True)


# TensorBoard's own writer thread meets the full disk as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_full_disk_stops_the_run_with_the_reason_and_the_last_good_checkpoint_goes_on(
    small_disk: Path, whole: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = small_disk / "filler"
    original = LastCheckpoint.on_train_batch_end

    def fill(self: LastCheckpoint, trainer: L.Trainer, *rest: Any) -> None:
        if trainer.global_step == 9:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
        original(self, trainer, *rest)

    run = RunDirectory(small_disk / "run")
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_batch_end", fill)
        with pytest.raises(DiskFullError, match=rf"No space left on device.*last good checkpoint is {run.last}"):
            train_in(run.path, SPARSE)
    assert check_checkpoint(run.last)["global_step"] == 8
    status = read_json(run.status)
    assert status["state"] == "FAILED"
    assert "No space left on device" in status["reason"]
    filler.unlink()
    train_in(run.path, SPARSE)
    assert_same_result(run, whole)


def test_first_weights_are_taken_from_another_run_and_nothing_else(train: Train, finished: RunDirectory) -> None:
    source = torch.load(finished.best, weights_only=True)
    for given in (finished.path, finished.best):
        run = train(*TINY, "epochs=1", f"init_from={given}", "model.optimizer.lr=1e-30", run=f"from_{given.name}")
        checkpoint = torch.load(run.last, weights_only=True)
        assert checkpoint["global_step"] == 4
        assert_equal(checkpoint["state_dict"], source["state_dict"])
    with pytest.raises(ConfigError, match=r"init_from|does not fit the model"):
        train(*TINY, "model.net.width=7", f"init_from={finished.path}", run="other")
    with pytest.raises(ConfigError, match=r"no checkpoint .*nowhere\.ckpt"):
        train(*TINY, "init_from=nowhere.ckpt", run="absent")


class Executed:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["resume", "init_from"])
def test_pickle_with_code_in_it_is_refused_and_not_executed(
    name: str, train: Train, finished: RunDirectory, tmp_path: Path
) -> None:
    checkpoint = torch.load(finished.last, weights_only=True)
    torch.save({**checkpoint, "callbacks": Executed(tmp_path / "executed")}, finished.last)
    finished.previous.unlink(missing_ok=True)
    overrides = [f"resume={finished.path}"] if name == "resume" else [*TINY, f"init_from={finished.last}"]
    with pytest.raises(ConfigError, match=r"last\.ckpt is truncated or not a checkpoint of eai"):
        train(*overrides, run="finished" if name == "resume" else "new")
    assert not (tmp_path / "executed").exists()


def test_saved_configuration_that_names_foreign_code_is_refused_and_not_executed(
    train: Train, finished: RunDirectory, tmp_path: Path
) -> None:
    cfg = finished.load_config()
    OmegaConf.update(cfg, "model.net", {"_target_": "os.mkdir", "path": str(tmp_path / "executed")}, merge=False)
    finished.save_config(cfg)
    finished.save_composed(cfg, [])
    for use in (lambda: train(f"resume={finished.path}", run="finished"), lambda: eai.load_run(finished.path)):
        with pytest.raises(ConfigError, match=r"model\.net\._target_: .*os\.mkdir.*refused"):
            use()
    assert not (tmp_path / "executed").exists()


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


def test_second_signal_within_half_a_second_counts_as_the_first_and_a_later_one_stops_at_once() -> None:
    from eai.core.run.signals import StopSignals

    with StopSignals() as stop, stop.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received == signal.SIGINT
        stop._since -= 1
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGTERM)


def test_status_is_replaced_whole_even_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"state": "RUNNING"})

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"state": "FAILED"})
    assert read_json(path) == {"state": "RUNNING"}
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]
