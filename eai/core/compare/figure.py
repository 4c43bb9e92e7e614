"""The monitored score against each parameter of a sweep, one point per job."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from statistics import median
from textwrap import fill
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from eai.core.compare.grouping import Comparison, canonical, goodness
from eai.core.compare.records import Record, number
from eai.core.compare.references import OPTIMUM, RIVAL, references
from eai.core.compare.tables import spell
from eai.core.palette import BLACK, GREEN, ORANGE, PURPLE, RED, SKY, new_figure

_FEW, _BINS, _DECADE = 12, 8, 9.999
_COLUMNS = 3


def sweep_figure(tables: Sequence[Comparison]) -> Figure | None:
    """One panel for each parameter with several values, for each task; None if nothing varies or nothing is known.

    A job is a point, a failed job a cross at the edge where scores are worst, the line joins the medians over all
    jobs of equal value (of bins, where values are many). The seed has a panel only if nothing else varies.
    """
    tables = [table for table in tables if _ranked(table)]
    panels: list[tuple[Comparison, str]] = []
    for table in tables:
        panels += [(table, key) for key in table.keys or ["seed"] * (len(table.records) > 1)]
    if not panels:
        return None
    columns = min(_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    width = max(6.4, 4.3 * columns)
    turned = any(_turned(_categories(table, key)) for table, key in panels)
    figure = new_figure(width, (4.5 if turned else 3.3) * rows + 0.8)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for (table, key), axis in zip(panels, axes, strict=False):
        _draw_panel(axis, table, key)
        axis.set_title(str(table.task) if len(tables) > 1 else "")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    title = "\n".join(fill(_headline(table), int(14 * width)) for table in tables)
    figure.suptitle(title, fontsize="medium")
    handles = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=max(2, columns), fontsize="small")
    return figure


def _score(table: Comparison, record: Record) -> float | None:
    """The monitored score; in runs of before it was kept, the headline score."""
    return record.monitored if _monitored(table) else record.tested


def _monitored(table: Comparison) -> bool:
    return any(record.monitored is not None for record in table.records)


def _score_name(table: Comparison) -> tuple[str, str]:
    """The name of what is drawn, and whether its ``min`` or ``max`` is best."""
    return (str(table.score), table.mode) if _monitored(table) else (str(table.headline["score"]), table.test_mode)


def _headline(table: Comparison) -> str:
    name, mode = _score_name(table)
    (best, value), *others = _ranked(table)
    better = "higher" if mode == "max" else "lower"
    jobs = f"{1 + len(others)} of {len(table.records)} jobs"
    text = f"{table.task}: {name} of {jobs} ({better} is better); best {spell(value)}"
    where = ", ".join(f"{_short(key)} {spell(best.parameter(key))}" for key in table.keys[:4])
    return f"{text} at {where}" if where else text


def _ranked(table: Comparison) -> list[tuple[Record, float]]:
    """The jobs with a score, the best first."""
    mode = _score_name(table)[1]
    scored = [(record, y) for record in table.records if (y := _score(table, record)) is not None]
    return sorted(scored, key=lambda pair: goodness(pair[1], mode))


def _short(key: str) -> str:
    return key.removesuffix("._target_").rpartition(".")[2]


def _draw_panel(axis: Axes, table: Comparison, key: str) -> None:
    name, mode = _score_name(table)
    categories = _categories(table, key)
    place = _numeric_axis(axis, table, key) if categories is None else _category_axis(axis, table, key, categories)
    ranked = _ranked(table)
    points = sorted((place(record), y) for record, y in ranked)
    ys = [y for _, y in points]
    # Spread many jobs of one category a little, to tell them apart.
    spread = 0.3 if categories and len(points) > 5 * len(categories) else 0.0
    xs = [place(record) + spread * (0.618 * i % 1 - 0.5) for i, (record, _) in enumerate(ranked)]
    size = 22 if len(points) < 60 else 10
    axis.scatter(xs, [y for _, y in ranked], s=size, color=ORANGE, alpha=0.7, lw=0, label="job", zorder=3)
    axis.scatter(xs[0], ranked[0][1], s=90, facecolors="none", edgecolors=PURPLE, lw=1.6, label="best job", zorder=4)
    if key == "seed":
        axis.axhline(median(ys), color=BLACK, lw=1.2, label="median")
    else:
        medians, label = _medians(points, categories is None)
        line: dict[str, Any] = (
            {"ls": "-", "ms": 9, "zorder": 2} if categories is None else {"ls": "", "ms": 24, "zorder": 5}
        )
        axis.plot(*zip(*medians, strict=True), color=BLACK, lw=1.2, marker="_", label=label, **line)
    _scale_scores(axis, ys)
    _draw_references(axis, table, name)
    failed = [place(record) for record in table.records if record.state == "FAILED"]
    if failed:
        edge = 0.03 if mode == "max" else 0.97
        axis.scatter(failed, [edge] * len(failed), marker="x", s=30, color=RED, label="FAILED job", zorder=4,
                     transform=axis.get_xaxis_transform())  # fmt: skip
    axis.set(xlabel=key, ylabel=name)
    axis.grid(alpha=0.3)


def _value(record: Record, key: str) -> Any:
    return record.config.get("seed") if key == "seed" else record.parameter(key)


def _categories(table: Comparison, key: str) -> list[Any] | None:
    """The values of a parameter that is no number, and of the seed; None for a number."""
    values = {canonical(x): x for x in (_value(record, key) for record in table.records)}
    if key != "seed" and all(number(x) is not None for x in values.values()):
        return None
    return [x for _, x in sorted(values.items(), key=lambda item: (number(item[1]) or 0, item[0]))]


def _turned(categories: list[Any] | None) -> bool:
    return sum(len(spell(x)) for x in categories or ()) > 30


def _category_axis(axis: Axes, table: Comparison, key: str, categories: list[Any]) -> Callable[[Record], float]:
    places = {canonical(x): float(i) for i, x in enumerate(categories)}
    turned = _turned(categories)
    axis.set_xticks(range(len(categories)), [spell(x) for x in categories])
    axis.tick_params(axis="x", rotation=25 if turned else 0)
    for label in axis.get_xticklabels():
        label.set_horizontalalignment("right" if turned else "center")
    axis.set_xlim(-0.5, len(categories) - 0.5)
    return lambda record: places[canonical(_value(record, key))]


def _numeric_axis(axis: Axes, table: Comparison, key: str) -> Callable[[Record], float]:
    numbers = sorted({float(_value(record, key)) for record in table.records})
    if numbers[0] > 0 and numbers[-1] >= _DECADE * numbers[0]:
        axis.set_xscale("log")
    if len(numbers) <= 6 and _far_apart(numbers, axis.get_xscale() == "log"):
        axis.set_xticks(numbers, [f"{x:g}" for x in numbers])
        axis.xaxis.set_minor_locator(NullLocator())
    return lambda record: float(_value(record, key))


def _far_apart(numbers: Sequence[float], logarithmic: bool) -> bool:
    """Whether there is room for a label at each number: an eighth of the axis at least."""
    places = [math.log(x) for x in numbers] if logarithmic else list(numbers)
    return all(8 * (b - a) >= places[-1] - places[0] for a, b in pairwise(places))


def _medians(points: Sequence[tuple[float, float]], numeric: bool) -> tuple[list[tuple[float, float]], str]:
    """Medians at equal values; of equally full bins where a number has many values."""
    at = [(x, [y for _, y in same]) for x, same in groupby(points, key=lambda point: point[0])]
    if len(at) <= _FEW or not numeric:
        return [(x, median(ys)) for x, ys in at], "median"
    edges = [round(i * len(points) / _BINS) for i in range(_BINS + 1)]
    bins = [points[a:b] for a, b in pairwise(edges) if b > a]
    return [(median(x for x, _ in part), median(y for _, y in part)) for part in bins], "median (bins of equal count)"


def _scale_scores(axis: Axes, ys: Sequence[float]) -> None:
    if min(ys) > 0 and max(ys) > 10 * min(ys):
        axis.set_yscale("log")
    else:
        axis.ticklabel_format(axis="y", useOffset=False)
    axis.margins(y=0.12)


def _draw_references(axis: Axes, table: Comparison, name: str) -> None:
    """The baseline to beat and the optimum, if they are known in the same score and have one value."""
    headline = str(table.headline["score"])
    if name.partition("/")[2] != headline.partition("/")[2]:
        return
    rows = references(table)
    for role, colour, line in ((RIVAL, SKY, "--"), (OPTIMUM, GREEN, "-.")):
        values = [row for row in rows if row.role == role and row.score.mean is not None]
        if len(values) != 1:
            continue
        value = values[0].score.mean or 0.0
        label = f"{values[0].name}, {'baseline' if role == RIVAL else role} on test data"
        low, high = _reach(axis)
        if low <= value <= high:
            axis.axhline(value, color=colour, ls=line, lw=1.2, label=label)
        else:
            axis.plot([], [], color=colour, ls=line, label=f"{label}: {value:.4g}, off scale")


def _reach(axis: Axes) -> tuple[float, float]:
    """The range in which a reference is drawn: the points' own extent, once more on either side."""
    low, high = axis.get_ylim()
    if axis.get_yscale() == "log":
        return low * low / high, high * high / low
    return low - (high - low), high + (high - low)
