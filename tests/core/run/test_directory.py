"""The run directory: whose files it holds, who may write in it, and what it says about itself."""

from __future__ import annotations

import errno
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import eai.core.directory
import eai.core.run.processes
from eai.core.directory import RunDirectory, disk_errors_named
from eai.core.errors import ConfigError
from eai.core.files import read_json, write_json
from eai.core.learn.task import Task
from eai.core.signals import StopSignals
from tests.runs import TINY, Train

QUICK = (*TINY, "figures.at_end=false", "epochs=1")


def test_folder_with_files_of_somebody_else_is_refused_and_left_alone(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".env.production.local", "config.yaml", "metrics.json"):
        (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir: expected a new or empty folder.*\.env\.production\.local"):
        train(*QUICK)
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        (".env.production.local", "config.yaml", "metrics.json"), "mine"
    )


def test_job_that_is_refused_leaves_a_folder_of_somebody_else_alone(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    for _ in range(2):
        with pytest.raises(ConfigError, match=r"expected a new or empty folder.*thesis\.tex"):
            train(*QUICK, "retry_failed=true", in_sweep=True)
    assert [path.name for path in folder.iterdir()] == ["thesis.tex"]


def test_leftovers_are_removed_and_hidden_files_of_the_user_are_not(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    ours = [tmp_path / ".status.json.4242.tmp", run.checkpoints / ".last.ckpt.17.tmp"]
    theirs = [tmp_path / ".my.lab.notes", tmp_path / ".status.json.4242.tmp.bak", run.checkpoints / ".a.b.tmp"]
    for path in (*ours, *theirs):
        path.touch()
    run.remove_leftovers()
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)


@pytest.mark.parametrize("name", [".lock", "status.json"])
def test_links_in_a_run_directory_are_not_followed(name: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).symlink_to(target)
    if name == ".lock":
        with pytest.raises(OSError, match="symbolic links"), run.locked():
            pass
    else:
        with run.tracked():
            pass
    assert target.read_text() == "kept"


def test_typo_or_range_error_leaves_no_directory(train: Train, tmp_path: Path) -> None:
    for wrong in ("+data.sead=1", "data.batch_size=0", "monitor.score=val/nothing", "model.net.width=-1"):
        with pytest.raises(ConfigError):
            train(*QUICK, wrong)
    # Two processes: refused before a worker starts.
    with pytest.raises(ConfigError, match=r"data\.batch_size: expected at least 1"):
        train(*QUICK, "accelerator=ddp_cpu", "data.batch_size=0")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", ["seed=3", "epochs=2", "trainer.limit_val_batches=nonsense"])
def test_refused_resume_changes_nothing(wrong: str, train: Train, finished: RunDirectory) -> None:
    before = {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError):
        train(f"resume={finished.path}", wrong, run="finished")
    assert {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("git", 10)], ids=["absent", "hangs"])
def test_run_needs_no_git(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(eai.core.directory.subprocess, "run", fail)
    run = RunDirectory(tmp_path)
    with run.tracked():
        pass
    assert read_json(run.status)["git_commit"] is None


def test_directory_deleted_while_the_run_works_is_one_line(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()

    def work() -> None:
        with run.tracked(), disk_errors_named(run):
            shutil.rmtree(run.path)
            write_json(run.metrics, {})

    with pytest.raises(ConfigError, match="was deleted or moved"):
        work()


def test_previous_checkpoint_is_kept_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    run.last.write_bytes(b"one")
    run.keep_previous_checkpoint()
    run.last.write_bytes(b"two")
    assert run.previous.read_bytes() == b"one"
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_threads_of_a_job_do_not_outlive_it(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(Task, "on_test_start", _noting(Task.on_test_start, used))
    before = torch.get_num_threads()
    monkeypatch.setattr("eai.core.run.trainer._TORCH_THREADS", 2)
    try:
        train(*QUICK, run="one")
        train(*QUICK, "accelerator.threads=null", run="free")
    finally:
        torch.set_num_threads(before)
    assert used == [1, 2]


def _noting(original: object, used: list[int]) -> object:
    def noted(self: Task) -> None:
        used.append(torch.get_num_threads())
        original(self)  # type: ignore[operator]

    return noted


def test_resume_with_another_number_of_processes_is_refused_untouched(train: Train, finished: RunDirectory) -> None:
    checkpoint = torch.load(finished.last, weights_only=True)
    checkpoint["ranks"] *= 2
    torch.save(checkpoint, finished.last)
    before = finished.status.read_bytes()
    with pytest.raises(ConfigError, match="accelerator: expected 2 processes, as before, got 1"):
        train(f"resume={finished.path}", "epochs=5", run="finished")
    assert finished.status.read_bytes() == before


def test_processes_that_were_started_have_to_be_those_that_were_asked_for(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eai.core.run.run.processes", lambda: 2)
    with pytest.raises(ConfigError, match=r"accelerator: expected devices × num_nodes = 2, .* got 1"):
        train(*QUICK)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer"), True),
        (FileNotFoundError("/home/igloo/images: no such directory"), False),
        (RuntimeError("/home/igloo/data is damaged"), False),
    ],
)
def test_only_a_broken_connection_counts_as_a_lost_process(error: Exception, lost: bool) -> None:
    assert eai.core.run.processes._lost_peer(error) is lost


def test_processes_that_do_not_stop_in_time_are_waited_for_no_longer() -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        stop = StopSignals()
        stop.received = signal.SIGTERM
        started = time.monotonic()
        eai.core.run.processes._wait(process, 0.3, stop)
        assert process.poll() is None
        assert 0.3 <= time.monotonic() - started < 10
        process.kill()


def test_terminal_has_one_bar_with_scores_and_the_log_has_the_lines(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    screen, terminal = pty.openpty()
    command = [sys.executable, "-m", "eai.train", *QUICK, "epochs=3", f"hydra.run.dir={tmp_path / 'run'}"]
    environment = clean_environment | {"COLUMNS": "160", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=terminal, stderr=terminal, cwd=tmp_path, env=environment) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                chunk = os.read(screen, 65536)
            except OSError:  # the other end is closed
                break
            shown += chunk
        assert process.wait(timeout=60) == 0
    os.close(screen)
    bar = [line for line in shown.decode().splitlines() if "steps/s" in line][-1]
    assert "3/3" in bar
    assert "train/loss" in bar
    assert "val/j_ratio" in bar
    assert "best" in bar
    assert "v_num" not in shown.decode()
    assert "epoch 3/3  " not in shown.decode()
    log = (tmp_path / "run" / "train.log").read_text()
    assert "epoch 3/3  train/loss" in log
    assert "\x1b" not in log


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("eai.tasks.assimilation.cost.VariationalCost", "eai.variational.cost.VariationalCost"),
        ("eai.variational.observations.ShareNetwork", "eai.variational.networks.ShareNetwork"),
        ("eai.variational.observations.ObservationError", "eai.variational.observation_error.ObservationError"),
        ("eai.tasks.assimilation.covariance.PowerLawCovariance", "eai.variational.power_law.PowerLawCovariance"),
        ("eai.variational.covariance.SOARCovariance", "eai.variational.covariance.SOARCovariance"),
    ],
)
def test_runs_of_before_find_the_classes_that_moved(old: str, new: str, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.config.write_text(f"node: {{_target_: {old}}}\n")
    assert run.load_config().node._target_ == new
