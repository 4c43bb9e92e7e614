"""The run directory: its paths, its lock, its status, and the one way to write a file whole."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eai.core.errors import ConfigError, DiskFullError, Interrupted, RankError, RunInUseError
from eai.core.files import flat_keys, no_links, read_json, to_json, write_json, write_whole
from eai.core.signals import held_back

log = logging.getLogger("eai")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Keys of a configuration that decide what is drawn, said, resumed or expected, not what is learned.
COSMETIC = ("resume", "figures", "reporting", "objectives", "retry_failed", "trials", "expect")
# Temporary files of `write_whole` and `keep_previous_checkpoint` only.
_TEMPORARY = re.compile(
    r"\.((config|hydra|overrides)\.yaml|(status|metrics|baselines|standard_errors|measurements)\.json|(best|last|previous)\.ckpt)\.\d+\.tmp"
)
# States of a run with which a sweep is done.
DONE = ("COMPLETED", "PRUNED")
# What may lie in a directory before its run begins.
_BEFORE_A_RUN = (".hydra", ".lock", ".ranks", "report.html", "status.json", "train.log", "workers.log")
RESOLVER = re.compile(r"\$\{[\w.]*:")
# Classes that older runs name where they were then.
_MOVED = (
    (
        re.compile(
            r"\beai\.tasks\.assimilation\.(?=(cost|covariance|estimated_covariance|graph_net|nets|observations|solver)\.)"
        ),
        "eai.variational.",
    ),
    (
        re.compile(r"\beai\.variational\.observations(?=\.(Observation|Regular|Share)Network\b)"),
        "eai.variational.networks",
    ),
    (re.compile(r"\beai\.variational\.observations(?=\.ObservationError\b)"), "eai.variational.observation_error"),
    (re.compile(r"\beai\.variational\.covariance(?=\.PowerLawCovariance\b)"), "eai.variational.power_law"),
)
_PACKAGES = ("eai", "torch", "torch_geometric", "lightning", "hydra-core", "omegaconf", "numpy", "pytorch_optimizer")


def _git_commit() -> str | None:
    """The commit of a checkout; None in an installed package, or where git cannot tell."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    command = ["git", "-C", str(here), "rev-parse", "HEAD"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _load_yaml(path: Path) -> DictConfig:
    try:
        text = path.read_text(encoding="utf-8")
        for old, new in _MOVED:
            text = old.sub(new, text)
        cfg = OmegaConf.create(text)
    except (OSError, UnicodeDecodeError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"cannot read {path}: expected a mapping")
    return cfg


