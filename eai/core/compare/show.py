"""Runs side by side: on a terminal, as CSV, JSON or Markdown, and as the summary of a sweep."""

from __future__ import annotations

import io
import json
import logging
import shlex
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from eai.core.compare.importance import importance_lines
from eai.core.compare.keys import canonical
from eai.core.compare.record import BASELINE, Record
from eai.core.compare.records import read_records
from eai.core.compare.table import (
    Comparison,
    column_names,
    comparisons,
    leaderboard_frame,
    runs_frame,
)
from eai.core.compare.text import grid, markdown, render, short_path, spell, spell_seconds, spell_spread
from eai.core.directory import COSMETIC
from eai.core.errors import ConfigError
from eai.core.files import finite_or_none, flat_keys, write_whole

log = logging.getLogger("eai")
_BY_RUN = {"task": "task", "headline": "score", "test": "value", "baseline": "baseline",
           "rival": "baseline to beat", "rival_score": "its value", "optimum": "optimum",
           "seconds": "seconds", "state": "state", "path": "run"}  # fmt: skip
_REASON_LENGTH, _MOST_GROUPS, _FEW_RUNS = 160, 30, 5
_ATTEMPTS = 3
_draw_again_at: dict[Path, float] = {}  # by sweep, of this process's clock


def compare(folders: Sequence[str], form: str = "table", by_run: bool = False) -> str:
    """A leaderboard of the runs below ``folders``.

    Args:
        folders: to look in.
        form: ``table``, ``csv``, ``json``, ``markdown``, or ``diff``: the keys in which runs differ.
        by_run: one row per run instead of one per group of seeds.

    Raises:
        ConfigError: a folder is none, or holds no run.
    """
    records = read_records(folders)
    if not records:
        raise ConfigError(f"runs: no run found below {', '.join(folders)}")
    if form == "diff":
        return differences(records)
    tasks = Counter(record.task for record in records if record.config)
    # Where each task has one run, print one table.
    if by_run or (form == "table" and len(tasks) > 1 and max(tasks.values()) == 1):
        frame = frame_by_run(records)
    elif form in ("csv", "json"):
        frame = leaderboard_frame(records)
    else:
        return leaderboard(folders, form)
    if form == "csv":
        return as_csv(frame)
    if form == "json":
        rows = [finite_or_none(row) for row in frame.to_dict("records")]
        return json.dumps(rows, indent=2, allow_nan=False, default=str) + "\n"
    if form == "table":
        frame = frame.assign(run=[short_path(Path(path)) for path in frame["run"]])
    header, cells = list(_BY_RUN.values()), frame.map(spell).to_numpy().tolist()
    return markdown(header, cells) if form == "markdown" else render(grid(header, cells))


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
    told = [[spell(node[key]) if key in node else "absent" for key in differing] for node in leaves]
    frame = pd.DataFrame(told, names, differing)
    corner, frame = ("run", frame) if len(records) > max(_FEW_RUNS, len(differing)) else ("key", frame.T)
    table = grid([corner, *frame.columns], [[str(row[0]), *row[1:]] for row in frame.itertuples()])
    return render(table, *lines)


def leaderboard(folders: Sequence[str | Path], form: str = "table", failures: bool = True) -> str:
    """One table per task, the best group first, the best run's directory and the failed runs below.

    It has the best groups only where there are very many (CSV and JSON have all).

    Args:
        folders: to look in.
        form: ``table`` or ``markdown``.
        failures: whether to list the failed runs.

    Raises:
        ConfigError: a folder does not exist.
    """
    records = read_records(folders)
    tables = comparisons(records)
    names = column_names(tables)
    parts: list[Table | str] = []
    for table in tables:
        parts += _parts(table, names, form)
        parts += [_unfinished(record) for record in table.runs["record"] if failures and record.reason]
    parts += [_unfinished(record) for record in records if failures and not record.config]
    parts += importance_lines(folders)
    return "\n\n".join(str(part).strip() for part in parts) + "\n" if form == "markdown" else render(*parts)


