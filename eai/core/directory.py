"""The run directory: who may write where, and how a run says what became of it."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import math
import os
import platform
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eai.core.errors import ConfigError, DiskFullError, Interrupted, RankError, RunInUseError

log = logging.getLogger("eai")
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
# Keys of a configuration that do not change what a run comes to.
COSMETIC = ("resume", "figures", "reporting", "objectives", "retry_failed", "trials")
_PACKAGES = ("eai", "torch", "torch_geometric", "lightning", "hydra-core", "omegaconf", "numpy")


def finite_or_none(value: Any) -> Any:
    """Replace every non-finite float by None: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(content: Mapping[str, Any]) -> str:
    return json.dumps(finite_or_none(content), indent=2, allow_nan=False) + "\n"


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON under a temporary name in the same folder, then rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(to_json(content))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"cannot read {path}: expected a JSON object, got {type(content).__name__}")
    return content


def _git_commit() -> str | None:
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    result = subprocess.run(
        ["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=False, timeout=10
    )
    return result.stdout.strip() if result.returncode == 0 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _load_yaml(path: Path) -> DictConfig:
    try:
        cfg = OmegaConf.load(path)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"cannot read {path}: expected a mapping")
    return cfg


class RunDirectory:
    """Paths of one run and its ``status.json``.

    ``config.yaml`` holds the resolved configuration; the other names are listed in the README.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()
        self.config = self.path / "config.yaml"
        self.metrics = self.path / "metrics.json"
        self.baselines = self.path / "baselines.json"
        self.measurements = self.path / "measurements.json"
        self.status = self.path / "status.json"
        self.checkpoints = self.path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self.previous = self.checkpoints / "previous.ckpt"
        self.tensorboard = self.path / "tensorboard"
        self.figures = self.path / "figures"
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
        temporary = self.config.with_name(f".config.yaml.{os.getpid()}")
        OmegaConf.save(cfg, temporary, resolve=True)
        temporary.replace(self.config)

    def save_composed(self, cfg: DictConfig, hydra: DictConfig) -> None:
        """What Hydra composed, interpolations alive, and the overrides that it was composed from."""
        folder = self.path / ".hydra"
        folder.mkdir(exist_ok=True)
        OmegaConf.save(cfg, folder / "config.yaml")
        OmegaConf.save(hydra, folder / "hydra.yaml")
        OmegaConf.save(hydra.overrides.task, folder / "overrides.yaml")

    def load_config(self) -> DictConfig:
        """The resolved configuration."""
        return _load_yaml(self.config)

    def load_composed(self) -> DictConfig:
        """The configuration as Hydra composed it, interpolations not yet resolved."""
        return _load_yaml(self.path / ".hydra" / "config.yaml")

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
        with (self.path / ".lock").open("a+") as file:
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
        """Give ``last.ckpt`` the second name ``previous.ckpt``, under which it stays when it is replaced."""
        if not self.last.is_file():
            return
        temporary = self.checkpoints / f".previous.ckpt.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            os.link(self.last, temporary)
        except OSError:  # a file system without hard links
            shutil.copyfile(self.last, temporary)
        temporary.replace(self.previous)

    def remove_leftovers(self) -> None:
        """Remove temporary files that a killed process left, and reports of its ranks. Needs the lock."""
        for folder in (self.path, self.checkpoints):
            for temporary in folder.glob(".*.*.*"):
                temporary.unlink()
        shutil.rmtree(self._ranks, ignore_errors=True)

    def report_rank(self, rank: int, **facts: Any) -> None:
        """Leave word of what one of several processes came to, for the one that keeps ``status.json``."""
        self._ranks.mkdir(exist_ok=True)
        write_json(self._ranks / f"{rank}.json", {"rank": rank, "time": time.time(), "pid": os.getpid(), **facts})

    def rank_reports(self) -> list[dict[str, Any]]:
        """The reports of all ranks so far, the earliest first."""
        return sorted((read_json(path) for path in self._ranks.glob("[0-9]*.json")), key=lambda report: report["time"])

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Keep ``status.json`` true: RUNNING inside, then COMPLETED, FAILED or PREEMPTED."""
        started: dict[str, Any] = {
            "started": _now(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "python": platform.python_version(),
            "versions": {name: version(name) for name in _PACKAGES},
            "git_commit": _git_commit(),
        }

        def write(state: str, **facts: Any) -> None:
            content = {"state": state, **started, **self._notes, **facts}
            try:
                write_json(self.status, content)
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
                # The old file's own place is the only one that is left.
                self.status.write_text(to_json(content))

        write("RUNNING")
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as stop:
            code = stop.exit_code if isinstance(stop, Interrupted) else 130
            write("PREEMPTED", ended=_now(), exit_code=code)
            raise
        except BaseException as error:
            name = "" if isinstance(error, RankError) else f"{type(error).__name__}: "
            write("FAILED", ended=_now(), exit_code=1, reason=f"{name}{error}")
            raise
        write("COMPLETED", ended=_now(), exit_code=0)


@contextmanager
def disk_full_named(run: RunDirectory) -> Iterator[None]:
    """Turn the error of a full disk or quota into a ``DiskFullError`` that says what is left to go on from."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        left = f"the last good checkpoint is {run.last}" if run.last.is_file() else "no checkpoint was written"
        raise DiskFullError(f"{error.strerror}: {error.filename or run.path}; {left}") from error


def flat_keys(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of the leaves of nested dictionaries; a list is a leaf."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    dot = "." if prefix else ""
    return {k: v for name, item in node.items() for k, v in flat_keys(item, f"{prefix}{dot}{name}").items()}


def flat_hyperparameters(cfg: DictConfig) -> dict[str, str | float]:
    """What TensorBoard's HParams tab can show: numbers, booleans and texts under dotted keys.

    TensorBoard's writer drops a None and with it the key, so that rows of one sweep would not line up
    where a value is null in some jobs; it is therefore written as the text ``null``, and a list as its text.
    """
    plain = flat_keys(OmegaConf.to_container(cfg, resolve=True))
    return {key: "null" if value is None else _plain(value) for key, value in plain.items()}


def _plain(value: Any) -> str | float:
    return value if isinstance(value, str | int | float) else str(value)
