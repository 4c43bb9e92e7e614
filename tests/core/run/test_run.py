"""A whole run and what follows it: files, evaluation, loading, resuming, comparing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import eai
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, ExplodedLossError, NonFiniteLossError
from eai.core.files import read_json, write_json
from eai.core.run.finished import evaluate
from tests.runs import TINY, Train, composed, curves_of


def tensorboard_of(run: RunDirectory) -> EventAccumulator:
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    return events


def test_run_directory_holds_what_the_design_promises(train: Train) -> None:
    run = train(*TINY, "figures.every_n_epochs=1")
    metrics, baselines, status = read_json(run.metrics), read_json(run.baselines), read_json(run.status)
    assert status["state"] == "COMPLETED"
    assert status["exit_code"] == 0
    assert {"started", "ended", "host", "versions", "git_commit", "train_seconds"} <= status.keys()
    assert all(key.startswith("test/") and math.isfinite(value) for key, value in metrics.items())
    for scores in baselines.values():
        assert scores.keys() == metrics.keys()
    assert baselines["blue"]["test/j_ratio"] == pytest.approx(1, abs=1e-6)
    assert metrics["test/j_ratio"] > 1
    errors, costs = read_json(run.standard_errors), read_json(run.measurements)
    assert errors.keys() == costs.keys() == {"model", *baselines}
    assert all(of_method.keys() == metrics.keys() for of_method in errors.values())
    assert errors["model"]["test/j_ratio"] > 0
    assert all(cost["seconds_per_sample"] > 0 for cost in costs.values())
    assert run.best.is_file()
    assert run.last.is_file()
    assert {path.stem for path in run.figures.glob("*.png")} == {
        "analysis",
        "background_covariance",
        "cost_by_number",
        "data",
        "departures",
        "learning_curves",
        "monitored_score",
        "single_observation",
    }

    events = tensorboard_of(run)
    assert [event.step for event in events.Scalars("train/loss")] == sorted(
        {e.step for e in events.Scalars("val/loss")}
    )
    assert len(events.Scalars("val/j_ratio")) == 3
    assert len(events.Tensors("views/analysis/while_training")) == 3
    assert "_hparams_/session_start_info" in events.summary_metadata


def test_same_seed_gives_identical_scores_and_another_seed_does_not(train: Train) -> None:
    quick = (*TINY, "figures.at_end=false")
    first, second = train(*quick, run="a"), train(*quick, run="b")
    assert first.metrics.read_bytes() == second.metrics.read_bytes()
    assert first.metrics.read_bytes() != train(*quick, "seed=1", run="c").metrics.read_bytes()


@pytest.mark.slow
def test_compiled_net_learns_the_same_as_a_plain_one(
    train: Train, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    plain = train(*TINY, run="plain")
    # As a user runs it: the checks of shapes that tests put around every function are not there to be compiled.
    command = [sys.executable, "-m", "eai.train", *TINY, "compile=true", f"hydra.run.dir={tmp_path / 'compiled'}"]
    subprocess.run(command, env=clean_environment, cwd=tmp_path, timeout=250, check=True)
    compiled = RunDirectory(tmp_path / "compiled")
    scores = [read_json(run.metrics) for run in (plain, compiled)]
    assert scores[1]["test/j_ratio"] == pytest.approx(scores[0]["test/j_ratio"], rel=1e-4)
    weights = [torch.load(run.best, weights_only=True)["state_dict"] for run in (plain, compiled)]
    torch.testing.assert_close(weights[1], weights[0], rtol=0, atol=1e-6)


def test_resumed_run_refuses_to_change_what_it_was_trained_on(train: Train, finished: RunDirectory) -> None:
    run = finished
    with pytest.raises(ConfigError, match=r"^seed: cannot change in a resumed run"):
        train(f"resume={run.path}", "seed=3", run="finished")
    longer = train(f"resume={run.path}", "epochs=5", run="finished")
    assert read_json(longer.status)["epochs"] == 5


def test_evaluation_repeats_the_scores_of_the_run_and_leaves_it_alone(finished: RunDirectory) -> None:
    run = finished
    before = run.metrics.read_bytes()
    evaluate(composed("evaluate", [f"run={run.path}"]))
    (result,) = (run.path / "evaluations").iterdir()
    assert (result / "metrics.json").read_bytes() == before == run.metrics.read_bytes()


def test_evaluation_on_other_data_changes_the_scores(finished: RunDirectory) -> None:
    run = finished
    score = evaluate(
        composed("evaluate", [f"run={run.path}", "data.seed=7", "shared.obs_error.sigma=0.2", "data.network.p=7"])
    )
    (result,) = (run.path / "evaluations").iterdir()
    assert RunDirectory(result).load_config().data.network.p == 7
    assert score != read_json(run.metrics)["test/j_ratio"]


def test_evaluation_refuses_overrides_that_cannot_fit_and_names_both_values(finished: RunDirectory) -> None:
    run = finished
    with pytest.raises(ConfigError, match=r"data\.n: trained with 13, got 17.*net\.layers\.0\.weight"):
        evaluate(composed("evaluate", [f"run={run.path}", "data.n=17"]))
    with pytest.raises(ConfigError, match=r"data\.sead: unknown key; did you mean 'seed'"):
        evaluate(composed("evaluate", [f"run={run.path}", "data.sead=1"]))
    assert not (run.path / "evaluations").exists()


def test_loaded_run_predicts_what_was_scored(finished: RunDirectory) -> None:
    run = finished
    loaded = eai.load_run(run.path)
    batch = loaded.data.batch("test")
    j = loaded.module.scores(batch, loaded.module.predict(batch))["j"]
    assert not loaded.module.training
    assert loaded.config.data.n == 13
    assert isinstance(j, torch.Tensor)
    minimum = loaded.module.cost.minimum(batch)  # type: ignore[union-attr, operator]
    assert float(j.sum() / minimum.sum()) == pytest.approx(read_json(run.metrics)["test/j_ratio"], rel=1e-6)


@pytest.mark.parametrize("damage", ["truncated", "garbage", "pickle", "foreign", "absent"])
def test_unreadable_checkpoint_is_refused_by_name(finished: RunDirectory, tmp_path: Path, damage: str) -> None:
    run = finished
    if damage == "truncated":
        run.best.write_bytes(run.best.read_bytes()[:3000])
    elif damage == "garbage":
        run.best.write_bytes(b"\x00\x01 not a checkpoint")
    elif damage == "pickle":
        torch.save({"state_dict": {}, "evil": _Evil(tmp_path / "executed")}, run.best)
    elif damage == "foreign":
        torch.save({"weights": torch.zeros(3)}, run.best)
    else:
        run.best.unlink()
    with pytest.raises(ConfigError, match=r"best\.ckpt"):
        eai.load_run(run.path)
    assert not (tmp_path / "executed").exists()


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


def test_loss_that_explodes_by_a_million_stops_the_run_and_a_resumed_one_remembers_its_first_epoch(
    train: Train, finished: RunDirectory
) -> None:
    # A thousand times the weights: a loss of some 10⁶ times the first, and finite.
    checkpoint = torch.load(finished.last, weights_only=True)
    first = checkpoint["progress"]["first_loss"]
    curve = [value for _, value in curves_of(finished)["train/loss"]]
    assert first == pytest.approx(curve[0])
    for weight in checkpoint["state_dict"].values():
        weight *= 1e3
    torch.save(checkpoint, finished.last)
    with pytest.raises(
        ExplodedLossError, match=r"^train/loss grew to \S+ in epoch 3, step \d+, more than 1e\+06 times"
    ):
        train(f"resume={finished.path}", "epochs=9", run="finished")
    status = read_json(finished.status)
    assert status["state"] == "FAILED"
    assert status["reason"].startswith("ExplodedLossError: train/loss grew to ")
    assert f"times its first epoch's mean of {first:.3g}" in status["reason"]


def test_directory_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run: expected the directory of a run.*no config\.yaml"):
        eai.load_run(tmp_path)
    with pytest.raises(ConfigError, match="no such directory"):
        evaluate(composed("evaluate", [f"run={tmp_path / 'nowhere'}"]))


def test_non_finite_loss_stops_the_run_and_keeps_the_checkpoint_before(train: Train, finished: RunDirectory) -> None:
    checkpoint = torch.load(finished.last, weights_only=True)
    for weight in checkpoint["state_dict"].values():
        weight *= 1e30
    torch.save(checkpoint, finished.last)
    kept = finished.last.read_bytes()
    with pytest.raises(NonFiniteLossError, match=r"(train/loss|val/\S+) became (nan|inf) in epoch \d+, step \d+"):
        train(f"resume={finished.path}", "epochs=9", run="finished")
    status = read_json(finished.status)
    assert status["state"] == "FAILED"
    assert "NonFiniteLossError" in status["reason"]
    assert finished.last.read_bytes() == kept
    assert all(torch.isfinite(w).all() for w in torch.load(finished.best, weights_only=True)["state_dict"].values())


def test_json_never_holds_nan_and_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"a": float("nan"), "b": {"c": float("inf"), "d": 1.5}})
    assert json.loads(path.read_text()) == {"a": None, "b": {"c": None, "d": 1.5}}
    write_json(path, {"a": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_runs_as_a_table_say_score_baseline_and_optimum(finished: RunDirectory) -> None:
    run = finished
    (row,) = eai.runs(run.path).to_dict("records")
    assert row["task"] == "assimilation"
    assert row["test"] == read_json(run.metrics)["test/j_ratio"]
    assert row["baseline"] == read_json(run.baselines)["background"]["test/j_ratio"]
    assert row["optimum"] == pytest.approx(1, abs=1e-6)
    assert row["state"] == "COMPLETED"
