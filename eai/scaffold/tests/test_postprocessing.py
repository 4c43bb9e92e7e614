"""The mathematics of the task, and a run of every configuration."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import mylab
import pytest
import torch
from mylab.postprocessing.data import Stations, bias

CONF = Path(mylab.__file__).parent / "conf"
FILES = sorted(path for group in ("task", "data", "model", "experiment") for path in (CONF / group).rglob("*.yaml"))


def test_expected_error_is_the_mean_of_the_errors() -> None:
    batch = Stations(n_train=50_000, noise=0.5).batch("train")
    error = batch.forecast - batch.truth - bias(batch.forecast, batch.season, batch.height)
    assert abs(error.mean().item()) < 4 * 0.5 / 50_000**0.5
    assert torch.corrcoef(torch.stack([error, batch.forecast]))[0, 1].abs() < 4 / 50_000**0.5


def test_splits_are_different_samples_of_the_same_seed() -> None:
    one, two = Stations(n_train=7, n_test=7), Stations(n_train=7, n_test=7)
    assert torch.equal(one.batch("train").truth, two.batch("train").truth)
    assert not torch.equal(one.batch("train").truth, one.batch("test").truth)


def overrides(path: Path) -> list[str]:
    group, *rest = path.relative_to(CONF).with_suffix("").parts
    return [f"{group}={rest[-1]}"] if len(rest) == 1 else [f"task={rest[0]}", f"{group}/{rest[0]}={rest[-1]}"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF)))
def test_every_configuration_runs_two_batches(path: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "eai.train", *overrides(path), "trainer=debug", f"hydra.run.dir={tmp_path}/run"]
    subprocess.run(command, check=True, timeout=120)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "COMPLETED"
