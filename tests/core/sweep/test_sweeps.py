"""Sweeps from the command line: names, skipped and continued jobs, failures, processes, Optuna, parallel jobs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from eai.core.directory import read_json
from eai.core.sweep.names import sweep_name, swept_keys
from tests.core.jobs import only, processes_in, report, run, started, states, until
from tests.runs import TINY

QUICK = (*TINY, "figures.at_end=false")
SOLVER = (
    "data.n=13", "data.network.p=5", "data.network.withheld=2", "data.n_train=30", "data.n_val=7", "data.n_test=11",
    "data.batch_size=4", "model.net.first_guess.width=9", "epochs=2",
)  # fmt: skip


def sweep_of(folder: Path) -> Path:
    return only((folder / "outputs" / "sweeps").iterdir())


def test_swept_keys_are_those_with_several_values_and_what_is_typed_fixes_a_search() -> None:
    params = OmegaConf.create({"model.lr": "tag(log, interval(1e-4, 1e-2))", "model.width": "choice(1,2)"})
    assert swept_keys(["task=dynamics", "seed=0,1", "data.x='a,b'", "+n=range(3)"], None) == ["seed", "n"]
    assert swept_keys(["model.width=3", "seed=1"], params) == ["model.lr"]


def test_same_command_means_the_same_sweep_in_any_order_and_with_more_trials() -> None:
    name = sweep_name(["task=dynamics", "seed=0,1"], ["seed"])
    assert name.startswith("seed_")
    assert sweep_name(["seed=0,1", "task=dynamics", "retry_failed=true", "trials=50"], ["seed"]) == name
    assert sweep_name(["task=dynamics", "seed=0,2"], ["seed"]) != name


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_same_sweep_again_skips_completed_jobs_continues_others_and_retries_failures_on_request(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = ("-m", *QUICK, "model.optimizer.lr=1e-3,1e30", "seed=0,1", "data.batch_size=8")
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 1
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
@pytest.mark.timeout(600)
def test_optuna_gives_all_processes_of_a_job_the_same_parameters_and_goes_on_with_a_study(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    import optuna

    command = ("-m", "sweep=assimilation", *SOLVER, "model.net.steps=choice(1,2)", "accelerator=ddp_cpu")
    assert run("train", *command, "trials=2", cwd=tmp_path, env=clean_environment) == 0
    sweep = sweep_of(tmp_path)
    assert run("train", *command, "trials=3", cwd=tmp_path, env=clean_environment) == 0
    assert sweep_of(tmp_path) == sweep
    study = optuna.load_study(study_name="assimilation", storage=f"sqlite:///{sweep / 'study.db'}")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 3
    values = set()
    for job in (path.parent for path in sweep.glob("*/status.json")):
        status = read_json(job / "status.json")
        assert (status["state"], status["processes"]) == ("COMPLETED", 2)
        # Every rank compared its configuration with the others' at the start, and came to its end.
        assert [report(job, rank)["state"] for rank in (0, 1)] == ["COMPLETED", "COMPLETED"]
        cfg = OmegaConf.load(job / "config.yaml")
        values.add((cfg.model.optimizer.lr, cfg.model.net.steps, status["monitored"]["value"]))
    told = {(t.params["model.optimizer.lr"], t.params["model.net.steps"], t.value) for t in study.trials}
    assert values == told


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_trial_that_was_cut_off_is_continued_in_its_directory(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = ("-m", "sweep=assimilation", *SOLVER, "model.net.steps=1", "epochs=3000", "trials=1")
    with started("train", *command, cwd=tmp_path, env=clean_environment) as process:
        until(lambda: any((tmp_path / "outputs").glob("sweeps/*/*/checkpoints/last.ckpt")))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 143
    job = only((tmp_path / "outputs").glob("sweeps/*/lr-*"))
    step = torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    with started("train", *command, cwd=tmp_path, env=clean_environment) as process:
        until(lambda: read_json(job / "status.json")["state"] == "RUNNING")
        newest = lambda: torch.load(job / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]  # noqa: E731
        until(lambda: newest() > step)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=15) == 143
    assert only((tmp_path / "outputs").glob("sweeps/*/lr-*")) == job


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_failing_trials_are_recorded_and_two_objectives_reach_the_study(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    import optuna

    command = (
        "-m", "sweep=assimilation", *SOLVER, "model.net.steps=choice(1,2)", "model.optimizer.lr=choice(1e-3,1e30)",
        "hydra/sweeper/sampler=grid", "objectives=[score,parameters]",
        "hydra.sweeper.direction=[minimize,minimize]", "trials=4",
    )  # fmt: skip
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 1
    sweep = sweep_of(tmp_path)
    study = optuna.load_study(study_name="assimilation", storage=f"sqlite:///{sweep / 'study.db'}")
    done = {tuple(trial.values) for trial in study.trials if trial.values}
    statuses = [read_json(path) for path in sweep.glob("*/status.json")]
    assert len(study.trials) == 4
    failed = sum(trial.state.name == "FAIL" for trial in study.trials)
    assert failed == sum(status["state"] == "FAILED" for status in statuses) > 0
    assert done == {(s["monitored"]["value"], s["parameters"]) for s in statuses if s["state"] == "COMPLETED"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_signal_to_a_parallel_sweep_reaches_all_its_jobs_and_the_same_command_completes_them(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = ("-m", *QUICK, "seed=range(3)", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "epochs=150")
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
    from eai.core.directory import RunDirectory

    with RunDirectory(tmp_path / "sweep").locked():
        code = run("train", "-m", *QUICK, f"hydra.sweep.dir={tmp_path / 'sweep'}", cwd=tmp_path, env=clean_environment)
    assert code == 1
    assert "is in use by process" in (tmp_path / "output.txt").read_text()
