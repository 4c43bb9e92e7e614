"""Figures of the assimilation task on a plane, as maps: pure functions from tensors to a Figure."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from torch import Tensor

from eai.core.palette import BLACK, PREDICTION, REFERENCE, TRUTH, new_figure
from eai.variational.batch import Batch
from eai.variational.geographic import GeographicGrid
from eai.variational.grid import Grid

STATES, DIFFERENCES = "viridis", "RdBu_r"


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def _frame(grid: Grid) -> tuple[tuple[float, float, float, float], str]:
    """Left, right, lower and upper edge of the cells, and the unit: degrees on the Earth."""
    if isinstance(grid, GeographicGrid):
        sides = [
            (float(axis[0]) - step / 2, float(axis[0]) + (len(axis) - 0.5) * step)
            for axis, step in zip((grid.latitude, grid.longitude), grid.step, strict=True)
        ]
        return (*sides[1], *sides[0]), "°"
    (h_y, h_x), (height, width) = grid.spacing, grid.extent
    down, left = (0.0 if not closed else h / 2 for closed, h in zip(grid.periodic, (h_y, h_x), strict=True))
    radians = all(abs(length - 2 * math.pi) < 1e-9 for length in grid.extent)
    return (-left, width - left, -down, height - down), "rad" if radians else "units of the extent"


def _map(axes: Axes, grid: Grid, field: Float[Tensor, " n"], colours: str, scale: Normalize) -> None:
    """A field in its place: each value fills the cell around its point."""
    (left, right, lower, upper), unit = _frame(grid)
    axes.imshow(
        _numpy(field.view(grid.shape)),
        origin="lower",
        extent=(left, right, lower, upper),
        cmap=colours,
        norm=scale,
        interpolation="nearest",
        aspect=grid.extent[0] / (upper - lower) * (right - left) / grid.extent[1],  # as long as they are
    )
    x, y = ("longitude", "latitude") if isinstance(grid, GeographicGrid) else ("x", "y")
    axes.set(xlabel=f"{x} ({unit})", xlim=(left, right), ylabel=f"{y} ({unit})", ylim=(lower, upper))
    axes.label_outer()


def _height(grid: Grid) -> float:
    """Inches that a map of the width of two, and what is written around it, need."""
    return 0.6 + 2.1 * min(1.5, grid.extent[0] / grid.extent[1])


def _places(grid: Grid, batch: Batch, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, y and values of the assimilated observations of a sample."""
    seen = batch.obs_mask[i] > 0
    if isinstance(grid, GeographicGrid):
        y, x = grid.degrees(batch.obs_index[i], batch.obs_fraction[i])
    else:
        y, x = grid.position(batch.obs_index[i], batch.obs_fraction[i]).unbind(-1)
    return _numpy(x[seen]), _numpy(y[seen]), _numpy(batch.y[i][seen])


def _symmetric(*fields: Tensor) -> Normalize:
    largest = max(float(field.abs().max()) for field in fields)
    return Normalize(-largest or -1.0, largest or 1.0)


def _bar(figure: Figure, panels: Iterable[Axes], colours: str, scale: Normalize, label: str) -> None:
    figure.colorbar(ScalarMappable(scale, colours), ax=list(panels), label=label, shrink=0.8, aspect=25)


def analyses(
    grid: Grid, batch: Batch, analysis: Float[Tensor, "b n"], optimum: Float[Tensor, "b n"], values: bool = True
) -> Figure:
    """Truth with observations, background, analysis, increment and distance from the BLUE of the first two samples.

    Args:
        grid: of the states.
        batch: backgrounds and observations.
        analysis: of the network.
        optimum: the BLUE.
        values: colour observations by their value, on the scale of the state; not where they observe a function of it.
    """
    rows = min(2, len(analysis))
    figure = new_figure(13.5, 0.8 + rows * _height(grid))
    figure.suptitle("Analysis: it should look like the truth, and the last column should be blank")
    panels = figure.subplots(rows, 5, squeeze=False, sharex=True, sharey=True)
    xb, xa, best = batch.xb[:rows], analysis[:rows], optimum[:rows]
    state = torch.stack([batch.xt[:rows].double(), xb.double(), xa.double()])
    states, differences = Normalize(float(state.min()), float(state.max())), _symmetric(xa - xb, best - xb)
    for i, row in enumerate(panels):
        for axes, field, title in zip(
            row, state[:, i], ("truth, observations", "background", "analysis"), strict=False
        ):
            _map(axes, grid, field, STATES, states)
            axes.set_title(f"sample {i}: {title}", fontsize="medium")
        for axes, field, title in zip(
            row[3:], (xa[i] - xb[i], xa[i] - best[i]), ("increment", "analysis − BLUE"), strict=True
        ):
            _map(axes, grid, field, DIFFERENCES, differences)
            axes.set_title(f"sample {i}: {title}", fontsize="medium")
        x, y, value = _places(grid, batch, i)
        coloured = {"c": value, "cmap": STATES, "norm": states} if values else {"c": "white"}
        row[0].scatter(x, y, s=9, edgecolors=BLACK, linewidths=0.5, **coloured)
        row[3].scatter(x, y, s=3, c=BLACK, linewidths=0)
    _bar(figure, panels[:, :3].flatten(), STATES, states, "state")
    _bar(figure, panels[:, 3:].flatten(), DIFFERENCES, differences, "difference (state)")
    return figure


