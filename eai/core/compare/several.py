"""The report of several runs, as of a sweep: one HTML file that needs no network.

Free of torch and lightning: it is written after every job of a sweep.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from eai.core.compare.curves import overlaid_figure
from eai.core.compare.figure import sweep_figure
from eai.core.compare.importance import importances
from eai.core.compare.keys import short_names
from eai.core.compare.leaderboard import board
from eai.core.compare.page import image, page, png
from eai.core.compare.parallel import parallel_figure
from eai.core.compare.record import Record
from eai.core.compare.records import read_records
from eai.core.compare.report import run_figures
from eai.core.compare.sentences import headline_sentences
from eai.core.compare.table import Comparison, column_names, comparisons
from eai.core.compare.text import UNKNOWN, spell
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json, write_whole
from eai.core.style.wording import in_words

# The figures of several runs, and what to see in each.
FIGURES = {
    "summary.png": "The score against each parameter that differs; look for a trend that is larger than the scatter.",
    "parallel.png": "Each line is a run; where dark lines meet on an axis, that value matters.",
    "curves.png": "Training; a curve that still falls at its end deserves more epochs.",
}


def figures_of(tables: Sequence[Comparison]) -> dict[str, Figure]:
    """The figures of several runs by name of file; those in which there would be nothing to see are left out.

    Args:
        tables: one for each task; parallel coordinates and learning curves need a single one.
    """
    one = tables[0] if len(tables) == 1 else None
    found = {
        "summary.png": sweep_figure(tables),
        "parallel.png": parallel_figure(one) if one else None,
        "curves.png": overlaid_figure(one) if one else None,
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def write_page(folders: Sequence[str | Path], file: Path) -> None:
    """Write the report of all runs at or below the folders.

    Args:
        folders: to look in.
        file: to write; what it held is replaced.

    Raises:
        ConfigError: a folder is none, or holds no run; the file cannot be written.
    """
    records = read_records(folders)
    if not records:
        raise ConfigError(f"runs: no run found below {', '.join(map(str, folders))}")
    tables = comparisons(records)
    drawn = {name: png(figure) for name, figure in figures_of(tables).items()}
    shares: dict[str, dict[str, float]] = {}
    for folder in folders:
        shares |= importances(Path(folder))
    title = ", ".join(Path(folder).resolve().name for folder in folders)
    content = several_page(title, records, tables, drawn, shares, file.resolve().parent)
    try:
        write_whole(file, content)
    except OSError as error:
        raise ConfigError(f"--html: cannot write {file}: {error.strerror}") from error


def several_page(
    title: str,
    records: Sequence[Record],
    tables: Sequence[Comparison],
    drawn: Mapping[str, bytes],
    shares: Mapping[str, Mapping[str, float]],
    here: Path,
) -> bytes:
    """The page.

    Args:
        title: of the page.
        records: of all runs.
        tables: of those that have a configuration.
        drawn: contents of the figures by name of file.
        shares: how much each parameter matters, for each objective of a search.
        here: the folder in which the page will lie, for links to the runs.
    """
    names = column_names(tables)
    counts = Counter(record.state for record in records)
    return page(
        "several.html",
        title=title,
        states=", ".join(f"{n} {state}" for state, n in counts.most_common()),
        command=_command(here),
        tasks=[_task(table, names, here) for table in tables],
        figures=[image(_name(file), drawn[file], caption) for file, caption in FIGURES.items() if file in drawn],
        shares=_shares(shares),
        others=[_other(record, here) for record in records if record.state not in ("COMPLETED", "RUNNING")],
    )


def _task(table: Comparison, names: Mapping[str, str], here: Path) -> dict[str, Any]:
    """A task's leaderboard, and its best run."""
    best, shown = table.best, board(table, names)
    told: dict[str, Any] = {"board": shown, "best": None}
    if best:
        where = ", ".join(f"{names[key]} {spell(best.parameter(key))}" for key in table.keys)
        run = RunDirectory(best.path)
        told["best"] = {
            "name": best.path.name,
            "link": _link(best, here),
            "where": where,
            "score": in_words(str(best.score)),
            "value": spell(best.monitored),
            "sentences": headline_sentences(best),
            "command": None if best.typed is None else shlex.join(["eai-train", *best.typed]),
            "figures": run_figures(run, kinds=(".png",)),
        }
    return told


def _link(record: Record, here: Path) -> str:
    """A run's own report, relative to the page; its directory where it has none."""
    run = RunDirectory(record.path)
    return os.path.relpath(run.report if run.report.is_file() else run.path, here)


def _other(record: Record, here: Path) -> dict[str, str]:
    why = record.reason or record.status.get("pruned") or UNKNOWN
    return {"name": record.path.name, "link": _link(record, here), "state": record.state, "reason": str(why)}


def _shares(found: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    keys = dict.fromkeys(key for shares in found.values() for key in shares)
    names = short_names(keys, [], set())
    return [
        {"objective": objective, "rows": [(names[key], f"{100 * share:.0f}") for key, share in shares.items()]}
        for objective, shares in found.items()
    ]


def _name(file: str) -> str:
    return {"summary.png": "Score by parameter", "parallel.png": "Parallel coordinates"}.get(file, "Learning curves")


def _command(folder: Path) -> str | None:
    """What was typed to start the sweep in a folder; None where the folder is no sweep's."""
    try:
        typed = read_json(folder / "sweep.json").get("overrides")
    except ConfigError:
        return None
    return shlex.join(["eai-train", "-m", *map(str, typed)]) if isinstance(typed, list) and typed else None
