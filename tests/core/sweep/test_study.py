"""Searches by Optuna: what is refused before the first trial, and which trials a study makes again."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import optuna
import pytest
from omegaconf import DictConfig, OmegaConf

from eai.core.errors import ConfigError
from eai.core.files import write_json
from eai.core.sweep.hooks import _warn_of_crowding
from eai.core.sweep.names import sweep_name
from eai.core.sweep.study import _trials_left, check_search, parallel_jobs, queue_again
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


class Study:
    """A study in a file, with trials of every state: 0 and 1 failed alike, 2 complete, 3 and 4 cut off."""

    def __init__(self, folder: Path) -> None:
        self.storage = f"sqlite:///{folder / 'study.db'}"
        self.study = optuna.create_study(study_name="s", storage=self.storage)
        space = {"x": optuna.distributions.FloatDistribution(0, 1)}
        for number, x in enumerate((0.25, 0.25, 0.5, 0.75, 1.0)):
            self.study.enqueue_trial({"x": x})
            trial = self.study.ask(space)
            if number < 2:
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
            elif number == 2:
                self.study.tell(trial, 1.0)
        self.record = folder / "sweep.json"

    def config(self, **top: Any) -> DictConfig:
        node = {"storage": self.storage, "study_name": "s", "params": {"x": "interval(0,1)"}}
        hydra = {"overrides": {"task": []}, "sweeper": node}
        return OmegaConf.create({"retry_failed": False, **top, "hydra": hydra})

    def queue(self, **top: Any) -> None:
        write_json(self.record, {"name": sweep_name(self.config())})
        queue_again(self.config(**top), self.record)

    def make(self) -> list[float]:
        """Make the trials that are left of 5 in all; their parameters."""
        done = []
        for _ in range(_trials_left(5, self.storage, "s")):
            trial = self.study.ask()
            done.append(trial.suggest_float("x", 0, 1))
            self.study.tell(trial, 2.0)
        return done


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path)


def test_trials_that_were_cut_off_come_again_with_their_parameters(study: Study) -> None:
    study.queue()
    assert study.make() == [0.75, 1.0]
    study.queue()
    assert study.make() == []


def test_retry_failed_makes_failed_trials_again_once_each(study: Study) -> None:
    study.queue(retry_failed=True)
    assert study.make() == [0.25, 0.75, 1.0]
    study.queue(retry_failed=True)
    assert study.make() == []


def test_queueing_twice_makes_no_trial_twice(study: Study) -> None:
    study.queue(retry_failed=True)
    study.queue(retry_failed=True)
    assert study.make() == [0.25, 0.75, 1.0]


def test_directory_with_the_study_of_another_search_is_refused(study: Study) -> None:
    write_json(study.record, {"name": "another"})
    with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir: .* holds another search"):
        queue_again(study.config(), study.record)


def test_new_study_has_nothing_to_queue(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'none.db'}"
    config = OmegaConf.create({"hydra": {"sweeper": {"storage": storage, "study_name": "s"}}})
    queue_again(config, tmp_path / "sweep.json")
    assert _trials_left(7, storage, "s") == 7
    assert list(tmp_path.iterdir()) == []


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
