"""Sweeps from the command line: names, skipped and continued jobs, failures, processes, parallel jobs."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from eai.core.directory import RunDirectory
from eai.core.errors import Interrupted
from eai.core.files import read_json, write_json
from eai.core.run.run import train
from tests.core.jobs import only, processes_in, report, run, started, states, until
from tests.core.sweep.small import QUICK, sweep_of
from tests.runs import TINY, composed


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_same_sweep_again_skips_completed_jobs_continues_others_and_retries_failures_on_request(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = ("-m", *QUICK, "model.optimizer.lr=1e-3,1e30", "seed=0,1", "data.batch_size=8")
    # Not even a terminal that cannot print the leaderboard hides a failure.
    assert run("train", *command, cwd=tmp_path, env=clean_environment | {"PYTHONIOENCODING": "ascii"}) == 1
    sweep = sweep_of(tmp_path)
    first = states(sweep)
    names = [name.rsplit("_", 1)[0] for name in first]
    assert names == ["lr-0.001_seed-0", "lr-0.001_seed-1", "lr-1e+30_seed-0", "lr-1e+30_seed-1"]
    assert list(first.values()) == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]
    output = (tmp_path / "output.txt").read_text()
    assert output.count("FAILED outputs") == 2
    assert "train/loss became" in output
    assert "2 of 4 jobs COMPLETED" in output
    assert (sweep / "summary.csv").is_file()
    assert (sweep / "summary.png").is_file()

    done, cut, failed, _ = (sweep / name for name in first)
    before = {job: (job / "status.json").stat().st_mtime_ns for job in (done, failed)}
    # As if the second job had been cut off: its checkpoint is there, its end is not.
    status = read_json(cut / "status.json")
    (cut / "status.json").write_text((cut / "status.json").read_text().replace("COMPLETED", "RUNNING"))
    (cut / "metrics.json").unlink()
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 1
    assert {job: (job / "status.json").stat().st_mtime_ns for job in before} == before
    assert read_json(cut / "status.json")["monitored"] == status["monitored"]
    assert (cut / "metrics.json").is_file()

    assert run("train", *command, "retry_failed=true", cwd=tmp_path, env=clean_environment) == 1
    assert sweep_of(tmp_path) == sweep
    assert (failed / "status.json").stat().st_mtime_ns != before[failed]
    assert (done / "status.json").stat().st_mtime_ns == before[done]


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_rank_that_is_killed_fails_its_job_only_in_a_sweep_of_mixed_device_counts(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    small = [override for override in QUICK if not override.startswith("epochs")]
    command = ("-m", *small, "accelerator=ddp_cpu", "accelerator.devices=2,1", "epochs=100000,2")
    sweep = tmp_path / "outputs" / "sweeps"
    with started("train", *command, cwd=tmp_path, env=clean_environment) as process:
        # Jobs: (2 devices, long), (2, short), (1, long), (1, short); the long ones are not to reach their end.
        until(lambda: any(sweep.glob("*/devices-2_epochs-100000*/checkpoints/last.ckpt")))
        job = only(sweep.glob("*/devices-2_epochs-100000*"))
        os.kill(int(str(report(job, 1)["pid"])), signal.SIGKILL)
        until(lambda: any(sweep.glob("*/devices-1_epochs-100000*/checkpoints/last.ckpt")), seconds=200)
        only(sweep.glob("*/devices-2_epochs-2_*/metrics.json"))
        status = read_json(job / "status.json")
        assert status["state"] == "FAILED"
        assert status["reason"].startswith("rank 1: ended without a word")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=15) == 130
    assert processes_in(job) == []
    assert sorted(states(job.parent).values()) == ["COMPLETED", "FAILED", "PREEMPTED"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_signal_to_a_parallel_sweep_reaches_all_its_jobs_and_the_same_command_completes_them(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = ("-m", *QUICK, "seed=range(3)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "epochs=400")
    folder = tmp_path / "outputs" / "sweeps"
    with started("train", *command, cwd=tmp_path, env=clean_environment) as process:
        until(lambda: len(list(folder.glob("*/seed-*/checkpoints/last.ckpt"))) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 143
        until(lambda: processes_in(tmp_path) == [], seconds=15)
    sweep = sweep_of(tmp_path)
    assert list(states(sweep).values()) == ["PREEMPTED", "PREEMPTED"]
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 0
    assert list(states(sweep).values()) == ["COMPLETED"] * 3
    threads = [OmegaConf.load(job / "config.yaml").accelerator.threads for job in sweep.glob("seed-*")]
    assert threads == [1, 1, 1]


def test_second_sweep_in_the_same_directory_is_refused(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    with RunDirectory(tmp_path / "sweep").locked():
        command = ("-m", *QUICK, "seed=0,1", f"hydra.sweep.dir={tmp_path / 'sweep'}")
        assert run("train", *command, cwd=tmp_path, env=clean_environment) == 1
    output = (tmp_path / "output.txt").read_text()
    assert output.startswith(f"error: hydra.sweep.dir: {tmp_path / 'sweep'} is in use by process")
    assert "stopped" not in output


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["+x=1,2"], "error: x: unknown key (known here: accelerator, "),
        (["resume=outputs/a,outputs/b"], "error: resume: expected a single run, got -m"),
        (["seed=0,1", "resume=outputs/a"], "error: resume: expected a single run, got -m"),
        (
            ["seed=3,4", "model/assimilation=increment_mlp,nope"],
            "error: the job seed=3 model/assimilation=nope: In 'task/assimilation': Could not find",
        ),
        (["sweep=assimilation", "hydra/sweeper/sampler=grid"], "error: hydra/sweeper/sampler=grid: expected another"),
    ],
)
def test_sweep_in_which_every_job_would_fail_is_refused_before_anything_is_made(
    overrides: list[str], expected: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    assert run("train", "-m", "task=assimilation", *overrides, cwd=tmp_path, env=clean_environment) == 1
    output = (tmp_path / "output.txt").read_text()
    assert output.startswith(expected)
    assert output.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["output.txt"]


def test_job_waits_for_a_run_that_a_killed_sweep_left_and_takes_its_result(finished: RunDirectory) -> None:
    released = []

    state = finished.state()
    write_json(finished.status, state | {"state": "RUNNING"})

    def hold() -> None:
        with finished.locked():
            held.set()
            time.sleep(0.3)
            write_json(finished.status, state)
            released.append(True)

    held = threading.Event()
    orphan = threading.Thread(target=hold)
    orphan.start()
    held.wait()
    (score,) = train(composed("train", TINY), finished.path, in_sweep=True).objectives
    assert released
    assert score == finished.state()["monitored"]["value"]
    orphan.join()


@pytest.mark.timeout(60)
def test_job_that_waits_can_be_stopped(finished: RunDirectory, caplog: pytest.LogCaptureFixture) -> None:
    write_json(finished.status, finished.state() | {"state": "RUNNING"})

    def stop_while_it_waits() -> None:
        until(lambda: "waiting for its end" in caplog.text)
        os.kill(os.getpid(), signal.SIGTERM)

    stop = threading.Thread(target=stop_while_it_waits)
    stop.start()
    with finished.locked(), pytest.raises(Interrupted):
        train(composed("train", TINY), finished.path, in_sweep=True)
    stop.join()
