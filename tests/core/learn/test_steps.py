"""Training steps: in blocks or one by one they are those of a plain loop, to the last bit."""

from __future__ import annotations

from functools import reduce
from operator import add
from pathlib import Path

import pytest
import torch

from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.directory import RunDirectory
from eai.core.learn.data import Batches, Blocks, Loader
from eai.core.run.build import build_data_and_task, seed_everything
from tests.core.learn.test_data import RandomNumbers
from tests.core.test_config_files import TASKS, few_samples
from tests.runs import TINY, Train, assert_equal, assert_same_result, composed

QUICK = (*TINY, "figures.at_end=false")


def plain_loop(overrides: list[str]) -> dict[str, torch.Tensor]:
    """The weights that the configuration means: forward, backward, clip, step, schedule, and nothing else."""
    cfg = resolve(composed("train", overrides))
    experiment = check_experiment(cfg)
    data, task = build_data_and_task(cfg, experiment)
    data.setup()
    seed_everything(experiment.seed)
    configured = task.configure_optimizers()
    optimizer, scheduler = configured["optimizer"], configured["lr_scheduler"]
    options, since = experiment.optimization, 0
    for epoch in range(experiment.epochs):
        data.start = (epoch, 0)
        batches = [batch for block in data.train_dataloader() for batch in block]
        for number, batch in enumerate(batches, start=1):
            loss = reduce(add, (term.mean() for term in task.loss(task(batch), batch).values()))
            (loss / options.accumulate if options.accumulate > 1 else loss).backward()
            since += 1
            if since == options.accumulate or number == len(batches):
                if options.clip_norm:
                    torch.nn.utils.clip_grad_norm_(task.parameters(), options.clip_norm)
                optimizer.step()
                optimizer.zero_grad()
                since = 0
                if options.schedule_every == "step":
                    scheduler.step()
        if options.schedule_every == "epoch":
            scheduler.step()
    return {name: value.clone() for name, value in task.state_dict().items()}


def weights_of(run: RunDirectory) -> dict[str, torch.Tensor]:
    return torch.load(run.last, weights_only=True)["state_dict"]


@pytest.mark.parametrize("task", TASKS)
def test_steps_in_blocks_and_one_by_one_are_those_of_a_plain_loop(task: str, train: Train) -> None:
    small = ["epochs=2", "validate_every_n_epochs=1", "data.batch_size=3", "figures.at_end=false"]
    overrides = [f"task={task}", *few_samples(composed("train", [f"task={task}"]).data), *small]
    blocks, single = train(*overrides, run="blocks"), train(*overrides, "+trainer.max_steps=1000", run="single")
    assert_same_result(blocks, single)
    assert_equal(weights_of(blocks), plain_loop(overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimization.accumulate=3"],
        ["optimization.accumulate=3", "optimization.clip_norm=0.5"],
        ["optimization.schedule_every=step", "model.scheduler.T_max=12"],
    ],
    ids=" ".join,
)
def test_accumulation_clipping_and_schedules_mean_what_they_say(overrides: list[str], train: Train) -> None:
    wanted = [*QUICK, *overrides]
    torch.testing.assert_close(weights_of(train(*wanted)), plain_loop(wanted), rtol=0, atol=0)


def test_schedule_on_a_plateau_follows_the_monitored_score(train: Train) -> None:
    plateau = ["model.scheduler._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "~model.scheduler.T_max"]
    # No score is better by a factor of 1e9 than the one before: the rate falls at every validation.
    run = train(*QUICK, *plateau, "+model.scheduler.patience=0", "+model.scheduler.threshold=1e9", "epochs=4")
    optimizer = torch.load(run.last, weights_only=True)["optimizer_states"][0]
    assert optimizer["param_groups"][0]["lr"] == pytest.approx(2e-3 * 0.1**4)


@pytest.mark.parametrize(
    "overrides",
    [["accelerator.precision=bf16-mixed"], ["+trainer.profiler=simple"], ["+trainer.val_check_interval=2"]],
    ids=" ".join,
)
def test_further_options_of_the_trainer_keep_their_meaning(overrides: list[str], train: Train, tmp_path: Path) -> None:
    run = train(*QUICK, "epochs=1", *overrides)
    assert torch.load(run.last, weights_only=True)["global_step"] == 4
    assert (run.path / "fit-profile.txt").is_file() == ("profiler" in overrides[0])


def test_blocks_grow_while_they_are_quick_and_shrink_when_they_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("eai.core.learn.data.time.monotonic", lambda: now[0])

    def sizes(seconds_each: float) -> list[int]:
        found, samples = [], RandomNumbers(1, 0, fresh=False)
        samples.setup()
        for block in Blocks(Loader(samples.samples["train"], Batches(samples.samples["train"], 1, passes=12)), False):
            found.append(len(block))
            now[0] += seconds_each * len(block)
        return found

    assert sizes(0.001)[:8] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert set(sizes(0.03)) == {1, 2, 4} - {4}
    assert set(sizes(1.0)) == {1}