def data_pairs(grid: Grid, batch: Batch) -> Figure:
    """Background and observations (the input of the network) of the first four samples, and their truth.

    Args:
        grid: of the states.
        batch: backgrounds and observations.
    """
    columns = min(4, len(batch.xb))
    figure = new_figure(2 + 2.7 * columns, 0.8 + 2 * _height(grid))
    figure.suptitle("Data: the network sees background and observations (dots); the truth is only for scoring")
    panels = figure.subplots(2, columns, squeeze=False, sharex=True, sharey=True)
    shown = torch.stack([batch.xb[:columns], batch.xt[:columns]])
    scale = Normalize(float(shown.min()), float(shown.max()))
    for i in range(columns):
        for axes, field, title in zip(panels[:, i], shown[:, i], ("background, observations", "truth"), strict=True):
            _map(axes, grid, field, STATES, scale)
            axes.set_title(f"sample {i}: {title}", fontsize="medium")
        x, y, _ = _places(grid, batch, i)
        panels[0, i].scatter(x, y, s=7, c="white", edgecolors=BLACK, linewidths=0.5)
    _bar(figure, panels.flatten(), STATES, scale, "state")
    return figure


def covariance(grid: Grid, column: Float[Tensor, " n"]) -> Figure:
    """The covariance with the point in the middle, as a map and along the axes through it.

    Args:
        grid: of the states.
        column: of B, for the point with half of the numbers along each axis.
    """
    figure = new_figure(10, 4)
    figure.suptitle("Background-error covariance: the wider it is, the further an observation reaches")
    left, right = figure.subplots(1, 2)
    scale = _symmetric(column)
    _map(left, grid, column, DIFFERENCES, scale)
    left.set_title("column of B for the middle point")
    _bar(figure, [left], DIFFERENCES, scale, "B_ij (state²)")
    box, (middle_y, middle_x) = _numpy(column.view(grid.shape)), (size // 2 for size in grid.shape)
    for values, h, middle, colour, style, name in (
        (box[middle_y], grid.spacing[1], middle_x, PREDICTION, "-", "along x"),
        (box[:, middle_x], grid.spacing[0], middle_y, REFERENCE, "--", "along y"),
    ):
        right.plot((np.arange(len(values)) - middle) * h, values, color=colour, ls=style, label=name)
    unit = " (km)" if isinstance(grid, GeographicGrid) else ""
    right.set(title="sections through it", xlabel=f"distance along the axis{unit}", ylabel="covariance (state²)")
    right.locator_params(axis="x", nbins=6)
    right.legend(fontsize="small")
    right.grid(alpha=0.3)
    return figure


def single_observation(grid: Grid, one: Batch, increment: Float[Tensor, "b n"], gain: Float[Tensor, "b n"]) -> Figure:
    """The increment of one observation above the column of K that it should be, per unit of its largest value.

    Args:
        grid: of the states.
        one: the samples with one observation each.
        increment: of the network.
        gain: the increment of the BLUE.
    """
    # Take the three samples with the largest increments, where their ratio is well defined.
    samples = gain.abs().amax(1).topk(min(3, len(gain))).indices.tolist()
    figure = new_figure(2 + 2.8 * len(samples), 5.8)
    figure.suptitle("Single-observation test: the network's increment (above) should be a column of the gain K (below)")
    panels, scale = figure.subplots(2, len(samples), squeeze=False, sharex=True, sharey=True), Normalize(-1, 1)
    for column, i in zip(panels.T, samples, strict=True):
        largest, (x, y, _) = gain[i].abs().max(), _places(grid, one, i)
        for axes, field, title in zip(column, (increment[i], gain[i]), ("network", "column of K"), strict=True):
            _map(axes, grid, field / largest, DIFFERENCES, scale)
            axes.plot(x, y, "+", color=TRUTH, ms=7)
            axes.set_title(f"sample {i}: {title}", fontsize="medium")
    _bar(figure, panels.flatten(), DIFFERENCES, scale, "increment (1 = largest of K's)")
    return figure
