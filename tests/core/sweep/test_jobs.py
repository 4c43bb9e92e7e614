"""Jobs of a sweep: which they are, which exit code follows from them, which of them a signal reaches."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eai.core.errors import ConfigError
from eai.core.files import write_json
from eai.core.sweep import hooks
from eai.core.sweep.hooks import Sweep, judged
from eai.core.sweep.jobs import Jobs


def config_of(folder: Path, **runtime: Any) -> DictConfig:
    return OmegaConf.create(
        {
            "hydra": {
                "mode": RunMode.MULTIRUN,
                "runtime": {"cwd": str(folder.parent), **runtime},
                "sweep": {"dir": folder.name},
            }
        }
    )


@pytest.fixture
def jobs(tmp_path: Path) -> Jobs:
    (tmp_path / "sweep").mkdir()
    return Jobs(config_of(tmp_path / "sweep"))


def add(jobs: Jobs, name: str, **status: Any) -> Path:
    run = jobs.folder / name
    run.mkdir(parents=True)
    jobs.add(str(run))
    if status:
        write_json(run / "status.json", status)
    return run


@pytest.fixture
def sweep(jobs: Jobs, monkeypatch: pytest.MonkeyPatch) -> Jobs:
    """A sweep that this process runs."""
    monkeypatch.setattr(hooks, "_sweeps", [jobs])
    return jobs


def status_of(code: object = None) -> object:
    """The exit status of an application that ends with ``code``."""
    try:
        with judged():
            if code is not None:
                raise SystemExit(code)
    except SystemExit as end:
        return end.code
    return 0


def test_completed_sweep_with_nested_jobs_exits_0(sweep: Jobs) -> None:
    for name in ("deep/0", "deep/1", "lr-1e+30"):
        add(sweep, name, state="COMPLETED")
    assert list(sweep.states()) == ["deep/0", "deep/1", "lr-1e+30"]
    assert status_of() == 0
    sweep.clear()
    assert sweep.states() == {}


@pytest.mark.parametrize("state", ["FAILED", "PREEMPTED", "RUNNING", None])
def test_job_that_did_not_complete_makes_the_sweep_exit_1(
    sweep: Jobs, state: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    add(sweep, "good", state="COMPLETED")
    add(sweep, "bad", **({"state": state, "reason": "a reason"} if state else {}))
    assert status_of() == 1
    told = capsys.readouterr().err
    assert f"{state or 'NOT STARTED'} {sweep.folder / 'bad'}" in told
    assert "1 of 2 jobs COMPLETED" in told


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff\xfe", b"{"])
def test_unreadable_status_makes_the_sweep_exit_1(
    sweep: Jobs, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    add(sweep, "good", state="COMPLETED")
    (add(sweep, "bad") / "status.json").write_bytes(content)
    assert status_of() == 1
    assert f"UNREADABLE {sweep.folder / 'bad'}: cannot read" in capsys.readouterr().err


def test_printing_does_not_decide(sweep: Jobs, monkeypatch: pytest.MonkeyPatch) -> None:
    add(sweep, "good", state="COMPLETED")
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    monkeypatch.setattr(sys, "stderr", ascii_only)
    assert status_of() == 0
    add(sweep, "bad", state="FAILED", reason="σ ± 1")
    assert status_of() == 1
    ascii_only.seek(0)
    assert "? ? 1" in ascii_only.read()
    ascii_only.close()
    assert status_of() == 1


def test_sweep_without_a_job_exits_1_and_a_plain_run_is_left_alone(
    sweep: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert status_of() == 1
    monkeypatch.setattr(hooks, "_sweeps", [])
    assert [status_of(), status_of(1), status_of(143)] == [0, 1, 143]


def test_only_a_sweep_that_was_stopped_says_how_to_go_on(sweep: Jobs, capsys: pytest.CaptureFixture[str]) -> None:
    add(sweep, "cut", state="PREEMPTED")
    assert status_of(143) == 143
    assert "stopped; the same command continues" in capsys.readouterr().err
    assert status_of(1) == 1
    assert "stopped" not in capsys.readouterr().err
    with pytest.raises(SystemExit) as end, judged():
        raise KeyboardInterrupt
    assert end.value.code == 130


def test_sweep_whose_launcher_gives_up_says_what_became_of_its_jobs(
    sweep: Jobs, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(sweep, "done", state="COMPLETED")
    add(sweep, "killed", state="RUNNING")
    with pytest.raises(SystemExit) as end, judged():
        raise RuntimeError("a worker process was killed")
    assert end.value.code == 1
    assert "error: the sweep ends early: RuntimeError: a worker process was killed" in caplog.text
    assert "1 of 2 jobs COMPLETED" in "".join(capsys.readouterr())
    monkeypatch.setattr(hooks, "_sweeps", [])
    with pytest.raises(RuntimeError), judged():
        raise RuntimeError("no sweep")


def test_hook_that_matters_exits_where_hydra_would_go_on_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(tmp_path / "sweep", output_dir=str(tmp_path / "sweep" / "job"))
    with pytest.raises(SystemExit) as end:
        Sweep().on_job_start(config)
    assert end.value.code == 1
    assert "hydra.sweep.dir: expected one directory for all jobs" in capsys.readouterr().err

    def full(jobs: Jobs, run_dir: str) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Jobs, "add", full)
    write_json(tmp_path / "sweep.json", {})
    with pytest.raises(SystemExit):
        Sweep().on_job_start(config_of(tmp_path, output_dir=str(tmp_path / "job")))
    assert "error: no space left on device" in capsys.readouterr().err


def test_job_is_recorded_from_whatever_directory_it_runs_in(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (jobs.folder / "sweep.json").write_text("{}")
    monkeypatch.chdir(jobs.folder)  # as hydra.job.chdir does
    Sweep().on_job_start(config_of(jobs.folder, output_dir=str(jobs.folder / "deep" / "0")))
    assert list(jobs.states()) == ["deep/0"]


def test_job_in_the_sweeps_own_directory_is_refused(jobs: Jobs) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.subdir: expected a directory for each job"):
        jobs.add(str(jobs.folder))


def wait() -> None:
    time.sleep(60)


def test_signal_reaches_own_jobs_and_no_stranger_who_has_the_pid_of_an_old_one(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = multiprocessing.get_context("fork").Process(target=wait)
    child.start()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        try:
            add(jobs, "own", state="RUNNING", pid=child.pid)
            add(jobs, "stale", state="RUNNING", pid=stranger.pid)
            add(jobs, "gone", state="RUNNING", pid=2**22 + 1)
            add(jobs, "done", state="COMPLETED", pid=os.getpid())
            with pytest.raises(SystemExit) as end:
                jobs.stop(signal.SIGTERM)
            assert end.value.code == 143
            assert child.exitcode == -signal.SIGTERM
            assert stranger.poll() is None
        finally:
            child.kill()
            stranger.kill()