def _parts(table: Comparison, names: dict[str, str], form: str) -> list[Table | str]:
    """A table and the lines below it."""
    first, best, groups = table.first, table.best, table.groups.head(_MOST_GROUPS)
    scores = [str(first.score), str(first.headline["score"])]
    ranked, mode = (scores[0], first.mode) if best else (scores[1], first.headline_mode)
    title = f"{first.task}, sorted by {ranked} ({'highest' if mode == 'max' else 'lowest'} first)"
    header = ["method", *(names[key] for key in table.keys), *scores, "per sample", "seeds", "training"]
    parameters = [f"={key}" for key in table.keys]
    rows, styles = [], []
    for row in groups.to_dict("records"):
        seeds = str(row["seeds"]) if row["states"] == "COMPLETED" else row["states"]
        means = [spell_spread(row["score_mean"], row["score_sd"]), _tested(row), spell_seconds(row["cost"])]
        rows.append(["model", *(spell(row[key]) for key in parameters), *means, seeds, spell_seconds(row["seconds"])])
        styles.append("bold")
    references = table.references
    if len(table.groups) + len(references) > _MOST_GROUPS:
        references = _worth_showing(references)
    for row in references.to_dict("records"):
        common = ["" if row[key] is None else spell(row[key]) for key in parameters]
        label = row["method"] if row["role"] == BASELINE else f"{row['method']} ({row['role']})"
        rows.append([label, *common, "", _tested(row), spell_seconds(row["cost"]), "", ""])
        styles.append("dim" if row["role"] == BASELINE else "")
    filled = [i for i, _ in enumerate(header) if any(row[i] for row in rows)]
    header, rows = [header[i] for i in filled], [[row[i] for i in filled] for row in rows]
    shown = f"**{title}**\n\n{markdown(header, rows)}" if form == "markdown" else grid(header, rows, styles, title)
    parts: list[Table | str] = [shown]
    if (table.groups["seeds"] == 1).any() and table.groups["test_se"].notna().any():
        parts.append("±       standard deviation over seeds; of one seed, standard error over the test samples")
    if best:
        parts.append(f"best    {short_path(best.path)}  {first.score} {spell(best.monitored)}")
    if hidden := len(table.groups) - len(groups) + len(table.references) - len(references):
        parts.append(f"{hidden} more rows with --csv")
    return parts


def _tested(row: Mapping[Hashable, Any]) -> str:
    """The mean ± standard deviation over seeds; with one seed the score ± its standard error."""
    return spell_spread(row["test_mean"], row["test_sd"] if row["seeds"] > 1 else row["test_se"])


def _worth_showing(references: pd.DataFrame) -> pd.DataFrame:
    """All references; of several sets of test data those that play a part."""
    return references if references["place"].nunique() < 2 else references[references["role"] != BASELINE]


def _unfinished(record: Record) -> str:
    reason = record.reason or ("no reason given" if record.config else "no readable config.yaml")
    reason = reason if len(reason) <= _REASON_LENGTH else f"{reason[: _REASON_LENGTH - 1]}…"
    return f"{record.state}  {short_path(record.path)}: {reason}"


def write_summary(sweep_dir: Path, last: bool = False) -> None:
    """Write ``summary.csv``, ``summary.png`` and ``parallel.png`` of a sweep; a failure is a warning, not an error.

    Processes that end at the same time may all call it: files are renamed into place, and one that finds that a run
    changed its state meanwhile writes again. Drawing takes a twentieth of a sweep's time at most.

    Args:
        sweep_dir: of the runs.
        last: draw in any case.
    """
    try:
        for _ in range(_ATTEMPTS):
            records = read_records([sweep_dir])
            if not records:
                return
            write_whole(sweep_dir / "summary.csv", as_csv(leaderboard_frame(records)).encode())
            if [record.status for record in read_records([sweep_dir])] == [record.status for record in records]:
                break
        started = time.monotonic()
        if last or started >= _draw_again_at.get(sweep_dir, 0):
            _draw(sweep_dir, records)
            _draw_again_at[sweep_dir] = time.monotonic() + 20 * (time.monotonic() - started)
    except Exception as error:  # the jobs of a sweep matter more than its summary
        log.warning("no summary of %s: %s: %s", sweep_dir, type(error).__name__, error)


def _draw(sweep_dir: Path, records: Sequence[Record]) -> None:
    try:
        from eai.core.compare.figure import sweep_figure
        from eai.core.compare.parallel import parallel_figure

        tables = comparisons(records)
        figures = {"summary.png": sweep_figure(tables)}
        if len(tables) == 1:
            figures["parallel.png"] = parallel_figure(tables[0])
        for name, figure in figures.items():
            if figure is not None:
                buffer = io.BytesIO()
                figure.savefig(buffer, format="png")
                write_whole(sweep_dir / name, buffer.getvalue())
    except Exception as error:  # likewise
        log.warning("no figures of %s: %s: %s", sweep_dir, type(error).__name__, error)
