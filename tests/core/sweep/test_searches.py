"""Searches: Optuna's study, shared by processes and commands, survives what happens to its trials."""

from __future__ import annotations

import signal
from pathlib import Path

import optuna
import pytest
import torch
from omegaconf import OmegaConf

from eai.core.directory import RunDirectory
from eai.core.files import read_json
from eai.core.trials import journal_storage
from tests.core.jobs import only, report, run, started, states, until
from tests.core.sweep.small import SOLVER, sweep_of
from tests.runs import curves_of


def study_of(sweep: Path) -> optuna.Study:
    return optuna.load_study(study_name="assimilation", storage=journal_storage(sweep / "study.journal"))


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
        until(lambda: len({t.user_attrs.get("worker") for t in _trials(folder)} - {None}) == 2)
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