class RunDirectory:
    """Paths of one run and its ``status.json``.

    ``config.yaml`` holds the resolved configuration; the other names are listed in docs/reference/run_directory.md.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.json"
        self.baselines = self.path / "baselines.json"
        self.standard_errors = self.path / "standard_errors.json"
        self.measurements = self.path / "measurements.json"
        self.status = self.path / "status.json"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "previous.ckpt"
        self.tensorboard = self.path / "tensorboard"
        self.figures = self.path / "figures"
        self.report = self.path / "report.html"
        self._ranks = self.path / ".ranks"
        self._notes: dict[str, Any] = {}

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """An existing run; a ``ConfigError`` that says why, if it is not one."""
        run = cls(path)
        if not run.path.is_dir():
            raise ConfigError(f"run: expected the directory of a run, got {path} (no such directory)")
        if not run.config.is_file():
            raise ConfigError(f"run: expected the directory of a run, got {path} (it has no config.yaml)")
        return run

    def save_config(self, cfg: DictConfig) -> None:
        """Write the resolved configuration."""
        write_whole(self.config, OmegaConf.to_yaml(cfg, resolve=True).encode())

    def save_composed(self, cfg: DictConfig, overrides: Sequence[str], hydra: DictConfig | None = None) -> None:
        """Write what Hydra composed, its interpolations alive, and the overrides that it was composed from."""
        folder = self.path / ".hydra"
        folder.mkdir(exist_ok=True)
        write_whole(folder / "config.yaml", OmegaConf.to_yaml(cfg).encode())
        write_whole(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))).encode())
        if hydra is not None:
            write_whole(folder / "hydra.yaml", OmegaConf.to_yaml(hydra).encode())

    def load_config(self) -> DictConfig:
        """The resolved configuration."""
        return _load_yaml(self.config)

    def load_composed(self) -> DictConfig:
        """The configuration as composed, interpolations between its keys alive; else the resolved one."""
        composed = self.path / ".hydra" / "config.yaml"
        cfg = _load_yaml(composed if composed.is_file() else self.config)
        for key, value in flat_keys(OmegaConf.to_container(cfg)).items():
            if isinstance(value, str) and RESOLVER.search(value):
                raise ConfigError(
                    f"{composed}: {key}: expected no resolver in a run's own configuration, got {value!r}"
                )
        return cfg

    def load_overrides(self) -> list[str]:
        """What was typed when the run was made; empty where that is not known."""
        path = self.path / ".hydra" / "overrides.yaml"
        try:
            overrides = OmegaConf.to_container(OmegaConf.load(path))
        except (OSError, YAMLError, OmegaConfBaseException):
            return []
        return [str(item) for item in overrides] if isinstance(overrides, list) else []

    def note(self, **facts: Any) -> None:
        """Add facts (as `train_seconds`) to ``status.json`` when the run ends."""
        self._notes.update(facts)

    def state(self) -> dict[str, Any]:
        """``status.json``; empty where no run has begun."""
        return read_json(self.status) if self.status.is_file() else {}

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[int]:
        """Hold the directory: yields the lock's file descriptor; freed with its last holder, however that ends.

        Args:
            wait: for the end of another process that holds it.

        Raises:
            RunInUseError: another process holds it, and ``wait`` is False.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with open(self.path / ".lock", "a+", opener=no_links) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read().strip() or "another process"
                if not wait:
                    raise RunInUseError(f"hydra.run.dir: {self.path} is in use by {holder}") from None
                log.warning("%s is in use by %s; waiting for its end", self.path, holder)
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                log.warning("%s: this file system has no locks; a second run would not be refused", self.path)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
            file.flush()
            yield file.fileno()

    def keep_previous_checkpoint(self) -> None:
        """Link ``last.ckpt`` to ``previous.ckpt``, so that it stays when it is replaced."""
        if not self.last.is_file():
            return
        temporary = self.checkpoints / f".previous.ckpt.{os.getpid()}.tmp"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.last, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(self.last, temporary)
        temporary.replace(self.previous)

    def remove_leftovers(self) -> None:
        """Remove temporary files of a killed process, and reports of its ranks. Needs the lock."""
        for folder in (self.path, self.checkpoints, self.path / ".hydra"):
            for file in folder.glob(".*.tmp"):
                if _TEMPORARY.fullmatch(file.name):
                    file.unlink()
        for report in self._ranks.glob("*.json"):
            report.unlink()

    def refuse_strangers(self) -> None:
        """Raise ``ConfigError`` if the directory holds files but no run."""
        if others := self.strangers():
            named = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
            raise ConfigError(f"hydra.run.dir: expected a new or empty folder, or a run, got {self.path} with {named}")

    def strangers(self) -> list[str]:
        """The names of what no run has put here, where there is no run."""
        if not self.path.is_dir() or (self.status.is_file() and self.config.is_file()):
            return []
        names = sorted(file.name for file in self.path.iterdir())
        return [name for name in names if name not in _BEFORE_A_RUN and not _TEMPORARY.fullmatch(name)]

    def report_rank(self, rank: int, **facts: Any) -> None:
        """Write the state of one of several processes, for the one that keeps ``status.json``."""
        with held_back():
            self._ranks.mkdir(exist_ok=True)
            write_json(self._ranks / f"{rank}.json", {"rank": rank, "time": time.time(), "pid": os.getpid(), **facts})

    def rank_reports(self) -> list[dict[str, Any]]:
        """The reports of all ranks so far, the earliest first."""
        return sorted((read_json(path) for path in self._ranks.glob("[0-9]*.json")), key=lambda report: report["time"])

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Keep ``status.json`` up to date: RUNNING inside, then COMPLETED, PRUNED, FAILED or PREEMPTED."""
        started: dict[str, Any] = {
            "started": _now(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in _PACKAGES},
            "git_commit": _git_commit(),
        }

        @held_back()
        def write(state: str, **facts: Any) -> None:
            content = {"state": state, **started, **self._notes, **facts}
            try:
                write_json(self.status, content)
            except OSError as error:
                if not self.path.is_dir():  # deleted while the run worked in it
                    return
                if error.errno not in DISK_FULL:
                    raise
                # Disk full: overwrite in place, as no temporary file fits.
                # Not emptied first: what that frees another process may take.
                with open(self.status, "r+" if self.status.is_file() else "w", opener=no_links) as file:
                    file.write(to_json(content))
                    file.truncate()

        try:
            write("RUNNING")
            yield
        except (Interrupted, KeyboardInterrupt) as stop:
            code = stop.exit_code if isinstance(stop, Interrupted) else 130
            write("PREEMPTED", ended=_now(), exit_code=code)
            raise
        except BaseException as error:
            name = "" if isinstance(error, RankError) else f"{type(error).__name__}: "
            write("FAILED", ended=_now(), exit_code=1, reason=f"{name}{error}")
            raise
        write("PRUNED" if "pruned" in self._notes else "COMPLETED", ended=_now(), exit_code=0)


@contextmanager
def disk_errors_named(run: RunDirectory) -> Iterator[None]:
    """Say in one line that the disk is full, and what is left to go on from, or that the directory is gone.

    Raises:
        DiskFullError: the disk, or a quota, is full.
        ConfigError: the run directory was deleted.
    """
    try:
        yield
    except OSError as error:
        if not run.path.is_dir():
            raise ConfigError(f"{run.path} was deleted or moved while the run was working in it") from error
        if error.errno not in DISK_FULL:
            raise
        left = f"the last good checkpoint is {run.last}" if run.last.is_file() else "no checkpoint was written"
        raise DiskFullError(f"{error.strerror}: {error.filename or run.path}; {left}") from error
