"""Longer training, shorter training, and runs that are scored or loaded elsewhere."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eai
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, Interrupted
from eai.core.files import read_json
from eai.core.learn.task import Task
from eai.core.run.finished import evaluate
from tests.runs import TINY, Train, composed, curves_of

QUICK = (*TINY, "figures.at_end=false")


def learning_rate(run: RunDirectory) -> float:
    return torch.load(run.last, weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"]


def test_extended_run_has_the_learning_rate_of_the_longer_schedule(train: Train) -> None:
    run = train(*QUICK)
    rates: list[float] = []
    original = Task.on_train_epoch_start

    def noted(self: Task) -> None:
        rates.append(self.trainer.optimizers[0].param_groups[0]["lr"])
        original(self)

    Task.on_train_epoch_start = noted  # type: ignore[method-assign]
    try:
        train(f"resume={run.path}", "epochs=6")
    finally:
        Task.on_train_epoch_start = original  # type: ignore[method-assign]
    top = run.load_config().model.optimizer.lr
    # The cosine of six epochs, taken up at its third: it falls, and ends at zero.
    assert rates == pytest.approx([top * (1 + math.cos(math.pi * epoch / 6)) / 2 for epoch in (3, 4, 5)])
    assert learning_rate(run) == pytest.approx(0, abs=1e-12)
    assert run.load_config().model.scheduler.T_max == run.load_config().epochs == 6
    assert read_json(run.status)["epochs"] == 6
    assert "epochs=6" in run.load_overrides()
    assert "epochs=3" not in run.load_overrides()


@pytest.mark.parametrize("epochs", [1, 4])
def test_last_epoch_validates_whatever_the_interval(epochs: int, train: Train) -> None:
    run = train(*QUICK, f"epochs={epochs}", "validate_every_n_epochs=3")
    steps = [step for step, _ in curves_of(run)["val/j_ratio"]]
    assert steps == ([4] if epochs == 1 else [12, 16])


def test_training_ended_by_steps_within_an_epoch_is_validated_too(train: Train) -> None:
    run = train(*QUICK, "+trainer.max_steps=6", "validate_every_n_epochs=5")
    assert torch.load(run.best, weights_only=True)["global_step"] == 6
    assert math.isfinite(read_json(run.status)["monitored"]["value"])


def test_validation_before_training_is_no_epoch_of_the_history(train: Train) -> None:
    plain, checked = train(*QUICK, run="plain"), train(*QUICK, "trainer.num_sanity_val_steps=2", run="checked")
    assert curves_of(plain) == curves_of(checked)
    assert plain.metrics.read_bytes() == checked.metrics.read_bytes()


def test_epoch_lines_show_scores_only_of_epochs_that_were_validated(
    train: Train, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", logger="eai"):
        train(*QUICK, "validate_every_n_epochs=2")
    lines = [message for message in caplog.messages if message.startswith("epoch")]
    assert ["val/j_ratio" in line for line in lines] == [False, True, True]
    assert all("train/loss" in line for line in lines)


def test_loading_leaves_the_random_numbers_of_a_notebook_alone(finished: RunDirectory) -> None:
    # Not Python's own generator: the checks of types that run in tests draw from it.
    def draws() -> tuple[float, float]:
        return float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002

    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    expected = draws()
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    eai.load_run(finished.path)
    assert draws() == expected
    assert "PL_GLOBAL_SEED" not in os.environ


def test_loaded_run_takes_overrides(finished: RunDirectory) -> None:
    assert len(eai.load_run(finished.path, ["data.n_test=5"]).data.batch("test")[0]) == 5
    with pytest.raises(ConfigError, match=r"^seed: cannot change in a loaded run"):
        eai.load_run(finished.path, ["seed=1"])
    with pytest.raises(ConfigError, match=r"data\.sead: unknown key"):
        eai.load_run(finished.path, ["data.sead=1"])


def test_evaluation_replaces_a_node_by_another_class(train: Train) -> None:
    small = ["figures.at_end=false", "epochs=1", *(f"data.{name}=16" for name in ("n_train", "n_val", "n_test"))]
    run = train("task=recovery", "data/recovery=noisy", "model/recovery=autoencoder", *small)
    block = "data.corruption={_target_:eai.tasks.recovery.corruptions.Block,size:8}"
    _, result = evaluate(composed("evaluate", [f"run={run.path}", block]))
    cfg = result.load_config()
    assert dict(cfg.data.corruption) == {"_target_": "eai.tasks.recovery.corruptions.Block", "size": 8}
    cfg = evaluate(composed("evaluate", [f"run={run.path}", "+data/recovery=block", "data.n_test=8"]))[1].load_config()
    assert cfg.data.n_test == 8
    assert cfg.data.corruption._target_.endswith("Block")
    assert read_json(result.metrics) != read_json(run.metrics)


def test_data_of_another_name_keep_nothing_of_the_runs_own(train: Train) -> None:
    small = ["figures.at_end=false", "epochs=1", *(f"data.{name}=16" for name in ("n_train", "n_val", "n_test"))]
    run = train("task=recovery", "data/recovery=varied", "model/recovery=autoencoder", "data.n_extrapolation=0", *small)
    cfg = evaluate(composed("evaluate", [f"run={run.path}", "+data/recovery=block", "data.n_test=8"]))[1].load_config()
    assert not {"kind", "test_levels", "n_extrapolation"} & cfg.data.keys()


def test_evaluation_is_written_where_asked(finished: RunDirectory, tmp_path: Path, monkeypatch: Any) -> None:
    evaluate(composed("evaluate", [f"run={finished.path}", f"output={tmp_path / 'elsewhere'}"]))
    assert (tmp_path / "elsewhere" / "metrics.json").read_bytes() == finished.metrics.read_bytes()
    assert not (finished.path / "evaluations").exists()
    with pytest.raises(ConfigError, match="output: expected a new or empty folder"):
        evaluate(composed("evaluate", [f"run={finished.path}", f"output={tmp_path / 'elsewhere'}"]))
    (finished.path / "evaluations").write_text("in the way, as a read-only folder is")
    with pytest.raises(ConfigError, match="output: cannot write"):
        evaluate(composed("evaluate", [f"run={finished.path}"]))


def test_interrupted_evaluation_says_so(finished: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Task, "on_test_epoch_end", lambda self: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(Interrupted) as stop:
        evaluate(composed("evaluate", [f"run={finished.path}"]))
    assert stop.value.exit_code == 130
    (result,) = (finished.path / "evaluations").iterdir()
    assert read_json(result / "status.json")["state"] == "PREEMPTED"


def test_relative_paths_and_resolvers_are_stored_so_that_they_hold_elsewhere(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = Path(__file__).parents[2] / "tasks" / "recovery" / "images"
    monkeypatch.chdir(images.parent)
    monkeypatch.setenv("EAI_TEST_FOLDER", "images")
    shares = ["data.val_share=0.3", "data.test_share=0.3"]  # of five images
    run = train(
        "task=recovery", "data/recovery=folder", "data.path=${oc.env:EAI_TEST_FOLDER}", *shares, "trainer=debug"
    )
    monkeypatch.delenv("EAI_TEST_FOLDER")
    monkeypatch.chdir(tmp_path)
    assert run.load_composed().data.path == run.load_config().data.path == str(images)
    assert len(eai.load_run(run.path).data.batch("test")[0]) > 0


def test_resolver_in_a_strangers_configuration_is_refused(finished: RunDirectory) -> None:
    path = finished.path / ".hydra" / "config.yaml"
    path.write_text(path.read_text() + "\nleak: ${oc.env:HOME}\n")
    with pytest.raises(ConfigError, match=r"leak: expected no resolver"):
        evaluate(composed("evaluate", [f"run={finished.path}", "data.seed=7"]))
