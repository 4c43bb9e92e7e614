"""The leaderboard of a task's runs as texts: on a terminal, as Markdown, in a page."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from rich.table import Table

from eai.core.compare.importance import importance_lines
from eai.core.compare.record import BASELINE, Record
from eai.core.compare.records import read_records
from eai.core.compare.table import Comparison, column_names, comparisons
from eai.core.compare.text import grid, markdown, render, short_path, spell, spell_seconds, spell_spread

NETWORK = "network"
_REASON_LENGTH, _MOST_GROUPS = 160, 30


@dataclass(frozen=True)
class Board:
    """A table of texts.

    Attributes:
        title: what is ranked by what.
        header: a name per column; the first is the method's.
        rows: the groups of runs, the best first, then the reference methods.
        roles: of each row: ``network``, or what a reference method is (see ``record.py``).
        notes: lines to stand below.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    roles: list[str]
    notes: list[str]


def board(table: Comparison, names: Mapping[str, str]) -> Board:
    """The leaderboard of one task; of very many rows the best.

    Args:
        table: of its runs.
        names: of the columns of parameters, by key.
    """
    first, best, groups = table.first, table.best, table.groups.head(_MOST_GROUPS)
    scores = [str(first.score), str(first.headline["score"])]
    ranked, mode = (scores[0], first.mode) if best else (scores[1], first.headline_mode)
    header = ["method", *(names[key] for key in table.keys), *scores, "per sample", "seeds", "training"]
    parameters = [f"={key}" for key in table.keys]
    rows, roles = [], []
    for row in groups.to_dict("records"):
        seeds = str(row["seeds"]) if row["states"] == "COMPLETED" else row["states"]
        means = [spell_spread(row["score_mean"], row["score_sd"]), _tested(row), spell_seconds(row["cost"])]
        rows.append(["model", *(spell(row[key]) for key in parameters), *means, seeds, spell_seconds(row["seconds"])])
        roles.append(NETWORK)
    references = table.references
    if len(table.groups) + len(references) > _MOST_GROUPS:
        references = _worth_showing(references)
    for row in references.to_dict("records"):
        common = ["" if row[key] is None else spell(row[key]) for key in parameters]
        label = row["method"] if row["role"] == BASELINE else f"{row['method']} ({row['role']})"
        rows.append([label, *common, "", _tested(row), spell_seconds(row["cost"]), "", ""])
        roles.append(row["role"])
    filled = [i for i, _ in enumerate(header) if any(row[i] for row in rows)]
    notes = []
    if (table.groups["seeds"] == 1).any() and table.groups["test_se"].notna().any():
        notes.append("±       standard deviation over seeds; of one seed, standard error over the test samples")
    if best:
        notes.append(f"best    {short_path(best.path)}  {first.score} {spell(best.monitored)}")
    if hidden := len(table.groups) - len(groups) + len(table.references) - len(references):
        notes.append(f"{hidden} more rows with --csv")
    return Board(
        f"{first.task}, sorted by {ranked} ({'highest' if mode == 'max' else 'lowest'} first)",
        [header[i] for i in filled],
        [[row[i] for i in filled] for row in rows],
        roles,
        notes,
    )


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
        shown = board(table, names)
        parts += [_drawn(shown, form), *shown.notes]
        parts += [unfinished(record) for record in table.runs["record"] if failures and record.reason]
    parts += [unfinished(record) for record in records if failures and not record.config]
    parts += importance_lines(folders)
    return "\n\n".join(str(part).strip() for part in parts) + "\n" if form == "markdown" else render(*parts)


def _drawn(shown: Board, form: str) -> Table | str:
    if form == "markdown":
        return f"**{shown.title}**\n\n{markdown(shown.header, shown.rows)}"
    styles = ["bold" if role == NETWORK else "dim" if role == BASELINE else "" for role in shown.roles]
    return grid(shown.header, shown.rows, styles, shown.title)


def _tested(row: Mapping[Hashable, Any]) -> str:
    """The mean ± standard deviation over seeds; with one seed the score ± its standard error."""
    return spell_spread(row["test_mean"], row["test_sd"] if row["seeds"] > 1 else row["test_se"])


def _worth_showing(references: pd.DataFrame) -> pd.DataFrame:
    """All references; of several sets of test data those that play a part."""
    return references if references["place"].nunique() < 2 else references[references["role"] != BASELINE]


def unfinished(record: Record) -> str:
    """A line that says why a run did not complete.

    Args:
        record: of the run.
    """
    reason = record.reason or ("no reason given" if record.config else "no readable config.yaml")
    reason = reason if len(reason) <= _REASON_LENGTH else f"{reason[: _REASON_LENGTH - 1]}…"
    return f"{record.state}  {short_path(record.path)}: {reason}"
