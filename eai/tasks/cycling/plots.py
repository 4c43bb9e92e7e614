"""Figures of the cycling task: pure functions from tensors to a Figure."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from eai.core.learn.figures import Film
from eai.core.palette import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PREDICTION,
    PURPLE,
    SKY,
    TRUTH,
    YELLOW,
    legend_below,
    new_figure,
    plain_log,
)
from eai.core.style.wording import in_words
from eai.tasks.cycling.cycle import STRIDE, Estimate
from eai.tasks.cycling.data import Batch

SHOWN = 150  # analyses in the Hovmöller diagrams
_COLOURS = (SKY, ORANGE, BLUE, GREEN, PURPLE, BLACK, YELLOW, "#999999")


def _numpy(values: Tensor) -> np.ndarray:
    return values.detach().cpu().numpy()


def hovmoeller(batch: Batch, estimate: Estimate, spin_up: int) -> Figure:
    """Truth, analysis and error of the first cycle, against place and time."""
    steps = estimate.analysis.shape[1]
    first = min(spin_up, max(0, steps - SHOWN))
    part = slice(first, min(steps, first + SHOWN))
    truth, analysis = _numpy(batch.truth[0, part]), _numpy(estimate.analysis[0, part])
    figure = new_figure(10, 5)
    figure.suptitle("One cycle: the error (right, on its own scale) should have no pattern that lasts")
    panels = figure.subplots(1, 3, sharey=True)
    most = float(np.abs(truth).max())
    error = analysis - truth
    scale = max(float(np.quantile(np.abs(error), 0.99)), 1e-6)
    for axes, (title, field, limit) in zip(
        panels, (("truth", truth, most), ("analysis", analysis, most), ("analysis − truth", error, scale)), strict=True
    ):
        extent = (-0.5, field.shape[1] - 0.5, part.stop - 0.5, part.start - 0.5)
        image = axes.imshow(
            field, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, extent=extent, interpolation="nearest"
        )
        axes.set(title=title, xlabel="grid point")
        figure.colorbar(image, ax=axes, location="bottom", shrink=0.9, label="state", extend="both")
    panels[0].set_ylabel("analysis number")
    return figure


def error_in_time(batch: Batch, estimates: Mapping[str, Estimate], spin_up: int) -> Figure:
    """RMSE of the analyses against time, mean over cycles."""
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    for (name, estimate), colour in zip(estimates.items(), _colours(estimates), strict=True):
        error = _error(estimate.analysis, batch.truth[:, : estimate.analysis.shape[1]]).mean(0)
        width = 2.0 if name == "network" else 1.1
        axes.plot(_numpy(error), color=colour, lw=width, label=in_words(name))
    if spin_up:
        axes.axvspan(0, spin_up, color="#eeeeee", lw=0, label="spin-up, not scored")
    axes.set(title="Error of the analyses: the network should stay as low as the ensembles", xlabel="analysis number",
             ylabel=f"RMSE, mean of {len(batch.y)} cycles", yscale="log")  # fmt: skip
    plain_log(axes.yaxis)
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def error_by_lead(batch: Batch, estimates: Mapping[str, Estimate], spin_up: int) -> Figure:
    """RMSE of forecasts from the analyses, against lead; lead 0 is the analysis."""
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    for (name, estimate), colour in zip(estimates.items(), _colours(estimates), strict=True):
        steps = estimate.analysis.shape[1]
        starts = torch.arange(0, steps, STRIDE, device=batch.truth.device)
        errors = []
        for lead in range(estimate.forecast.shape[2] + 1):
            valid = (starts >= spin_up) & (starts + lead < batch.truth.shape[1])
            if not valid.any():
                break
            made = estimate.analysis[:, starts[valid]] if lead == 0 else estimate.forecast[:, valid, lead - 1]
            errors.append(_error(made, batch.truth[:, starts[valid] + lead]).mean().item())
        width = 2.0 if name == "network" else 1.1
        axes.plot(errors, color=colour, lw=width, marker="o", ms=3, label=in_words(name))
    axes.set(title="Error of forecasts from the analyses: a better analysis gives a better forecast",
             xlabel="lead (intervals)", ylabel=f"RMSE, mean of {len(batch.y)} cycles", yscale="log")  # fmt: skip
    plain_log(axes.yaxis)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def error_against_cost(
    batch: Batch, estimates: Mapping[str, Estimate], seconds: Mapping[str, float], spin_up: int
) -> Figure:
    """RMSE of the analyses against seconds per analysis of one cycle."""
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    costs = [seconds[name] for name in estimates if name in seconds]
    dear = np.sqrt(min(costs, default=1.0) * max(costs, default=1.0))  # right of the middle, text stands left
    for (name, estimate), colour in zip(estimates.items(), _colours(estimates), strict=True):
        error = _error(estimate.analysis, batch.truth[:, : estimate.analysis.shape[1]])[:, spin_up:].mean().item()
        if name in seconds:
            axes.scatter(seconds[name], error, color=colour, s=60 if name == "network" else 30, zorder=3)
            left = seconds[name] > dear
            axes.annotate(in_words(name), (seconds[name], error), (-8 if left else 8, -3), textcoords="offset points",
                          ha="right" if left else "left", fontsize="small")  # fmt: skip
    axes.set(title="Cost and error of an analysis: best is at the lower left",
             xlabel="seconds per analysis, all test cycles at once", ylabel="RMSE of the analyses", xscale="log",
             yscale="log")  # fmt: skip
    axes.margins(x=0.1)
    plain_log(axes.yaxis)
    axes.grid(alpha=0.3)
    return figure


def innovations(departures: Float[Tensor, "b t p"], mask: Float[Tensor, "b t p"], most: int = 20) -> Figure:
    """Histogram and autocorrelation in time of d/σ; observations in the same slot are taken for the same place.

    Args:
        departures: d/σ.
        mask: 1 where an observation takes part.
        most: lags.
    """
    figure = new_figure(10, 4)
    figure.suptitle("Innovations of the network: normal and without memory, if the analyses take all there is")
    left, right = figure.subplots(1, 2)
    values = _numpy(departures[mask > 0])
    spread = float(values.std()) if len(values) else 1.0
    bins = np.linspace(-4 * max(spread, 1e-6), 4 * max(spread, 1e-6), 61)
    left.hist(values, bins, density=True, color=PREDICTION, alpha=0.6, label="network")
    left.plot(bins, np.exp(-((bins / spread) ** 2) / 2) / spread / np.sqrt(2 * np.pi), color=TRUTH, lw=1.2,
              label=f"normal, standard deviation {spread:.3g}")  # fmt: skip
    left.set(xlabel="innovation d / its assumed σ", ylabel="density")
    steps = departures.shape[1]
    lags = range(1, min(most, steps - 1) + 1)
    product = [
        (departures[:, lag:] * departures[:, : steps - lag]).sum() / (mask[:, lag:] * mask[:, : steps - lag]).sum()
        for lag in lags
    ]
    square = departures.square().sum() / mask.sum()
    right.axhline(0, color=TRUTH, lw=0.8)
    right.bar(list(lags), [(one / square).item() for one in product], color=PREDICTION)
    right.set(xlabel="lag (intervals)", ylabel="autocorrelation", xticks=list(lags)[::2])
    most_seen = max(0.05, max(abs(one / square).item() for one in product))
    right.set_ylim(-1.1 * most_seen, 1.1 * most_seen)
    right.grid(alpha=0.3)
    legend_below(figure)
    return figure


def animation(batch: Batch, estimate: Estimate, spin_up: int, frames: int = 40) -> Film:
    """Truth, background, observations and analysis of the first cycle from one analysis to the next."""
    steps = estimate.analysis.shape[1]
    first = min(spin_up, max(0, steps - frames))
    number = min(frames, steps - first)
    figure = new_figure(7, 3.6)
    axes = figure.subplots()
    caption = "A cycle of the network: the analysis (red) should lie nearer to the truth than the background (blue)"
    shown = batch.truth[0, first : first + number]
    margin = 0.15 * float(shown.max() - shown.min())
    axes.set(xlabel="grid point", ylabel="state", ylim=(float(shown.min()) - margin, float(shown.max()) + margin),
             xlim=(-0.5, shown.shape[1] - 0.5))  # fmt: skip
    points = np.arange(shown.shape[1])
    (truth,) = axes.plot(points, points * np.nan, color=TRUTH, lw=2.5, alpha=0.4, label="truth")
    (background,) = axes.plot(points, points * np.nan, color=BLUE, lw=1.2, label="background")
    (analysis,) = axes.plot(points, points * np.nan, color=PREDICTION, lw=1.4, label="analysis")
    (observed,) = axes.plot([], [], "x", color=BLACK, ms=5, label="observations")
    legend_below(figure)

    def draw(frame: int) -> list[Artist]:
        time = first + frame
        truth.set_ydata(_numpy(batch.truth[0, time]))
        background.set_ydata(_numpy(estimate.background[0, time]))
        analysis.set_ydata(_numpy(estimate.analysis[0, time]))
        used = batch.obs_mask[0, time] > 0
        place = batch.obs_index[0, time] + batch.obs_fraction[0, time, :, 0]
        observed.set_data(_numpy(place[used]), _numpy(batch.y[0, time][used]))
        axes.set_title(f"A cycle of the network: analysis {time}")
        return [truth, background, analysis, observed]

    return Film(caption, figure, draw, range(number))


def _error(estimate: Float[Tensor, "b t n"], truth: Float[Tensor, "b t n"]) -> Float[Tensor, "b t"]:
    return (estimate - truth).square().mean(2).sqrt()


def _colours(estimates: Mapping[str, Estimate]) -> list[str]:
    others = iter(_COLOURS * 3)
    return [PREDICTION if name == "network" else next(others) for name in estimates]
