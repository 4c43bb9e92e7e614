"""Rows as a table on a terminal, as CSV, JSON or Markdown."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eai.core.directory import finite_or_none

UNKNOWN = "–"


def spell(value: Any) -> str:
    """A cell of a table: four digits, a dash for what is unknown."""
    if value is None:
        return UNKNOWN
    if not isinstance(value, float):
        return str(value)
    # A ratio close to one keeps the digits by which it differs.
    return f"{value:.6g}" if 0 < abs(value - 1) < 0.01 else f"{value:.4g}"


def spell_spread(mean: float | None, sd: float | None) -> str:
    """``mean ± sd`` to the second digit of the sd; no sd where it is unknown or only rounding."""
    if mean is None or sd is None or sd <= 1e-6 * abs(mean):
        return spell(mean)
    decimals = max(0, 1 - math.floor(math.log10(sd)))
    if decimals > 6 or abs(mean) >= 1e6:
        return f"{mean:.4g} ± {sd:.2g}"
    return f"{mean:.{decimals}f} ± {sd:.{decimals}f}"


def short_path(path: Path) -> str:
    """Relative to the working directory, if below it; quoted where a shell needs it."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here)) if path.is_relative_to(here) else str(path))


def as_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    plain = [finite_or_none(row) for row in rows]
    return json.dumps(plain, indent=2, allow_nan=False, default=str) + "\n"


def as_markdown(rows: Sequence[Sequence[str]], columns: Sequence[str]) -> str:
    """A Markdown table of texts."""
    body = [list(columns), ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in body)


def grid(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str]) -> Table:
    """A table without vertical lines: texts to the left, numbers to the right, space after the rows in bold.

    Where a terminal is too narrow, cells are broken at their joints rather than within a number.
    """
    needed = sum(max(map(len, column)) for column in zip(header, *rows, strict=True)) + 3 * len(header)
    narrow = needed > _console().width
    if narrow:
        header, rows = _broken([header])[0], _broken(rows)
    table = Table(title=title, title_justify="left", title_style="", box=box.SIMPLE, collapse_padding=narrow)
    for i, name in enumerate(header):
        table.add_column(name, justify="right" if i else "left", overflow="fold")
    for row, style, following in zip(rows, styles, [*styles[1:], styles[-1]], strict=True):
        table.add_row(*map(Text, row), style=style, end_section=style == "bold" != following)
    return table


def _broken(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Line breaks before an sd or a bracket, after a slash or a comma."""
    return [[re.sub(r" (?=[±(])|(?<=[/,]) ?", "\n", cell).replace("± ", "±") for cell in row] for row in rows]


def _console() -> Console:
    console = Console()
    return Console(width=max(console.width, 140) if not console.is_terminal else None, highlight=False)


def render(*tables: Table | str) -> str:
    """Tables and lines of text as they are printed: for a terminal of its own width, otherwise wide.

    A log file keeps whole cells.
    """
    console = _console()
    with console.capture() as capture:
        for table in tables:
            console.print(table, markup=False) if isinstance(table, str) else console.print(table)
    return capture.get()
