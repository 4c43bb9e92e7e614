"""The colours of all figures, and a figure without global state."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

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
