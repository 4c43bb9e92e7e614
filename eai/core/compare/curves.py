"""Learning curves, as the lines of ``train.log`` tell them: of one run, and of the runs of a sweep in one figure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eai.core.compare.table import Comparison
from eai.core.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, legend_below, new_figure, plain_log

Curve = list[tuple[int, float]]  # epoch and value
_EPOCH = re.compile(r"^epoch\s+(\d+)/\d+  (.*)$")
_VALUE = re.compile(r"((?:train|val)/\S+) (\S+)")
# Curves read before, by log, with its time and size: a sweep reads only what is new.
_cache: dict[Path, tuple[tuple[int, int], dict[str, Curve]]] = {}


def read_log(run: Path) -> list[str]:
    """The lines of a run's ``train.log``; none where it cannot be read.

    Args:
        run: its directory.
    """
    try:
        return (run / "train.log").read_text(errors="replace").splitlines()
    except OSError:
        return []


def curves(log_lines: Sequence[str]) -> dict[str, Curve]:
    """Losses and scores by epoch.

    Args:
        log_lines: of ``train.log``.
    """
    found: dict[str, Curve] = {}
    for line in log_lines:
        if match := _EPOCH.match(line):
            for name, value in _VALUE.findall(match[2]):
                try:
                    found.setdefault(name, []).append((int(match[1]), float(value)))
                except ValueError:
                    continue
    return found


def curves_of(run: Path) -> dict[str, Curve]:
    """The curves of a run, read again only where its log has changed.

    Args:
        run: its directory.
    """
    log = run / "train.log"
    try:
        stamp = (log.stat().st_mtime_ns, log.stat().st_size)
    except OSError:
        return {}
    if log not in _cache or _cache[log][0] != stamp:
        _cache[log] = stamp, curves(read_log(run))
    return _cache[log][1]


def curves_figure(found: Mapping[str, Curve]) -> Figure:
    """Losses and scores of one run.

    Args:
        found: as :func:`curves` gives them.
    """
    figure = new_figure()
    axes = figure.subplots()
    axes.set(title="Losses and scores by epoch: how it went until it ended", xlabel="epoch")
    for (name, series), colour in zip(found.items(), (BLACK, ORANGE, BLUE, GREEN, PURPLE, RED), strict=False):
        axes.plot(*zip(*series, strict=True), "o-", ms=3, lw=1.2, color=colour, label=name)
    if all(value > 0 for series in found.values() for _, value in series):
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def overlaid_figure(table: Comparison) -> Figure | None:
    """The monitored score of all runs by epoch, the best run dark and thick; None where no run has a curve.

    Args:
        table: of one task.
    """
    runs = table.runs.sort_values("goodness", ascending=False, kind="stable", na_position="first")
    score = str(table.first.score)
    told = [
        (record, state, curves_of(record.path).get(score))
        for record, state in zip(runs["record"], runs["state"], strict=True)
    ]
    drawn = [(record, state, series) for record, state, series in told if series]
    if not drawn:
        return None
    figure = new_figure(7.4, 4.4)
    axes = figure.subplots()
    ranked = sum(state == "COMPLETED" for _, state, _ in drawn)
    place = 0
    labels: set[str] = set()
    for record, state, series in drawn:
        best = record is table.best
        done = state == "COMPLETED"
        colour = colormaps["viridis_r"](place / max(1, ranked - 1)) if done else RED if state == "FAILED" else "0.6"
        label = "best run" if best else "completed" if done else state
        axes.plot(*zip(*series, strict=True), color=colour, lw=2.6 if best else 1.0, ls="-" if done else "--",
                  marker="o" if len(series) == 1 else None, ms=3, zorder=4 if best else 2,
                  label=None if label in labels else label)  # fmt: skip
        labels.add(label)
        place += done
    values = np.array([value for _, _, series in drawn for _, value in series])
    if values.min() > 0 and values.max() > 10 * values.min():
        axes.set_yscale("log")
        plain_log(axes.yaxis)
    better = "higher" if table.first.mode == "max" else "lower"
    axes.set_title(
        f"{score} of {len(drawn)} runs by epoch ({better} is better); the darker, the better", fontsize="medium"
    )
    axes.set(xlabel="epoch", ylabel=score)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize="small")
    return figure
