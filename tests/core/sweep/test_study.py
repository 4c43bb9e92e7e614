"""Searches by Optuna: what is refused before the first trial, and which trials a study makes again."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import OmegaConf

from eai.core.errors import ConfigError
from eai.core.files import write_json
from eai.core.schema import Pruner
from eai.core.sweep.hooks import _warn_of_crowding
from eai.core.sweep.names import sweep_name
from eai.core.sweep.space import search_space
from eai.core.sweep.study import Study, check_search, parallel_jobs
from eai.core.trials import VARIABLE, Trial, journal_storage
from tests.core.sweep.conftest import Composed

optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["hydra.sweeper.direction=maximize"], "hydra.sweeper.direction: expected minimize for score, got maximize"),
        (["monitor.mode=max"], "hydra.sweeper.direction: expected maximize for score, got minimize"),
        (["objectives=[score,seconds]"], "objectives: expected one for each of hydra.sweeper.direction"),
        (["hydra/sweeper/sampler=grid"], "hydra/sweeper/sampler=grid: expected another sampler"),
        (
            ["hydra/sweeper/sampler=nsgaii", "hydra.sweeper.sampler.population_size=0"],
            "hydra.sweeper.sampler (nsgaii): ",
        ),
        (["hydra.sweeper.storage=sqlite:///study.db"], "hydra.sweeper.storage: expected the name of a file in"),
        (["hydra.sweeper.params=null"], "hydra.sweeper.params: expected something to search"),
    ],
)
def test_search_that_cannot_work_is_refused_in_one_line(
    overrides: list[str], expected: str, composed: Composed
) -> None:
    with pytest.raises(ConfigError) as error:
        check_search(composed("sweep=assimilation", *overrides))
    assert str(error.value).startswith(expected)


def test_sampler_that_lacks_its_package_is_refused(composed: Composed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eai.core.sweep.study.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="hydra/sweeper/sampler=cmaes: needs the package cmaes"):
        check_search(composed("sweep=assimilation", "hydra/sweeper/sampler=cmaes"))


def test_presets_and_plain_sweeps_pass(composed: Composed) -> None:
    check_search(composed("sweep=recovery_size"))
    check_search(composed("task=dynamics"))


SPACE = {"x": optuna.distributions.FloatDistribution(0, 1)}


def study_in(folder: Path, total: int = 5, **top: Any) -> Study:
    sweeper = {
        "storage": "study.journal", "study_name": "s", "params": {"x": "interval(0,1)"}, "direction": "minimize",
        "sampler": {"_target_": "optuna.samplers.RandomSampler", "seed": 3},
    }  # fmt: skip
    hydra = {
        "overrides": {"task": []}, "sweeper": sweeper, "sweep": {"dir": str(folder)},
        "runtime": {"cwd": str(folder), "choices": {}},
    }  # fmt: skip
    config = OmegaConf.create({"retry_failed": False, "trials": total, "objectives": ["score"], **top, "hydra": hydra})
    write_json(folder / "sweep.json", {"name": sweep_name(config)})
    return Study(config)


def make(study: Study, value: float = 2.0) -> list[float]:
    """Make the trials that are left, one at a time; their parameters."""
    done = []
    with study.workers.joined() as worker:
        while trials := study.claim(SPACE, 1, worker):
            done.append(trials[0].params["x"])
            study.tell(trials[0], False, (value,))
    return done


def trials_of(folder: Path) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name="s", storage=journal_storage(folder / "study.journal")).trials


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a study with trials of every state: 0 and 1 failed alike, 2 complete, 3 and 4 cut off."""
    study = optuna.create_study(study_name="s", storage=journal_storage(tmp_path / "study.journal"))
    for number, x in enumerate((0.25, 0.25, 0.5, 0.75, 1.0)):
        study.enqueue_trial({"x": x})
        trial = study.ask(SPACE)
        if number < 2:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        elif number == 2:
            study.tell(trial, 1.0)
    return tmp_path


def test_trials_that_were_cut_off_come_again_with_their_parameters(folder: Path) -> None:
    study_in(folder).queue_again()
    assert make(study_in(folder)) == [0.75, 1.0]
    study_in(folder).queue_again()
    assert make(study_in(folder)) == []


