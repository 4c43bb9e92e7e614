"""Figures of the assimilation task: pure functions from tensors to a Figure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from eai.core.palette import INPUT, PREDICTION, REFERENCE, TRUTH, legend_below, new_figure, plain_log
from eai.variational.batch import Batch


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def analyses(
    batch: Batch, analysis: Float[Tensor, "b n"], blue: Float[Tensor, "b n"], spread: Float[Tensor, "b n"]
) -> Figure:
    """Truth, background, observations, analysis and BLUE ± 1 σ of the first four samples."""
    figure = new_figure(10, 7)
    figure.suptitle(
        "Analysis: the network's (red) should lie on the exact one (dashed); the truth lies within its spread"
    )
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flat
    n = batch.xb.shape[1]
    angle = np.arange(n) * 2 * math.pi / n
    for i, axes in enumerate(panels):
        if i >= len(analysis):
            axes.set_axis_off()
            continue
        best, sigma = _numpy(blue[i]), _numpy(spread[i])
        axes.fill_between(
            angle, best - sigma, best + sigma, color=REFERENCE, alpha=0.25, lw=0, label="exact analysis ± 1 σ"
        )
        axes.plot(angle, _numpy(batch.xt[i]), color=TRUTH, lw=2, alpha=0.5, label="truth")
        axes.plot(angle, _numpy(batch.xb[i]), color=INPUT, lw=1.5, label="background")
        axes.plot(angle, _numpy(analysis[i]), color=PREDICTION, lw=1.8, label="network")
        axes.plot(angle, best, color=REFERENCE, lw=1.5, ls="--", label="exact analysis (BLUE)")
        _plot_observations(axes, batch, i)
        axes.set(title=f"sample {i}", xlabel="position (rad)", ylabel="state")
        axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def data_pairs(batch: Batch) -> Figure:
    """Background and observations (the input of the network) of the first four samples, and their truth."""
    figure = new_figure(10, 6)
    figure.suptitle("Data: the network sees background (blue) and observations; the truth (grey) is only for scoring")
    angle = np.arange(batch.xb.shape[1]) * 2 * math.pi / batch.xb.shape[1]
    for i, axes in enumerate(figure.subplots(2, 2, sharex=True, sharey=True).flat):
        if i >= len(batch.xb):
            axes.set_axis_off()
            continue
        axes.plot(angle, _numpy(batch.xt[i]), color=TRUTH, lw=2, alpha=0.5, label="truth")
        axes.plot(angle, _numpy(batch.xb[i]), color=INPUT, lw=1.5, label="background")
        _plot_observations(axes, batch, i)
        axes.set(title=f"sample {i}", xlabel="position (rad)", ylabel="state")
        axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def _plot_observations(axes: Axes, batch: Batch, i: int) -> None:
    for mask, fill, label in (
        (batch.obs_mask, "white", "observations"),
        (batch.obs_withheld, TRUTH, "withheld to verify"),
    ):
        seen = _numpy(mask[i]) > 0
        where = (
            (_numpy(batch.obs_index[i]) + _numpy(batch.obs_fraction[i, :, 0]))[seen] * 2 * math.pi / batch.xb.shape[1]
        )
        if seen.any():
            axes.plot(where, _numpy(batch.y[i])[seen], "o", color=TRUTH, ms=4, mfc=fill, label=label)


def covariance(matrix: Float[Tensor, "n n"]) -> Figure:
    """The background-error covariance B and its middle column."""
    figure = new_figure(10, 4)
    figure.suptitle("Background-error covariance: the wider it is, the further an observation reaches")
    left, right = figure.subplots(1, 2)
    largest = float(matrix.abs().max())
    image = left.imshow(_numpy(matrix), cmap="RdBu_r", vmin=-largest, vmax=largest)
    left.set(title="B", xlabel="grid point j", ylabel="grid point i")
    figure.colorbar(image, ax=left, label="B_ij (state²)")
    middle = len(matrix) // 2
    right.plot(_numpy(matrix[:, middle]), color=TRUTH)
    right.set(title=f"its column {middle}", xlabel="grid point i", ylabel="covariance (state²)")
    right.grid(alpha=0.3)
    return figure


def single_observation(one: Batch, increment: Float[Tensor, "b n"], gain: Float[Tensor, "b n"]) -> Figure:
    """The increment of one observation beside the column of K that it should be, per unit of innovation."""
    figure = new_figure(10, 4)
    figure.suptitle("Single-observation test: the network's increment (red) should be a column of the gain K")
    n = one.xb.shape[1]
    angle = np.arange(n) * 2 * math.pi / n
    # Take the three samples with the largest increments, where their ratio is well defined.
    samples = gain.abs().amax(1).topk(min(3, len(gain))).indices
    for axes, i in zip(
        figure.subplots(1, len(samples), sharey=True, squeeze=False).flat, samples.tolist(), strict=True
    ):
        slot = int(one.obs_mask[i].argmax())
        where = float(one.obs_index[i, slot] + one.obs_fraction[i, slot, 0]) * 2 * math.pi / n
        scale = float(gain[i].abs().max())
        axes.plot(angle, _numpy(gain[i]) / scale, color=REFERENCE, ls="--", label="column of K")
        axes.plot(angle, _numpy(increment[i]) / scale, color=PREDICTION, label="network")
        axes.axvline(where, color=TRUTH, lw=0.8, label="observation")
        axes.set(xlabel="position (rad)", ylabel="increment / largest of K's")
        axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def departures(o_b: Float[Tensor, " k"], o_a: Float[Tensor, " k"]) -> Figure:
    """Histograms of O−B and O−A."""
    figure = new_figure(7, 4)
    axes = figure.subplots()
    widest = float(o_b.abs().quantile(0.995)) if len(o_b) else 1.0
    bins = torch.linspace(-widest, widest, 81).tolist()
    for values, colour, name in ((o_b, INPUT, "O−B"), (o_a, PREDICTION, "O−A")):
        label = f"{name}: mean {float(values.mean()):.3g}, standard deviation {float(values.std()):.3g}"
        axes.hist(_numpy(values), bins=bins, histtype="step", color=colour, lw=1.5, density=True, label=label)
    axes.set_yscale("log")
    axes.set_title("Departures: O−A, of the analysis, should be narrower than O−B, but not zero", fontsize="medium")
    axes.set(
        xlabel="departure (units of the observations)",
        ylabel="probability density",
    )
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def cost_by_number(points: Sequence[tuple[int, float]], n: int) -> Figure:
    """J/J* of the network against the number of observations it was given.

    Args:
        points: (number, J/J*).
        n: grid points.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    axes.semilogy(*zip(*points, strict=True), "o-", color=PREDICTION, label="network")
    if points[-1][0] > 10 * len(points):  # numbers that were not tried one by one
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.axhline(1, color=REFERENCE, ls="--", label="optimum")
    axes.set(
        title="Cost over its minimum by number of observations: best is 1",
        xlabel=f"assimilated observations per sample, of {n:,} grid points",
        ylabel="J/J* (1)",
    )
    plain_log(axes.yaxis)
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure
