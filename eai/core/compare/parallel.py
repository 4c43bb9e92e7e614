"""The jobs of a sweep as lines through its parameters and the score: parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eai.core.compare.keys import canonical
from eai.core.compare.record import number
from eai.core.compare.table import Comparison, column_names
from eai.core.compare.text import spell
from eai.core.palette import BLACK, new_figure

_DECADE, _LABELS, _FEWEST_JOBS = 9.999, 6, 3


def parallel_figure(table: Comparison) -> Figure | None:
    """A line for each job through its parameters to its monitored score; None if fewer than two parameters vary.

    The best job is dark and thick, the worst pale; jobs without a score, as pruned ones, are dashed and end before it.

    Args:
        table: of one task.
    """
    runs = table.runs
    known = runs["score"].notna().to_numpy()
    if len(table.keys) < 2 or known.sum() < _FEWEST_JOBS:
        return None
    names = column_names([table])
    records = list(runs["record"])
    figure = new_figure(max(6.4, 1.7 * (len(table.keys) + 1)), 4.6)
    axis = figure.subplots()
    heights = [_scale(axis, i, [r.parameter(key) for r in records]) for i, key in enumerate(table.keys)]
    scores = runs["score"].to_numpy(float)
    last = len(table.keys)
    ends = np.full(len(scores), np.nan)
    ends[known] = _scale(axis, last, scores[known].tolist())
    goodness = -scores if table.first.mode == "max" else scores
    order = [int(i) for i in np.argsort(np.where(known, -goodness, -np.inf), kind="stable")]  # the best on top
    colours = colormaps["viridis_r"]
    for place, i in enumerate(order):
        line = [column[i] for column in heights]
        if known[i]:
            rank = place / max(1, len(order) - 1)
            best = i == order[-1]
            axis.plot(range(last + 1), [*line, ends[i]], color=colours(rank), lw=2.6 if best else 1.0,
                      alpha=1.0 if best else 0.7, label="best job" if best else None, zorder=2 + rank)  # fmt: skip
        else:
            axis.plot(range(last), line, color="0.75", lw=0.9, ls="--", zorder=1)
    if not known.all():
        axis.plot([], [], color="0.75", ls="--", label="job without a score")
    labels = [*(names[key] for key in table.keys), str(table.first.score)]
    axis.set_xticks(range(last + 1), labels)
    axis.set(yticks=[], xlim=(-0.35, last + 0.55), ylim=(-0.06, 1.08))
    axis.spines[:].set_visible(False)
    axis.vlines(range(last + 1), 0, 1, color=BLACK, lw=0.8, zorder=3)
    better = "higher" if table.first.mode == "max" else "lower"
    title = (
        f"{table.first.task}: {known.sum()} of {len(runs)} jobs; {better} is better; the darker the line, the better"
    )
    axis.set_title(title, fontsize="medium")
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def _scale(axis: Axes, place: int, values: Sequence[Any]) -> list[float]:
    """Heights from 0 to 1, with labels at the axis: logarithmic over a decade or more, categories evenly spaced."""
    if all(number(value) is not None for value in values):
        numbers = np.array(values, float)
        log = numbers.min() > 0 and numbers.max() >= _DECADE * numbers.min()
        scaled = np.log10(numbers) if log else numbers
        low, high = float(scaled.min()), float(scaled.max())
        heights = (scaled - low) / (high - low) if high > low else np.full(len(scaled), 0.5)
        kinds = dict(zip(heights.tolist(), numbers.tolist(), strict=True))
        if len(kinds) > _LABELS:
            marks = np.linspace(low, high, _LABELS - 1)
            kinds = {float((m - low) / (high - low)): float(10**m if log else m) for m in marks}
        marked: dict[float, str] = {height: f"{value:.3g}" for height, value in kinds.items()}
    else:
        texts = {canonical(value): spell(value) for value in values}
        order = sorted(texts)
        step = {text: i / max(1, len(order) - 1) for i, text in enumerate(order)}
        heights = np.array([step[canonical(value)] for value in values])
        marked = {step[text]: texts[text] for text in order}
    for height, label in marked.items():
        axis.annotate(label, (place, height), xytext=(4, 2), textcoords="offset points", fontsize="x-small", zorder=9,
                      bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.6})  # fmt: skip
    return heights.tolist()
