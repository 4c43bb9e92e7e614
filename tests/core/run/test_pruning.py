"""A run that is a trial of a study, and is pruned: what it leaves, and that it can be finished exactly."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import torch

from eai.core.files import read_json
from eai.core.trials import VARIABLE, Trial, journal_storage
from tests.runs import TINY, Train, curves_of

PRUNER = (
    *TINY,
    "pruner=median",
    "pruner.startup_trials=1",
    "pruner.grace_epochs=2",
    "epochs=4",
    "figures.at_end=false",
)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    """A study whose first trial scored nothing at all at every epoch; this process trains the second."""
    journal = tmp_path / "study.journal"
    study = optuna.create_study(study_name="s", storage=journal_storage(journal))
    first = study.ask()
    for epoch in (1, 2, 3, 4):
        first.report(0.0, epoch)
    study.tell(first, 0.0)
    study.ask()
    monkeypatch.setenv(VARIABLE, Trial(1, "s", str(journal)).text)
    return study


def test_pruned_run_keeps_curve_and_checkpoint_and_resumes_to_the_result_of_one_that_was_not(
    study: optuna.Study, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(*PRUNER, run="pruned", in_sweep=True)
    status = read_json(run.status)
    assert (status["state"], status["pruned"], status["epochs"]) == ("PRUNED", "by median after epoch 2 of 4", 2)
    assert not run.metrics.exists()
    assert run.best.is_file()
    told = study.get_trials()[1].intermediate_values
    assert [value for _, value in curves_of(run)["val/j_ratio"]] == pytest.approx(list(told.values()))
    assert sorted(told) == [1, 2]
    # Done for its sweep: nothing happens.
    train(*PRUNER, run="pruned", in_sweep=True)
    assert read_json(run.status) == status

    monkeypatch.delenv(VARIABLE)
    whole = train(*PRUNER, run="whole")
    train(f"resume={run.path}", run="pruned")
    assert read_json(run.status)["state"] == "COMPLETED"
    assert read_json(run.metrics) == read_json(whole.metrics)
    weights, same = (torch.load(one.best, weights_only=True)["state_dict"] for one in (run, whole))
    assert all(torch.equal(weights[name], same[name]) for name in weights)


def test_validation_of_the_final_weights_prunes_nothing(study: optuna.Study, train: Train) -> None:
    run = train(*PRUNER, "+trainer.max_steps=6", in_sweep=True)  # within the second epoch
    assert read_json(run.status)["state"] == "COMPLETED"
    assert [*study.get_trials()[1].intermediate_values] == [1]


def test_run_is_not_pruned_when_nothing_is_left_to_save(study: optuna.Study, train: Train) -> None:
    run = train(*PRUNER, "pruner.grace_epochs=4", run="last", in_sweep=True)
    assert read_json(run.status)["state"] == "COMPLETED"
    assert sorted(study.get_trials()[1].intermediate_values) == [1, 2, 3, 4]


def test_trial_without_a_pruner_reports_nothing(study: optuna.Study, train: Train) -> None:
    run = train(*TINY, "figures.at_end=false", run="free", in_sweep=True)
    assert read_json(run.status)["state"] == "COMPLETED"
    assert study.get_trials()[1].intermediate_values == {}
