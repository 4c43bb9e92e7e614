"""Runs side by side: on a terminal, as CSV, JSON or Markdown."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from eai.core.compare.keys import canonical
from eai.core.compare.leaderboard import leaderboard
from eai.core.compare.record import Record
from eai.core.compare.records import read_records
from eai.core.compare.table import leaderboard_frame, runs_frame
from eai.core.compare.text import grid, markdown, render, short_path, spell
from eai.core.directory import COSMETIC, RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import finite_or_none, flat_keys

_BY_RUN = {"task": "task", "headline": "score", "test": "value", "baseline": "baseline",
           "rival": "baseline to beat", "rival_score": "its value", "optimum": "optimum",
           "seconds": "seconds", "state": "state", "path": "run"}  # fmt: skip
_FEW_RUNS = 5


def compare(folders: Sequence[str | Path], form: str = "table", by_run: bool = False, failures: bool = True) -> str:
    """A leaderboard of the runs below ``folders``.

    Args:
        folders: to look in.
        form: ``table``, ``csv``, ``json``, ``markdown``, or ``diff``: the keys in which runs differ.
        by_run: one row per run instead of one per group of seeds.
        failures: whether a leaderboard lists the failed runs.

    Raises:
        ConfigError: a folder is none, or holds no run.
    """
    records = read_records(folders)
    if not records:
        raise ConfigError(f"runs: no run found below {', '.join(map(str, folders))}")
    if form == "diff":
        return differences(records)
    tasks = Counter(record.task for record in records if record.config)
    # Where each task has one run, print one table.
    if by_run or (form == "table" and len(tasks) > 1 and max(tasks.values()) == 1):
        frame = frame_by_run(records)
    elif form in ("csv", "json"):
        frame = leaderboard_frame(records)
    else:
        return leaderboard(folders, form, failures)
    if form == "csv":
        return as_csv(frame)
    if form == "json":
        rows = [finite_or_none(row) for row in frame.to_dict("records")]
        return json.dumps(rows, indent=2, allow_nan=False, default=str) + "\n"
    if form == "table":
        frame = frame.assign(report=[_place(Path(path)) for path in frame.pop("run")])
    header, cells = [str(name) for name in frame], frame.map(spell).to_numpy().tolist()
    return markdown(header, cells) if form == "markdown" else render(grid(header, cells))


def _place(run: Path) -> str:
    """Where a reader looks: a run's report, or its directory where it has none."""
    report = RunDirectory(run).report
    return short_path(report if report.is_file() else run)


def as_csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")


def frame_by_run(records: Sequence[Record]) -> pd.DataFrame:
    """A row a run: its headline score, its baseline's and the optimum's, None where unknown."""
    frame = runs_frame(records)[list(_BY_RUN)].rename(columns=_BY_RUN).astype(object)
    return frame.where(frame.notna(), None)


def differences(records: Sequence[Record]) -> str:
    """The configuration keys in which runs differ, side by side, and the command that reproduces each run.

    Runs are columns; many runs that differ in a few keys are rows.

    Raises:
        ConfigError: the configuration of a run cannot be read.
    """
    for record in records:
        if not record.config:
            raise ConfigError(f"runs: {record.path} cannot be compared: {record.reason or 'no readable config.yaml'}")
    names = [f"run {i}" for i, _ in enumerate(records, start=1)]
    leaves = [flat_keys(record.config) for record in records]
    keys = sorted({key for node in leaves for key in node if key.partition(".")[0] not in COSMETIC})
    differing = [key for key in keys if len({canonical(node[key]) if key in node else "" for node in leaves}) > 1]
    lines = []
    for name, record in zip(names, records, strict=True):
        command = "no command is on record" if record.typed is None else shlex.join(["eai-train", *record.typed])
        lines += [f"{name}  {short_path(record.path)}", f"       {command}"]
    if not differing:
        return render("the configurations are the same", *lines)
    told = [[str(node[key]) if key in node else "absent" for key in differing] for node in leaves]
    frame = pd.DataFrame(told, names, differing)
    corner, frame = ("run", frame) if len(records) > max(_FEW_RUNS, len(differing)) else ("key", frame.T)
    table = grid([corner, *frame.columns], [[str(row[0]), *row[1:]] for row in frame.itertuples()])
    return render(table, *lines)
