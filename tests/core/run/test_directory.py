"""The run directory: whose files it holds, who may write in it, and what it says about itself."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import eai.core.directory
from eai.core.directory import RunDirectory, disk_errors_named, read_json, write_json
from eai.core.errors import ConfigError
from eai.core.learn.task import Task
from tests.runs import TINY, Train

QUICK = (*TINY, "figures.at_end=false", "epochs=1")


def test_folder_with_files_of_somebody_else_is_refused_and_left_alone(train: Train, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (".env.production.local", "config.yaml", "metrics.json"):
        (folder / name).write_text("mine")
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir: expected a new or empty folder.*\.env\.production\.local"):
        train(*QUICK)
    assert {path.name: path.read_text() for path in folder.iterdir()} == dict.fromkeys(
        (".env.production.local", "config.yaml", "metrics.json"), "mine"
    )


def test_leftovers_are_removed_and_hidden_files_of_the_user_are_not(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    ours = [tmp_path / ".status.json.4242.tmp", run.checkpoints / ".last.ckpt.17.tmp"]
    theirs = [tmp_path / ".my.lab.notes", tmp_path / ".status.json.4242.tmp.bak", run.checkpoints / ".a.b.tmp"]
    for path in (*ours, *theirs):
        path.touch()
    run.remove_leftovers()
    assert not any(path.exists() for path in ours)
    assert all(path.exists() for path in theirs)


@pytest.mark.parametrize("name", [".lock", "status.json"])
def test_links_in_a_run_directory_are_not_followed(name: str, tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.write_text("kept")
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    (run.path / name).symlink_to(target)
    if name == ".lock":
        with pytest.raises(OSError, match="symbolic links"), run.locked():
            pass
    else:
        with run.tracked():
            pass
    assert target.read_text() == "kept"


def test_typo_or_range_error_leaves_no_directory(train: Train, tmp_path: Path) -> None:
    for wrong in ("+data.sead=1", "data.batch_size=0", "monitor.score=val/nothing", "model.net.width=-1"):
        with pytest.raises(ConfigError):
            train(*QUICK, wrong)
    # Two processes: refused before a worker starts.
    with pytest.raises(ConfigError, match=r"data\.batch_size: expected at least 1"):
        train(*QUICK, "accelerator=ddp_cpu", "data.batch_size=0")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("wrong", ["seed=3", "epochs=2", "trainer.limit_val_batches=nonsense"])
def test_refused_resume_changes_nothing(wrong: str, train: Train, finished: RunDirectory) -> None:
    before = {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError):
        train(f"resume={finished.path}", wrong, run="finished")
    assert {path: path.read_bytes() for path in finished.path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("error", [FileNotFoundError(), subprocess.TimeoutExpired("git", 10)], ids=["absent", "hangs"])
def test_run_needs_no_git(error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(eai.core.directory.subprocess, "run", fail)
    run = RunDirectory(tmp_path)
    with run.tracked():
        pass
    assert read_json(run.status)["git_commit"] is None


def test_directory_deleted_while_the_run_works_is_one_line(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()

    def work() -> None:
        with run.tracked(), disk_errors_named(run):
            shutil.rmtree(run.path)
            write_json(run.metrics, {})

    with pytest.raises(ConfigError, match="was deleted or moved"):
        work()


def test_previous_checkpoint_is_kept_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", fail)
    run = RunDirectory(tmp_path)
    run.checkpoints.mkdir()
    run.last.write_bytes(b"one")
    run.keep_previous_checkpoint()
    run.last.write_bytes(b"two")
    assert run.previous.read_bytes() == b"one"
    assert {path.name for path in run.checkpoints.iterdir()} == {"last.ckpt", "previous.ckpt"}


def test_threads_of_a_job_do_not_outlive_it(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(Task, "on_test_start", _noting(Task.on_test_start, used))
    before = torch.get_num_threads()
    monkeypatch.setattr("eai.core.run.fit._TORCH_THREADS", 2)
    try:
        train(*QUICK, run="one")
        train(*QUICK, "accelerator.threads=null", run="free")
    finally:
        torch.set_num_threads(before)
    assert used == [1, 2]


def _noting(original: object, used: list[int]) -> object:
    def noted(self: Task) -> None:
        used.append(torch.get_num_threads())
        original(self)  # type: ignore[operator]

    return noted
