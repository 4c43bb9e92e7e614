"""Sweeps from the command line: names, skipped and continued jobs, failures, processes, Optuna, parallel jobs."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import optuna
import pytest
import torch
from omegaconf import OmegaConf

from eai.core.directory import RunDirectory
from eai.core.errors import Interrupted
from eai.core.files import read_json, write_json
from eai.core.run.run import train
from eai.core.trials import journal_storage
from tests.core.jobs import only, processes_in, report, run, started, states, until
from tests.runs import TINY, composed, curves_of

QUICK = (*TINY, "figures.at_end=false")
SOLVER = (
    "data.n=13", "data.network.p=5", "data.network.withheld=2", "data.n_train=30", "data.n_val=7", "data.n_test=11",
    "data.batch_size=4", "model.net.first_guess.width=9", "epochs=2",
)  # fmt: skip


def study_of(sweep: Path) -> optuna.Study:
    return optuna.load_study(study_name="assimilation", storage=journal_storage(sweep / "study.journal"))


def sweep_of(folder: Path) -> Path:
    return only((folder / "outputs" / "sweeps").iterdir())


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
@pytest.mark.timeout(600)
def test_optuna_gives_all_processes_of_a_job_the_same_parameters_and_goes_on_with_a_study(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = ("-m", "sweep=assimilation", *SOLVER, "model.net.steps=choice(1,2)", "accelerator=ddp_cpu")
    assert run("train", *command, "trials=2", cwd=tmp_path, env=clean_environment) == 0
    sweep = sweep_of(tmp_path)
    assert run("train", *command, "trials=3", cwd=tmp_path, env=clean_environment) == 0
    assert sweep_of(tmp_path) == sweep
    study = study_of(sweep)
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
    command = (
        "-m", "sweep=assimilation", *SOLVER, "model.net.steps=choice(1,2)", "model.optimizer.lr=choice(1e-3,1e30)",
        "hydra/sweeper/sampler=random", "objectives=[score,parameters]",
        "hydra.sweeper.direction=[minimize,minimize]", "trials=4",
    )  # fmt: skip
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 1
    sweep = sweep_of(tmp_path)
    study = study_of(sweep)
    done = {tuple(trial.values) for trial in study.trials if trial.values}
    statuses = {path: read_json(path) for path in sweep.glob("*/status.json")}
    assert len(study.trials) == 4
    bad = [path for path, status in statuses.items() if status["state"] == "FAILED"]
    assert 0 < len(bad) < len(statuses)
    told = {(s["monitored"]["value"], s["parameters"]) for s in statuses.values() if s["state"] == "COMPLETED"}
    assert done == told

    before = {path: path.stat().st_mtime_ns for path in statuses}
    assert run("train", *command, "retry_failed=true", cwd=tmp_path, env=clean_environment) == 1
    assert [path for path in before if path.stat().st_mtime_ns != before[path]] == bad
    assert len(study.get_trials()) == 4 + len(bad)


# The more steps of descent, the lower the score from the first epoch on: which trials are pruned is certain.
PRUNED = (
    "-m", "sweep=assimilation", *SOLVER, "epochs=3", "model.net.steps=choice(1,4)", "hydra/sweeper/sampler=random",
    "pruner=median", "pruner.startup_trials=1", "trials=4", "accelerator.threads=1",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_trials_that_will_not_win_are_pruned_in_all_their_processes_and_can_be_finished_later(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = (*PRUNED, "accelerator=ddp_cpu")
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 0
    sweep = sweep_of(tmp_path)
    pruned = [sweep / name for name, state in states(sweep).items() if state == "PRUNED"]
    assert 1 <= len(pruned) < len(states(sweep))
    told = {trial.number: trial for trial in study_of(sweep).trials}
    assert sorted(trial.state.name for trial in told.values()) == ["COMPLETE"] * (4 - len(pruned)) + ["PRUNED"] * len(
        pruned
    )
    for job in pruned:
        status = read_json(job / "status.json")
        assert status["pruned"] == "by median after epoch 1 of 3"
        assert (status["epochs"], status["processes"]) == (1, 2)
        facts = [report(job, rank)["facts"] for rank in (0, 1)]
        assert facts[0] == facts[1] | {"train_seconds": facts[0]["train_seconds"]}  # type: ignore[index, operator]
        assert not (job / "metrics.json").exists()
        assert len(curves_of(RunDirectory(job))["val/j_ratio"]) == 1
    output = (tmp_path / "output.txt").read_text()
    assert f"{4 - len(pruned)} of 4 jobs COMPLETED, {len(pruned)} PRUNED" in output
    assert "PRUNED" in (sweep / "summary.csv").read_text()

    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/status.json")}
    assert run("train", *command, cwd=tmp_path, env=clean_environment) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert run("train", f"resume={pruned[0]}", cwd=tmp_path, env=clean_environment) == 0
    status = read_json(pruned[0] / "status.json")
    assert (status["state"], status["epochs"]) == ("COMPLETED", 3)
    assert "pruned" not in status
    assert (pruned[0] / "metrics.json").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_commands_work_on_one_study_and_one_takes_over_what_the_other_was_killed_in(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    total, folder = 7, tmp_path / "sweep"
    command = (*PRUNED[:-2], f"trials={total}", "accelerator.threads=1", f"hydra.sweep.dir={folder}", "epochs=40")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        started("train", *command, cwd=tmp_path / "a", env=clean_environment) as one,
        started(
            "train", *command, "hydra/launcher=joblib", "hydra.launcher.n_jobs=1", cwd=tmp_path / "b",
            env=clean_environment,
        ) as other,
    ):  # fmt: skip
        until(lambda: len({t.user_attrs.get("worker") for t in _trials(folder)}) == 2)
        until(lambda: any(folder.glob("*/checkpoints/last.ckpt")))
        one.kill()
        assert other.wait(timeout=400) == 0
    trials = _trials(folder)
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    assert len(ended) == total
    # What the first was killed in has come again, with its parameters, and nothing else failed.
    lost = [trial for trial in trials if trial.state.name == "FAIL"]
    again = {trial.user_attrs["continues"]: trial for trial in trials if "continues" in trial.user_attrs}
    assert {trial.number for trial in lost} == set(again)
    assert all(again[trial.number].params == trial.params for trial in lost)
    assert run("train", *command, cwd=tmp_path / "a", env=clean_environment) == 0
    assert len(_trials(folder)) == len(trials)


def _trials(sweep: Path) -> list[optuna.trial.FrozenTrial]:
    try:
        return study_of(sweep).trials
    except (KeyError, OSError):  # not made yet
        return []


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
