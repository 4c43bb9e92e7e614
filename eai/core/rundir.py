"""The run directory: who may write where, and how a run says what became of it."""

from __future__ import annotations

import json
import math
import os
import platform
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from eai.core.errors import ConfigError, Interrupted

_PACKAGES = ("eai", "torch", "torch_geometric", "lightning", "hydra-core", "omegaconf", "numpy")


def finite_or_none(value: Any) -> Any:
    """Replace every non-finite float by None: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON under a temporary name in the same folder, then rename it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(finite_or_none(content), indent=2, allow_nan=False) + "\n")
    temporary.replace(path)


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
        self.tensorboard = self.path / "tensorboard"
        self.figures = self.path / "figures"
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
        OmegaConf.save(cfg, self.config, resolve=True)

    def load_config(self) -> DictConfig:
        """The resolved configuration."""
        return _load_yaml(self.config)

    def load_composed(self) -> DictConfig:
        """The configuration as Hydra composed it, interpolations not yet resolved."""
        return _load_yaml(self.path / ".hydra" / "config.yaml")

    def note(self, **facts: Any) -> None:
        """Add facts (as `train_seconds`) to ``status.json`` when the run ends."""
        self._notes.update(facts)

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
            write_json(self.status, {"state": state, **started, **self._notes, **facts})

        write("RUNNING")
        try:
            yield
        except (Interrupted, KeyboardInterrupt) as stop:
            code = stop.exit_code if isinstance(stop, Interrupted) else 130
            write("PREEMPTED", ended=_now(), exit_code=code)
            raise
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            write("FAILED", ended=_now(), exit_code=1, reason=reason)
            raise
        write("COMPLETED", ended=_now(), exit_code=0)
