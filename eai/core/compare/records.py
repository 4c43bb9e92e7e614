"""The files of finished, running and failed runs, read leniently for comparisons.

Free of torch and lightning: a summary is written after every job of a sweep.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from eai.core.compare.record import Record
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json

# The C loader is ten times faster; resolved configurations need nothing of OmegaConf's own.
_YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def find_runs(folders: Sequence[str | Path]) -> Iterator[RunDirectory]:
    """Runs at or below the given folders, symbolic links followed; no evaluations of runs, and none twice.

    Args:
        folders: to look in.

    Raises:
        ConfigError: one of them is no folder.
    """
    seen: set[tuple[int, int]] = set()
    for folder in folders:
        if not Path(folder).is_dir():
            why = "a file" if Path(folder).exists() else "no such directory"
            raise ConfigError(f"runs: expected directories, got {folder} ({why})")
        for where, below, files in os.walk(folder, followlinks=True):
            try:
                at = os.stat(where)
            except FileNotFoundError:  # deleted meanwhile
                below.clear()
                continue
            if (at.st_dev, at.st_ino) in seen:  # a link to what was visited, or to a folder above
                below.clear()
                continue
            seen.add((at.st_dev, at.st_ino))
            if "status.json" in files:
                yield RunDirectory(where)
                below.clear()


def read_record(run: RunDirectory) -> Record:
    """All that is known of one run.

    Raises:
        ConfigError: its ``status.json`` is unreadable or names no state; other files may be absent or broken.
    """
    status = read_json(run.status)
    if not isinstance(status.get("state"), str):
        raise ConfigError(f"cannot read {run.status}: it names no state")
    sweep = _mapping(run.path.parent / "sweep.json").get("swept")
    overrides = _load(run.path / ".hydra" / "overrides.yaml")
    typed = [str(item) for item in overrides] if isinstance(overrides, list) else None
    return Record(
        path=run.path,
        status=status,
        config=_mapping(run.config),
        typed=None if typed is None else tuple(item for item in typed if not item.startswith("resume=")),
        swept=tuple(str(key) for key in sweep) if isinstance(sweep, list) else (),
        metrics=_mapping(run.metrics),
        baselines=_mapping(run.baselines),
        errors=_mapping(run.standard_errors),
        measurements=_mapping(run.measurements),
    )


# Records read before, by directory, with times and sizes of their files: a sweep reads only what is new.
_cache: dict[Path, tuple[tuple[tuple[int, int], ...], Record]] = {}


def read_records(folders: Sequence[str | Path]) -> list[Record]:
    """The runs at or below the folders in the order in which they started.

    One whose ``status.json`` cannot be read has the state UNREADABLE; a folder that is no run is left out.

    Args:
        folders: to look in.

    Raises:
        ConfigError: one of them is no folder.
    """
    records = []
    for run in find_runs(folders):
        stamps = tuple(_stamp(path) for path in _files(run))
        known = _cache.get(run.path)
        if known is None or known[0] != stamps:
            try:
                record = read_record(run)
            except ConfigError as error:
                if not run.config.is_file():  # somebody else's status.json
                    continue
                record = Record(run.path, {"state": "UNREADABLE", "reason": str(error)})
            known = _cache[run.path] = stamps, record
        records.append(known[1])
    return sorted(records, key=lambda record: (_started(record), _numbers_as_numbers(str(record.path))))


def _files(run: RunDirectory) -> tuple[Path, ...]:
    return run.status, run.metrics, run.baselines, run.config, run.path.parent / "sweep.json"


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size


def _started(record: Record) -> float:
    """Seconds since the epoch, whatever the time zone; 0 where it is not known."""
    try:
        return datetime.fromisoformat(str(record.status.get("started"))).timestamp()
    except ValueError:
        return 0.0


def _numbers_as_numbers(name: str) -> list[tuple[bool, int, str]]:
    return [(not digits, int(digits or 0), text) for digits, text in re.findall(r"(\d+)|(\D+)", name)]


def _mapping(path: Path) -> Mapping[str, Any]:
    content = _load(path)
    return content if isinstance(content, Mapping) else {}


def _load(path: Path) -> Any:
    try:
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" else yaml.load(text, _YAML_LOADER)
    except (OSError, ValueError, yaml.YAMLError):
        return None
