"""Callbacks of the configuration: what they do to a run, and that it goes on exactly with them."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from eai.core.errors import ConfigError, Interrupted
from eai.core.files import read_json
from eai.core.learn.averaging import SWA
from eai.core.run.checkpoints import LastCheckpoint
from tests.runs import TINY, Train, assert_same_result, curves_of

SHORT = (*TINY, "figures.at_end=false")
TARGET = "callbacks.early_stopping._target_"
SEVERAL = (*SHORT, "callbacks=[early_stopping,lr_monitor,weight_averaging]", "callbacks.weight_averaging.decay=0.5")


def test_early_stopping_ends_a_run_as_completed_with_its_reason_and_scores_the_best_weights(train: Train) -> None:
    # No validation improves by as much as this: two of them in a row end the run.
    impatient = (
        "callbacks=early_stopping",
        "callbacks.early_stopping.patience=1",
        "callbacks.early_stopping.min_delta=1e9",
    )
    run = train(*SHORT, *impatient, "epochs=9")
    status = read_json(run.status)
    assert (status["state"], status["epochs"]) == ("COMPLETED", 2)
    assert status["stopped"].startswith("val/j_ratio did not improve")
    assert run.metrics.is_file()
    assert "stopped" not in read_json(train(*SHORT, "callbacks=early_stopping", run="patient").status)
    without = train(*SHORT, "callbacks=early_stopping", "callbacks.early_stopping=null", run="without")
    assert read_json(without.status)["epochs"] == 3


def test_learning_rate_is_a_curve_at_the_steps_of_the_losses(train: Train) -> None:
    curves = curves_of(train(*SHORT, "callbacks=lr_monitor"))
    (rates,) = (curve for name, curve in curves.items() if name.startswith("lr-"))
    assert [step for step, _ in rates] == [0, 4, 8]
    assert rates[0][1] > rates[-1][1]


def test_averaged_weights_are_what_is_scored(train: Train) -> None:
    averaged = train(*SHORT, "callbacks=weight_averaging", "callbacks.weight_averaging.decay=0.9")
    assert read_json(averaged.metrics) != read_json(train(*SHORT, run="plain").metrics)


@pytest.mark.parametrize("first", [0, 2, 4])
def test_stochastic_averaging_is_the_mean_of_the_weights_from_its_first_epoch_on(first: int) -> None:
    swa = SWA(first / 6)
    swa.setup(SimpleNamespace(max_epochs=6), torch.nn.Linear(1, 1), "validate")  # type: ignore[arg-type]
    net = torch.nn.Linear(3, 2).double()
    averaged, seen = AveragedModel(net, avg_fn=swa.average), []
    for epoch in range(6):
        torch.nn.init.normal_(net.weight, generator=torch.Generator().manual_seed(epoch))
        seen.append(net.weight.detach().clone())
        averaged.update_parameters(net)
        expected = torch.stack(seen[first:]).mean(0) if epoch > first else seen[-1]
        torch.testing.assert_close(averaged.module.weight.detach(), expected)


def test_run_with_stochastic_averaging_scores_the_mean_and_resumes_to_the_same_result(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    swa = (*SHORT, "callbacks=swa", "callbacks.swa.start=0.3")
    whole = train(*swa, run="whole")
    assert read_json(whole.metrics) != read_json(train(*SHORT, run="plain").metrics)
    original = LastCheckpoint.on_train_batch_end

    def stopped(self: LastCheckpoint, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == 9:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_batch_end", stopped)
        with pytest.raises(Interrupted):
            train(*swa)
    assert_same_result(train(*swa), whole)


@pytest.mark.parametrize("step", [5, 8])
def test_run_with_callbacks_that_was_stopped_goes_on_to_the_same_result(
    step: int, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = LastCheckpoint.on_train_batch_end

    def stopped(self: LastCheckpoint, trainer: Any, *rest: Any) -> None:
        if trainer.global_step == step:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, trainer, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_batch_end", stopped)
        with pytest.raises(Interrupted):
            train(*SEVERAL)
    assert_same_result(train(*SEVERAL), train(*SEVERAL, run="whole"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("callbacks.early_stopping.monitor=val/loss", r"early_stopping\.monitor: expected the monitored score"),
        ("+callbacks.other=5", r"other: expected a callback or null, got 5"),
        ("callbacks.early_stopping.mode=up", r"early_stopping: `mode` can be"),
        ("callbacks.early_stopping.patience=soon", r"early_stopping\.patience: expected int, got 'soon'"),
        (
            "callbacks.early_stopping._target_=lightning.pytorch.callbacks.ModelCheckpoint",
            "expected one of .*EarlyStopping",
        ),
        (
            "callbacks.early_stopping._target_=lightning.pytorch.callbacks.LambdaCallback",
            "expected one of .*EarlyStopping",
        ),
        ("callbacks.early_stopping._target_=torch.nn.Identity", "expected Callback, got 'torch.nn.Identity'"),
        ("callbacks.early_stopping._target_=eai.core.run.callbacks.FigureWriter", "refused"),
    ],
)
def test_callback_that_cannot_work_is_refused_by_its_key_and_leaves_no_directory(
    override: str, message: str, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"^callbacks\..*{message}"):
        train(*SHORT, "callbacks=early_stopping", override)
    assert not (tmp_path / "run").exists()
