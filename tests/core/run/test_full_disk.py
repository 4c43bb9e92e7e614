"""Runs that are starved of disk: the last good files stay."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from eai.core.directory import RunDirectory
from eai.core.errors import DiskFullError
from eai.core.files import read_json, to_json, write_json
from eai.core.run.checkpoints import AtomicCheckpointIO, LastCheckpoint, check_checkpoint
from tests.core.run.stops import SPARSE
from tests.runs import assert_same_result, train_in


def test_interrupted_write_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "step": 1}, path)

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {}, "step": 2}, path)
    assert check_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], capture_output=True, timeout=20, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted by this user")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], timeout=20, check=True)


# TensorBoard's own writer thread meets the full disk as well.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_full_disk_stops_the_run_with_the_reason_and_the_last_good_checkpoint_goes_on(
    small_disk: Path, whole: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = small_disk / "filler"
    original = LastCheckpoint.on_train_batch_end

    def fill(self: LastCheckpoint, trainer: L.Trainer, *rest: Any) -> None:
        if trainer.global_step == 9:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(bytes(4096))
        original(self, trainer, *rest)

    run = RunDirectory(small_disk / "run")
    with monkeypatch.context() as patch:
        patch.setattr(LastCheckpoint, "on_train_batch_end", fill)
        with pytest.raises(DiskFullError, match=rf"No space left on device.*last good checkpoint is {run.last}"):
            train_in(run.path, SPARSE)
    assert check_checkpoint(run.last)["global_step"] == 8
    status = read_json(run.status)
    assert status["state"] == "FAILED"
    assert "No space left on device" in status["reason"]
    filler.unlink()
    train_in(run.path, SPARSE)
    assert_same_result(run, whole)


def test_full_disk_leaves_a_status_that_can_be_read_though_another_process_takes_what_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    sizes = []

    def text(content: Any) -> str:
        sizes.append((tmp_path / "status.json").stat().st_size)  # when the file is open already
        return to_json(content)

    run = RunDirectory(tmp_path)

    def fill() -> None:
        with run.tracked():
            monkeypatch.setattr("eai.core.directory.write_json", full)
            monkeypatch.setattr("eai.core.directory.to_json", text)
            raise DiskFullError("no space")

    with pytest.raises(DiskFullError):
        fill()
    assert sizes[0] > 0
    assert read_json(run.status)["state"] == "FAILED"


def test_status_is_replaced_whole_even_when_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "status.json"
    write_json(path, {"state": "RUNNING"})

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        write_json(path, {"state": "FAILED"})
    assert read_json(path) == {"state": "RUNNING"}
    assert [file.name for file in tmp_path.iterdir()] == ["status.json"]