def test_retry_failed_makes_failed_trials_again_once_each(folder: Path) -> None:
    study_in(folder, retry_failed=True).queue_again()
    assert make(study_in(folder)) == [0.25, 0.75, 1.0]
    study_in(folder, retry_failed=True).queue_again()
    assert make(study_in(folder)) == []


def test_queueing_twice_makes_no_trial_twice(folder: Path) -> None:
    study_in(folder, retry_failed=True).queue_again()
    study_in(folder, retry_failed=True).queue_again()
    assert make(study_in(folder)) == [0.25, 0.75, 1.0]


def test_directory_with_the_study_of_another_search_is_refused(folder: Path) -> None:
    study = study_in(folder)
    write_json(folder / "sweep.json", {"name": "another"})
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir: .* holds another search"):
        study.queue_again()


def test_new_study_has_nothing_to_queue_and_as_many_trials_as_it_should(tmp_path: Path) -> None:
    study = study_in(tmp_path, 7)
    study.queue_again()
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.json"]
    assert len(make(study)) == 7
    assert len(make(study_in(tmp_path, 9))) == 2


def test_study_that_goes_on_draws_what_it_would_have_drawn_at_once(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = make(study_in(tmp_path / "whole", 6))
    assert len(set(whole)) == 6
    assert make(study_in(tmp_path / "parts", 2)) + make(study_in(tmp_path / "parts", 6)) == whole


def test_trials_that_others_work_on_count_and_those_of_the_dead_are_taken_over(tmp_path: Path) -> None:
    one, other = study_in(tmp_path, 3), study_in(tmp_path, 3)
    with one.workers.joined() as alive:
        with other.workers.joined() as mortal:
            first, second = one.claim(SPACE, 1, alive)[0], other.claim(SPACE, 1, mortal)[0]
            assert len(one.claim(SPACE, 5, alive)) == 1
            assert one.claim(SPACE, 5, alive) == []
        # The other's lock is gone, and its trial comes again.
        again = one.claim(SPACE, 5, alive)
        assert [trial.params for trial in again] == [second.params]
        other.tell(second, False, (0.5,))  # too late
        one.tell(again[0], False, (0.25,))
        one.tell(first, False, (0.125,))
    states = {trial.number: (trial.state.name, trial.value) for trial in trials_of(tmp_path)}
    assert states[0] == ("COMPLETE", 0.125)
    assert states[1] == ("FAIL", None)
    assert states[3] == ("COMPLETE", 0.25)


@pytest.mark.parametrize("values", [None, (math.nan,)])
def test_job_without_a_number_fails_its_trial_and_counts(values: tuple[float, ...] | None, tmp_path: Path) -> None:
    study = study_in(tmp_path, 1)
    with study.workers.joined() as worker:
        study.tell(study.claim(SPACE, 1, worker)[0], False, values)
        assert study.claim(SPACE, 1, worker) == []
    assert trials_of(tmp_path)[0].state.name == "FAIL"
    assert study.best() == {"name": "optuna"}


# Pruning.


def journal_of(folder: Path) -> str:
    return str(folder / "study.journal")


def test_trial_reports_what_is_new_and_is_pruned_by_the_median_of_the_others(tmp_path: Path) -> None:
    study, settings = study_in(tmp_path, 9), Pruner("median", grace_epochs=2, startup_trials=2)
    with study.workers.joined() as worker:
        for score in (1.0, 2.0, 3.0):
            trial = study.claim(SPACE, 1, worker)[0]
            place = Trial(trial.number, "s", journal_of(tmp_path))
            for epoch in (1, 2, 3):
                told = [(done, score) for done in range(1, epoch + 1)]
                # The median of the two before is 1.5; nothing ends before two epochs, nor before two trials are whole.
                assert place.report(told, settings, 3) == (score == 3.0 and epoch >= 2)
            study.tell(trial, score == 3.0, (score,))
    trials = trials_of(tmp_path)
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert trials[2].intermediate_values == {1: 3.0, 2: 3.0, 3: 3.0}
    assert trials[2].value == 3.0
    assert study.best()["best_value"] == 1.0


@pytest.mark.parametrize("name", ["median", "asha", "hyperband"])
def test_every_pruner_keeps_the_best_and_stops_the_worst_of_twelve(name: str, tmp_path: Path) -> None:
    study, settings = study_in(tmp_path, 12), Pruner(name, grace_epochs=1, startup_trials=3)  # type: ignore[arg-type]
    ended = {}
    with study.workers.joined() as worker:
        for score in (5.0, 1.0, 4.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0):
            trial = study.claim(SPACE, 1, worker)[0]
            place, epoch = Trial(trial.number, "s", journal_of(tmp_path)), 1
            while not place.report([(epoch, score / epoch)], settings, 9) and epoch < 9:
                epoch += 1
            ended[score] = epoch
            study.tell(trial, epoch < 9, (score,))
    assert ended[1.0] == 9
    assert sum(ended[score] < 9 for score in (10.0, 11.0, 12.0, 13.0, 14.0)) >= 2


def test_pruned_when_maximising_is_what_is_low(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="s", direction="maximize", storage=journal_storage(journal_of(tmp_path)))
    settings = Pruner("median", startup_trials=1)
    for number, (score, pruned) in enumerate([(2.0, False), (3.0, False), (1.0, True)]):
        trial = study.ask(SPACE)
        assert Trial(number, "s", journal_of(tmp_path)).report([(1, score)], settings, 5) == pruned
        study.tell(trial, score)


def test_trial_that_was_taken_for_dead_goes_on_unobserved(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="s", storage=journal_storage(journal_of(tmp_path)))
    study.tell(study.ask(SPACE), state=optuna.trial.TrialState.FAIL)
    assert Trial(0, "s", journal_of(tmp_path)).report([(1, 1e9)], Pruner("median", startup_trials=0), 5) is False


def test_place_of_a_trial_survives_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Trial(17, "recovery", str(tmp_path / "a folder, with = and 'quotes'" / "study.journal"))
    monkeypatch.setenv(VARIABLE, place.text)
    assert Trial.of_this_job() == place
    monkeypatch.delenv(VARIABLE)
    assert Trial.of_this_job() is None


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["pruner=median"], "pruner: expected a search by Optuna, as sweep=optuna, got median without one"),
        (["sweep=recovery_size", "pruner=asha"], "pruner: expected none with several objectives, got asha"),
    ],
)
def test_pruner_without_one_score_to_judge_by_is_refused(
    overrides: list[str], expected: str, composed: Composed
) -> None:
    with pytest.raises(ConfigError) as error:
        check_search(composed(*overrides))
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,2", optuna.distributions.CategoricalDistribution([1, 2])),
        ("a=x,null,true", optuna.distributions.CategoricalDistribution(["x", "null", True])),
        ("a=range(2,9)", optuna.distributions.IntDistribution(2, 8)),
        ("a=range(2,9,3)", optuna.distributions.IntDistribution(2, 8, step=3)),
        ("a=range(0.5,2.5,0.5)", optuna.distributions.FloatDistribution(0.5, 2.0, step=0.5)),
        ("a=int(interval(1,5))", optuna.distributions.IntDistribution(1, 5)),
        ("a=interval(0.5,2)", optuna.distributions.FloatDistribution(0.5, 2.0)),
        ("a=tag(log, interval(1e-3, 1e-1))", optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True)),
    ],
)
def test_sweeps_of_hydra_are_what_optuna_searches(text: str, expected: object) -> None:
    space, shared = search_space(["b=3", text, "~c=4", "b=5"])
    assert space == {"a": expected}
    assert shared == ["b=5", "~c=4"]


def test_jobs_at_once_are_counted_as_joblib_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    assert [parallel_jobs(n) for n in (1, 3, -1, -2, -99)] == [1, 3, 8, 7, 1]


@pytest.mark.parametrize(("n_jobs", "threads", "warned"), [(2, 2, False), (2, 3, True), (-1, 1, False), (5, 1, True)])
def test_more_threads_than_cores_are_warned_of(
    n_jobs: int, threads: int, warned: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    accelerator = {"accelerator": "cpu", "threads": threads, "devices": 1}
    with caplog.at_level(logging.WARNING, "eai"):
        _warn_of_crowding(OmegaConf.create({"accelerator": accelerator, "hydra": {"launcher": {"n_jobs": n_jobs}}}))
    assert ("jobs will slow each other down" in caplog.text) == warned
