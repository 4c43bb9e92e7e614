"""The short way through a training step: the same numbers as Lightning's, and no more than it can do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import eai.core.run.steps
from eai.core.run.steps import EpochLoop
from tests.core.test_config_files import TASKS, few_samples
from tests.runs import TINY, Train, assert_equal, assert_same_result

QUICK = (*TINY, "figures.at_end=false")


@pytest.fixture
def short_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the batches that took the short way."""
    taken: list[int] = []
    step = EpochLoop._step

    def noted(self: EpochLoop, optimizer: Any, task: Any, batch: Any, number: int) -> torch.Tensor:
        taken.append(number)
        return step(self, optimizer, task, batch, number)

    monkeypatch.setattr(EpochLoop, "_step", noted)
    return taken


@pytest.mark.parametrize("task", TASKS)
def test_short_way_and_lightnings_give_the_same_run_bit_for_bit(
    task: str, train: Train, short_steps: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ["epochs=2", "validate_every_n_epochs=1", "data.batch_size=7", "figures.at_end=false"]
    overrides = [f"task={task}", *few_samples([f"task={task}"]), *small]
    short = train(*overrides, run="short")
    steps = len(short_steps)
    assert steps == torch.load(short.last, weights_only=True)["global_step"] > 0
    monkeypatch.setattr(eai.core.run.steps, "is_plain", lambda trainer: False)
    lightnings = train(*overrides, run="lightnings")
    assert len(short_steps) == steps
    assert_same_result(short, lightnings)
    progress = [torch.load(run.last, weights_only=True)["loops"] for run in (short, lightnings)]
    assert_equal(*progress)


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.gradient_clip_val=0.5"],
        ["+trainer.accumulate_grad_batches=2"],
        ["accelerator.precision=bf16-mixed"],
        ["+trainer.profiler=simple"],
        ["+trainer.val_check_interval=2"],
        ["model.optimizer._target_=torch.optim.LBFGS", "~model.optimizer.fused"],
    ],
    ids=" ".join,
)
def test_step_that_asks_for_more_is_left_to_lightning(
    overrides: list[str], train: Train, short_steps: list[int]
) -> None:
    train(*QUICK, "epochs=1", *overrides)
    assert not short_steps


def test_hook_within_the_step_is_called(train: Train, short_steps: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(
        eai.core.run.callbacks.History, "on_after_backward", lambda *_: called.append("after backward"), raising=False
    )
    train(*QUICK, "epochs=1")
    assert len(called) == 4
    assert not short_steps
