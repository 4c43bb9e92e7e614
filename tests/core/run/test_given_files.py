"""Checkpoints and configurations that a run is given: damaged, foreign or hostile; nothing in them is executed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import eai
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, Interrupted
from eai.core.run.checkpoints import LastCheckpoint, check_checkpoint
from tests.core.run.stops import SPARSE, signal_at
from tests.runs import TINY, Train, assert_equal, assert_same_result


def test_truncated_checkpoint_is_refused_and_the_one_before_it_used_on_request(
    train: Train, whole: RunDirectory, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with monkeypatch.context() as patch:
        signal_at(patch, LastCheckpoint, "on_train_batch_end", 10, signal.SIGTERM)
        with pytest.raises(Interrupted):
            train(*SPARSE)
    run = RunDirectory(tmp_path / "run")
    run.last.write_bytes(run.last.read_bytes()[:2000])
    with pytest.raises(ConfigError, match=r"last\.ckpt is truncated.*eai-train resume=.*previous\.ckpt"):
        train(*SPARSE)
    assert check_checkpoint(run.previous)["global_step"] == 8
    assert_same_result(train(f"resume={run.previous}"), whole)


def test_first_weights_are_taken_from_another_run_and_nothing_else(train: Train, finished: RunDirectory) -> None:
    source = torch.load(finished.best, weights_only=True)
    for given in (finished.path, finished.best):
        run = train(*TINY, "epochs=1", f"init_from={given}", "model.optimizer.lr=1e-30", run=f"from_{given.name}")
        checkpoint = torch.load(run.last, weights_only=True)
        assert checkpoint["global_step"] == 4
        assert_equal(checkpoint["state_dict"], source["state_dict"])
    with pytest.raises(ConfigError, match=r"init_from|does not fit the model"):
        train(*TINY, "model.net.width=7", f"init_from={finished.path}", run="other")
    with pytest.raises(ConfigError, match=r"no checkpoint .*nowhere\.ckpt"):
        train(*TINY, "init_from=nowhere.ckpt", run="absent")


class Executed:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["resume", "init_from"])
def test_pickle_with_code_in_it_is_refused_and_not_executed(
    name: str, train: Train, finished: RunDirectory, tmp_path: Path
) -> None:
    checkpoint = torch.load(finished.last, weights_only=True)
    torch.save({**checkpoint, "callbacks": Executed(tmp_path / "executed")}, finished.last)
    finished.previous.unlink(missing_ok=True)
    overrides = [f"resume={finished.path}"] if name == "resume" else [*TINY, f"init_from={finished.last}"]
    with pytest.raises(ConfigError, match=r"last\.ckpt is truncated or not a checkpoint of eai"):
        train(*overrides, run="finished" if name == "resume" else "new")
    assert not (tmp_path / "executed").exists()


def test_saved_configuration_that_names_foreign_code_is_refused_and_not_executed(
    train: Train, finished: RunDirectory, tmp_path: Path
) -> None:
    cfg = finished.load_config()
    OmegaConf.update(cfg, "model.net", {"_target_": "os.mkdir", "path": str(tmp_path / "executed")}, merge=False)
    finished.save_config(cfg)
    finished.save_composed(cfg, [])
    for use in (lambda: train(f"resume={finished.path}", run="finished"), lambda: eai.load_run(finished.path)):
        with pytest.raises(ConfigError, match=r"model\.net\._target_: .*os\.mkdir.*refused"):
            use()
    assert not (tmp_path / "executed").exists()
