"""Numbers, paths and tables as they are printed, and the scores of one run."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eai.core.compare.record import BASELINE, number
from eai.core.compare.records import read_record
from eai.core.directory import RunDirectory
from eai.core.style.numerals import spell_number

UNKNOWN = "–"


def spell(value: Any) -> str:
    """A cell of a table: numbers as :func:`~eai.core.style.numerals.spell_number` prints them, a dash for unknown."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    return spell_number(value) if isinstance(value, float) else str(value)


def spell_spread(mean: float | None, sd: float | None) -> str:
    """``mean ± sd`` to the second digit of the sd; no sd where it is unknown (None, NaN) or only rounding."""
    if mean is None or sd is None or not sd > 1e-6 * abs(mean):
        return spell(mean)
    decimals = max(0, 1 - math.floor(math.log10(float(f"{sd:.2g}"))))
    if decimals > 8 or abs(mean) >= 1e6:
        return f"{spell(mean)} ± {sd:.2g}"
    return f"{mean:.{decimals}f} ± {sd:.{decimals}f}"


def spell_seconds(seconds: float | None) -> str:
    """As ``12.3 µs``; empty where unknown."""
    if seconds is None or math.isnan(seconds):
        return ""
    unit, size = next(((u, s) for u, s in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)) if seconds >= s), ("ns", 1e-9))
    return f"{seconds / size:.3g} {unit}"


def short_path(path: Path) -> str:
    """Relative to the working directory, if below it; quoted where a shell needs it."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here)) if path.is_relative_to(here) else str(path))


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of texts."""
    body = [list(header), ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in body)


def grid(header: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = (), title: str = "") -> Table:
    """A table without vertical lines: numbers to the right, space after the rows in bold.

    Where the terminal is too narrow, cells are broken at their joints rather than within a number.

    Args:
        header: a name per column.
        rows: of texts.
        styles: rich's style of each row; by default none.
        title: above the table.
    """
    needed = sum(max(map(len, column)) for column in zip(header, *rows, strict=True)) + 3 * len(header)
    narrow = needed > _console().width
    if narrow:
        header, rows = _broken([header])[0], _broken(rows)
    table = Table(title=title or None, title_justify="left", title_style="", box=box.SIMPLE, collapse_padding=narrow)
    for i, name in enumerate(header):
        numeric = i > 0 and not any(row[i][:1] == "/" or row[i][:1].isalpha() for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    styles = styles or [""] * len(rows)
    for row, style, following in zip(rows, styles, [*styles[1:], *styles[-1:]], strict=True):
        table.add_row(*map(Text, row), style=style, end_section=style == "bold" != following)
    return table


def _broken(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Line breaks before an sd or a bracket, after a slash or a comma."""
    return [[re.sub(r" (?=[±(])|(?<=[/,]) ?", "\n", cell).replace("± ", "±") for cell in row] for row in rows]


def _console() -> Console:
    console = Console()
    return Console(width=max(console.width, 200) if not console.is_terminal else None, highlight=False)


def render(*parts: Table | str) -> str:
    """Tables and lines of text as they are printed: as wide as a terminal, or wide enough for a log file."""
    console = _console()
    with console.capture() as capture:
        for part in parts:
            console.print(part, markup=False) if isinstance(part, str) else console.print(part)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def summary_of_run(run: RunDirectory) -> str:
    """All methods of one run in its headline score, beside their cost and standard error, and where things are.

    Args:
        run: its directory, or that of an evaluation.
    """
    record = read_record(run)
    references, own = record.references, record.cost("model")
    methods = [("model", record.test_score, own), *references]
    roles = ["", *record.roles(references, own)]
    rows = [
        [name, spell_spread(number(score), record.error(name)), spell_seconds(cost), role if role != BASELINE else ""]
        for (name, score, cost), role in zip(methods, roles, strict=True)
    ]
    header = [f"{record.task}, test data", str(record.headline["score"]), "per sample", ""]
    table = grid(header, rows, ["bold", *[""] * len(references)])
    places = {"scores": run.metrics, "figures": run.figures, "report": run.report}
    tail = [f"{name:8} {shlex.quote(str(path))}" for name, path in places.items() if path.exists()]
    if run.tensorboard.is_dir():
        tail.append(f"watch    tensorboard --logdir {shlex.quote(str(run.path))}")
    return "\n" + render(table) + "\n".join(tail)
