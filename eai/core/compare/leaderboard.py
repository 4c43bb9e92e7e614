"""The leaderboard: runs grouped over seeds, ranked by the monitored score, the baselines below them."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from eai.core.compare.grouping import Comparison, Group, comparisons, short_names
from eai.core.compare.records import Record, read_records
from eai.core.compare.references import BASELINE, Reference, references
from eai.core.compare.tables import as_csv, as_markdown, grid, render, short_path, spell, spell_spread
from eai.core.directory import write_whole

log = logging.getLogger("eai")

_BEFORE = ("task", "role", "method")
_AFTER = ("score", "score_mean", "score_sd", "test", "test_mean", "test_sd", "seeds", "seconds", "parameters", "states",
          "reason", "run")  # fmt: skip
_REASON_LENGTH = 160
_ATTEMPTS = 3
_draw_again_at = 0.0  # of this process's clock
_MOST_GROUPS = 30


def columns_of(tables: Sequence[Comparison]) -> tuple[str, ...]:
    """The columns of the flat form: what tells the groups apart stands between the method and its scores."""
    return (*_BEFORE, *dict.fromkeys(_names(tables).values()), *_AFTER)


def flat_rows(records: Sequence[Record]) -> tuple[tuple[str, ...], list[dict[str, Any]]]:
    """Columns and rows of the CSV and JSON forms: one row per group and per reference method, numbers as numbers.

    ``score`` and ``test`` name the scores; ``run`` is the best run of the group; ``seeds`` counts completed runs.
    """
    tables = comparisons(records)
    columns, names, rows = columns_of(tables), _names(tables), []
    empty: dict[str, Any] = dict.fromkeys(columns)
    for table in tables:
        rows += [empty | _group_row(table, group, names) for group in table.groups]
        rows += [empty | _reference_row(table, reference, names) for reference in references(table)]
    for record in records:
        if not record.config:
            rows.append(empty | {"task": record.task, "role": "model", "method": "model", "seeds": 0,
                                 "states": record.state, "reason": record.reason, "run": str(record.path)})  # fmt: skip
    return columns, rows


def _names(tables: Sequence[Comparison]) -> dict[str, str]:
    keys = dict.fromkeys(key for table in tables for key in table.keys)
    return short_names(keys, [table.task for table in tables], {*_BEFORE, *_AFTER, "seed"})


def _group_row(table: Comparison, group: Group, names: dict[str, str]) -> dict[str, Any]:
    score, test = group.monitored, group.tested
    best = group.best or group.records[0]
    reasons = [record.reason for record in group.records if record.reason]
    return {
        **{names[key]: group.parameter(key) for key in table.keys},
        "task": table.task, "role": "model", "method": "model",
        "score": table.score, "score_mean": score.mean, "score_sd": score.sd,
        "test": table.headline["score"], "test_mean": test.mean, "test_sd": test.sd,
        "seeds": len(group.scored), "seconds": group.mean_of("train_seconds"),
        "parameters": group.mean_of("parameters"), "states": group.states,
        "reason": reasons[0] if reasons else None, "run": str(best.path),
    }  # fmt: skip


def _reference_row(table: Comparison, reference: Reference, names: dict[str, str]) -> dict[str, Any]:
    return {
        **{names[key]: value for key, value in reference.parameters.items()},
        "task": table.task, "role": reference.role, "method": reference.name,
        "test": table.headline["score"], "test_mean": reference.score.mean, "test_sd": reference.score.sd,
        "seeds": reference.score.n,
    }  # fmt: skip


def leaderboard(folders: Sequence[str | Path], markdown: bool = False, failures: bool = True) -> str:
    """One table per task, the best group first, with the best run's directory and, with ``failures``, the failed
    runs below.

    It has the best groups only where there are very many (CSV and JSON have all).

    Raises:
        ConfigError: a folder does not exist.
    """
    records = read_records(folders)
    tables = comparisons(records)
    names = _names(tables)
    pieces: list[Table | str] = []
    for table in tables:
        header, rows, styles, note = _cells(table, names)
        title = f"{table.task}, {_order(table)}"
        if markdown:
            pieces.append(f"**{title}**\n\n{as_markdown(rows, header)}")
        else:
            pieces.append(grid(title, header, rows, styles))
        pieces += note
        pieces += [
            _unfinished(record) for record in table.records if failures and record.state in ("FAILED", "UNREADABLE")
        ]
    pieces += [_unfinished(record) for record in records if failures and not record.config]
    return "\n\n".join(str(piece).strip() for piece in pieces) + "\n" if markdown else render(*pieces)


def _order(table: Comparison) -> str:
    known = any(group.monitored.n for group in table.groups)
    name, mode = (table.score, table.mode) if known else (table.headline["score"], table.test_mode)
    return f"sorted by {name} ({'highest' if mode == 'max' else 'lowest'} first)"


def _unfinished(record: Record) -> str:
    reason = record.reason or ("no reason given" if record.config else "no readable config.yaml")
    reason = reason if len(reason) <= _REASON_LENGTH else f"{reason[: _REASON_LENGTH - 1]}…"
    return f"{record.state}  {short_path(record.path)}: {reason}"


def _cells(table: Comparison, names: dict[str, str]) -> tuple[list[str], list[list[str]], list[str], list[str]]:
    """Header, rows and styles of a printed table, and the lines below it."""
    header = ["method", *(names[key] for key in table.keys), str(table.score), str(table.headline["score"]), "seeds",
              "seconds"]  # fmt: skip
    rows, styles = [], []
    for group in table.groups[:_MOST_GROUPS]:
        score, test = group.monitored, group.tested
        parameters = [spell(group.parameter(key)) for key in table.keys]
        seeds = str(len(group.scored)) if group.states == "COMPLETED" else group.states
        rows.append(["model", *parameters, spell_spread(score.mean, score.sd), spell_spread(test.mean, test.sd), seeds,
                     spell(group.mean_of("train_seconds"))])  # fmt: skip
        styles.append("bold")
    every = references(table)
    room = len(table.groups) + len(every) <= _MOST_GROUPS
    shown = every if room else _worth_showing(every)
    for one in shown:
        values = [one.parameters.get(key) for key in table.keys]
        cells = [f"{one.name} ({one.role})", *("" if value is None else spell(value) for value in values), "",
                 spell_spread(one.score.mean, one.score.sd), "", ""]  # fmt: skip
        rows.append(cells)
        styles.append("" if one.role != BASELINE else "dim")
    best = table.groups[0].best
    note = [f"best    {short_path(best.path)}  {table.score} {spell(best.monitored)}"] if best else []
    hidden = len(table.groups[_MOST_GROUPS:]) + len(every) - len(shown)
    if hidden:
        note.append(f"{hidden} more rows with --csv")
    return header, rows, styles, note


def _worth_showing(rows: Sequence[Reference]) -> list[Reference]:
    """All references; of several sets of test data the one to beat, the optimum and the best other one of each."""
    if len({row.place for row in rows}) < 2:
        return list(rows)
    others: dict[int, Reference] = {}
    for row in rows:
        if row.role == BASELINE:
            others.setdefault(row.place, row)
    return [row for row in rows if row.role != BASELINE or row is others[row.place]]


def write_summary(sweep_dir: Path, last: bool = False) -> None:
    """Write ``summary.csv`` and ``summary.png`` of the runs below ``sweep_dir``; a failure is a warning, not an error.

    Processes that end at the same time may all call it: files are renamed into place, and one that finds that a run
    changed its state meanwhile writes again. Drawing takes a twentieth of a sweep's time at most.

    Args:
        sweep_dir: of the runs.
        last: draw in any case.
    """
    global _draw_again_at
    try:
        for _ in range(_ATTEMPTS):
            records = read_records([sweep_dir])
            if not records:
                return
            columns, rows = flat_rows(records)
            write_whole(sweep_dir / "summary.csv", as_csv(rows, columns).encode())
            if [record.status for record in read_records([sweep_dir])] == [record.status for record in records]:
                break
        if last or time.monotonic() >= _draw_again_at:
            started = time.monotonic()
            _draw(sweep_dir / "summary.png", records)
            _draw_again_at = time.monotonic() + 20 * (time.monotonic() - started)
    except Exception as error:  # the jobs of a sweep matter more than its summary
        log.warning("no summary of %s: %s: %s", sweep_dir, type(error).__name__, error)


def _draw(path: Path, records: Sequence[Record]) -> None:
    try:
        from eai.core.compare.figure import sweep_figure

        figure = sweep_figure(comparisons(records))
        if figure is not None:
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png")
            write_whole(path, buffer.getvalue())
    except Exception as error:  # likewise
        log.warning("no figure %s: %s: %s", path, type(error).__name__, error)
