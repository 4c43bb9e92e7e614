"""The colours of all figures, and a figure without global state."""

from __future__ import annotations

import math

from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

# Okabe and Ito's palette, safe for colour-blind readers; one meaning per colour in all figures.
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = [
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
]
TRUTH, PREDICTION, INPUT, REFERENCE = BLACK, RED, BLUE, GREEN


def new_figure(width: float = 7.0, height: float = 4.0) -> Figure:
    """A figure with its own Agg canvas: no pyplot, no global state."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=100)
    FigureCanvasAgg(figure)
    return figure


def plain_log(axis: Axis) -> None:
    """Label a logarithmic axis with plain numbers, 0.2 and not 2 × 10⁻¹, if it spans less than three decades.

    Call it once all is drawn.

    Args:
        axis: logarithmic.
    """
    low, high = sorted(axis.get_view_interval())
    if high >= 1000 * low:
        return
    if high >= 8 * low:  # else matplotlib chooses as for a linear axis
        axis.set_minor_locator(LogLocator(subs=(2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter("{x:g}")


def legend_below(figure: Figure, title: str | None = None) -> None:
    """One legend below all axes, in as many columns as fit; the figure grows by its rows, so the axes keep their size.

    Args:
        figure: whose axes have labelled lines; a label that several axes have stands there once.
        title: of the legend.
    """
    labelled = {
        label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    width, height = figure.get_size_inches()
    longest = max(map(len, labelled), default=1)
    columns = max(
        1, min(len(labelled), int(width / (0.075 * longest + 0.55)))
    )  # inches of a letter, of a line's sample
    rows = math.ceil(len(labelled) / columns) + (title is not None)
    figure.set_size_inches(width, height + 0.19 * rows + 0.1)
    figure.legend(
        labelled.values(), labelled.keys(), loc="outside lower center", ncols=columns, fontsize="small", title=title
    )
