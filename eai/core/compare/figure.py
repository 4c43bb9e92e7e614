"""The monitored score against each parameter of a sweep, one point per job."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from eai.core.compare.keys import canonical
from eai.core.compare.record import OPTIMUM, RIVAL, Record, number
from eai.core.compare.table import Comparison
from eai.core.compare.text import spell
from eai.core.palette import BLACK, GREEN, ORANGE, PURPLE, RED, SKY, new_figure
from eai.core.style.wording import in_words

_FEW, _BINS, _DECADE = 12, 8, 9.999
_COLUMNS = 3


def sweep_figure(tables: Sequence[Comparison]) -> Figure | None:
    """One panel for each parameter with several values, for each task; None if nothing varies or nothing is known.

    A job is a point, a failed job a cross at the edge where scores are worst, the line joins the medians over all
    jobs of equal value (of bins, where values are many). The seed has a panel only if nothing else varies.
    """
    tables = [table for table in tables if table.runs[list(_score(table)[:1])].notna().any(axis=None)]
    panels: list[tuple[Comparison, str]] = []
    for table in tables:
        panels += [(table, key) for key in table.keys or ["seed"] * (len(table.runs) > 1)]
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width = max(6.4, 4.3 * columns)
    figure = new_figure(width, 3.6 * rows + 0.8)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for (table, key), axis in zip(panels, axes, strict=False):
        _draw_panel(axis, table, key)
        axis.set_title(str(table.first.task) if len(tables) > 1 else "")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    figure.suptitle("\n".join(fill(_headline(table), int(14 * width)) for table in tables), fontsize="medium")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=max(2, columns), fontsize="small")
    return figure


def _score(table: Comparison) -> tuple[str, str, str]:
    """Column, name and direction of what is drawn: the monitored score; where none is known, the headline score."""
    first = table.first
    if table.best:
        return "score", str(first.score), first.mode
    return "test", str(first.headline["score"]), first.headline_mode


def _headline(table: Comparison) -> str:
    column, name, mode = _score(table)
    known = table.runs.dropna(subset=column).sort_values(column, ascending=mode == "min", kind="stable")
    best: Record = known["record"].iloc[0]
    text = (
        f"{table.first.task}: {name} of {len(known)} of {len(table.runs)} jobs "
        f"({'higher' if mode == 'max' else 'lower'} is better); best {spell(known[column].iloc[0])}"
    )
    where = ", ".join(f"{_short(key)} {spell(best.parameter(key))}" for key in table.keys[:4])
    return f"{text} at {where}" if where else text


def _short(key: str) -> str:
    return key.removesuffix("._target_").rpartition(".")[2]


def _draw_panel(axis: Axes, table: Comparison, key: str) -> None:
    column, name, mode = _score(table)
    values = [record.config.get("seed") if key == "seed" else record.parameter(key) for record in table.runs["record"]]
    numeric = key != "seed" and all(number(value) is not None for value in values)
    place = _numeric_axis(axis, values) if numeric else _category_axis(axis, values)
    jobs = pd.DataFrame({"x": place, "y": table.runs[column].to_numpy(), "state": table.runs["state"].to_numpy()})
    known = jobs.dropna(subset="y").sort_values("y", ascending=mode == "min", kind="stable")
    # Spread many jobs of one category a little, to tell them apart.
    crowded = not numeric and len(known) > 5 * known["x"].nunique()
    x = known["x"] + [0.3 * (0.618 * i % 1 - 0.5) if crowded else 0.0 for i in range(len(known))]
    size = 22 if len(known) < 60 else 10
    axis.scatter(x, known["y"], s=size, color=ORANGE, alpha=0.7, lw=0, label="job", zorder=3)
    axis.scatter(x.iloc[:1], known["y"].iloc[:1], s=90, facecolors="none", edgecolors=PURPLE, lw=1.6, label="best job",
                 zorder=4)  # fmt: skip
    if key == "seed":
        axis.axhline(known["y"].median(), color=BLACK, lw=1.2, label="median")
    else:
        many = numeric and known["x"].nunique() > _FEW
        by = pd.qcut(known["x"].rank(method="first"), _BINS) if many else known["x"]
        medians = known.groupby(by, observed=True)[["x", "y"]].median()
        label, line = ("median (bins of equal count)" if many else "median"), ("-" if numeric else "")
        axis.plot(medians["x"], medians["y"], color=BLACK, lw=1.2, ls=line, marker="_", ms=12, label=label, zorder=5)
    if known["y"].min() > 0 and known["y"].max() > 10 * known["y"].min():
        axis.set_yscale("log")
    axis.margins(y=0.12)
    _draw_references(axis, table, name)
    failed = jobs.loc[jobs["state"] == "FAILED", "x"]
    if len(failed):
        edge = 0.03 if mode == "max" else 0.97
        axis.scatter(failed, [edge] * len(failed), marker="x", s=30, color=RED, label="FAILED job", zorder=4,
                     transform=axis.get_xaxis_transform())  # fmt: skip
    axis.set(xlabel=key, ylabel=name)
    axis.grid(alpha=0.3)


def _category_axis(axis: Axes, values: Sequence[Any]) -> list[float]:
    """The place of each value, with a label for each kind."""
    kinds = {canonical(value): value for value in values}
    order = sorted(kinds, key=lambda text: (number(kinds[text]) or 0, text))
    labels = [spell(kinds[text]) for text in order]
    axis.set_xticks(range(len(order)), labels)
    if sum(map(len, labels)) > 30:
        axis.set_xticks(range(len(order)), labels, rotation=25, ha="right")
    axis.set_xlim(-0.5, len(order) - 0.5)
    return [float(order.index(canonical(value))) for value in values]


def _numeric_axis(axis: Axes, values: Sequence[Any]) -> list[float]:
    numbers = sorted({float(value) for value in values})
    if numbers[0] > 0 and numbers[-1] >= _DECADE * numbers[0]:
        axis.set_xscale("log")
    if len(numbers) <= 6:
        axis.set_xticks(numbers, [f"{x:g}" for x in numbers])
        axis.xaxis.set_minor_locator(NullLocator())
    return [float(value) for value in values]


def _draw_references(axis: Axes, table: Comparison, name: str) -> None:
    """The baseline to beat and the optimum, if they are known in the same score and have one value."""
    if name.partition("/")[2] != str(table.first.headline["score"]).partition("/")[2]:
        return
    for role, colour, line in ((RIVAL, SKY, "--"), (OPTIMUM, GREEN, "-.")):
        rows = table.references[table.references["role"] == role]
        if len(rows) != 1:
            continue
        value, label = rows["test_mean"].iloc[0], f"{in_words(rows['method'].iloc[0])}, {role.split()[0]} on test data"
        low, high = _reach(axis)
        if low <= value <= high:
            axis.axhline(value, color=colour, ls=line, lw=1.2, label=label)
        else:
            axis.plot([], [], color=colour, ls=line, label=f"{label}: {spell(float(value))}, off scale")


def _reach(axis: Axes) -> tuple[float, float]:
    """The range in which a reference is drawn: the points' own extent, once more on either side."""
    low, high = axis.get_ylim()
    if axis.get_yscale() == "log":
        return low * low / high, high * high / low
    return low - (high - low), high + (high - low)
