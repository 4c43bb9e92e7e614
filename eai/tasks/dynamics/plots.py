"""Figures of forecasts: pure functions from tensors to a Figure or an animation. Rings as lines, grids as maps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from eai.core.learn.figures import Drawing, Film
from eai.core.palette import INPUT, PREDICTION, TRUTH, legend_below, new_figure
from eai.tasks.dynamics.data import Batch, Solved
from eai.tasks.dynamics.forecast import Forecast

POINTS = 2000  # of a line or map; longer ones are thinned
ALL_STEPS = 14  # those of slide 2.1; trajectories with more are shown at a few times only
STATE = "state u (dimensionless)"
FILM = "Free rollout: the network's own state should follow the truth, step by step"


def of_samples(batch: Batch, forecast: Forecast, shape: tuple[int, ...]) -> Mapping[str, Drawing]:
    """Draw single steps of the first sample, on a plane its rollout (during training and at the end)."""
    return {"one_step": one_step(batch, forecast)} if len(shape) == 1 else {"maps": maps(batch, forecast, shape)}


def of_rollout(batch: Batch, forecast: Forecast, data: Solved) -> Mapping[str, Drawing]:
    """Draw the free rollout of the first sample (at the end)."""
    if len(data.shape) == 2:
        return {"rollout": map_animation(batch, forecast, data.shape)}
    few = batch.u.shape[1] - 1 <= ALL_STEPS
    return {
        **({"all_steps": one_step(batch, forecast, ALL_STEPS)} if few else {}),
        "trajectory": trajectory(batch, data),
        "hovmoeller": hovmoeller(batch, forecast),
        "rollout": animation(batch, forecast),
    }


def one_step(batch: Batch, forecast: Forecast, rows: int = 4) -> Figure:
    """Input, truth and one-step prediction of the first sample, and prediction − truth on a fixed and on a close scale.

    Args:
        batch: trajectories.
        forecast: of them.
        rows: times to show at most, evenly spread.
    """
    u, predicted = _first_channel(batch.u), _first_channel(forecast.one_step)
    limit = _limit(batch)
    times = np.unique(np.linspace(0, len(predicted) - 1, rows).round().astype(int))
    figure = new_figure(10, 1 + 1.6 * len(times))
    figure.suptitle("One step ahead: the network (dashed) should lie on the truth, the difference on zero")
    panels = figure.subplots(len(times), 3, sharex=True, squeeze=False)
    for (state, fixed, close), t in zip(panels, times, strict=True):
        state.plot(u[t], color=INPUT, lw=1.2, label="input")
        state.plot(u[t + 1], color=TRUTH, lw=3, alpha=0.35, label="truth")
        state.plot(predicted[t], color=PREDICTION, lw=1.5, ls="--", label="network, one step")
        state.set(ylabel="u", ylim=(-limit, limit), title=f"from step {t} to {t + 1}")
        error = predicted[t] - u[t + 1]
        for axes in (fixed, close):
            axes.plot(error, color=PREDICTION, lw=1.2)
            axes.axhline(0, color=TRUTH, lw=0.8)
        size = np.sqrt(np.square(error).mean() / np.square(u[t + 1]).mean())
        fixed.set(ylim=(-1, 1), title="network − truth, from −1 to 1")
        # Differences span orders of magnitude from run to run: a scale of its own, stated by its ticks.
        close.set_title(f"the same, close up: nRMSE {size:.2g}")
        close.yaxis.set_major_formatter("{x:.1g}")
        for axes in (state, fixed, close):
            axes.grid(alpha=0.3)
    for axes in panels[-1]:
        axes.set_xlabel("grid point i")
    legend_below(figure)
    return figure


def trajectory(batch: Batch, data: Solved) -> Figure:
    """The first sample's true states over each other, coloured by time, and its static features if there are any."""
    u, static = _first_channel(batch.u), batch.static[0].cpu().numpy()
    x = _thin(data.x.numpy())
    figure = new_figure(7, 4 if not static.size else 5.5)
    panels = figure.subplots(1 + bool(static.size), 1, sharex=True, squeeze=False)[:, 0]
    colours = _colours_of_time(len(u))
    for state, colour in zip(u, colours, strict=True):
        panels[0].plot(x, state, color=colour, lw=1.2)
    panels[0].set(title=f"Truth at {len(u)} times: from dark (start) to light (end)", ylabel=STATE)
    if static.size:
        panels[1].plot(x, _thin(static[:, 0]), color=TRUTH)
        panels[1].set(title="Static feature of the nodes", ylabel="speed c (cells per step)")
    panels[-1].set_xlabel("position x (length units)")
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure


def hovmoeller(batch: Batch, forecast: Forecast) -> Figure:
    """Space–time diagrams of truth, free rollout and their difference, first sample."""
    truth, free = _first_channel(batch.u), _first_channel(forecast.rollout)
    free = np.concatenate([truth[:1], free])
    limit = _limit(batch)
    figure = new_figure(9.5, 4)
    figure.suptitle("Free rollout in space and time: stripes should keep the truth's slope and contrast")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    titles = ("truth", "network", "network − truth")
    for axes, title, field in zip(panels, titles, (truth, free, free - truth), strict=True):
        image = axes.imshow(field, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower", aspect="auto")
        axes.set(title=title, xlabel="grid point i")
    panels[0].set_ylabel("time (steps)")
    panels[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=panels, label=STATE, extend="both")
    return figure


def animation(batch: Batch, forecast: Forecast) -> Film:
    """Truth and free rollout of the first sample, one frame per step."""
    truth, free = _first_channel(batch.u), _first_channel(forecast.rollout)
    free = np.concatenate([truth[:1], free])
    limit = _limit(batch)
    figure = new_figure(7, 3.5)
    axes = figure.subplots()
    (true_line,) = axes.plot(truth[0], color=TRUTH, lw=3, alpha=0.35, label="truth")
    (free_line,) = axes.plot(free[0], color=PREDICTION, lw=1.5, ls="--", label="network")
    axes.set(xlabel="grid point i", ylabel=STATE, ylim=(-limit, limit))
    axes.grid(alpha=0.3)
    legend_below(figure)

    def draw(t: int) -> tuple[Artist, ...]:
        true_line.set_ydata(truth[t])
        free_line.set_ydata(free[t])
        return true_line, free_line, axes.set_title(f"Free rollout after {t} steps")

    return Film(FILM, figure, draw, _frames(len(truth)))


def maps(batch: Batch, forecast: Forecast, shape: tuple[int, ...]) -> Figure:
    """Truth, free rollout and their difference as maps, at up to four lead times of the first sample."""
    truth, free = (_first_maps(u, shape) for u in (batch.u[:, 1:], forecast.rollout))
    limit = _limit(batch)
    leads = np.unique(np.linspace(0, len(truth) - 1, 4).round().astype(int))
    figure = new_figure(9, 0.8 + 2.3 * len(leads))
    figure.suptitle("Free rollout: the middle should look like the left, the right should be blank")
    panels = figure.subplots(len(leads), 3, sharex=True, sharey=True, squeeze=False)
    for row, lead in zip(panels, leads, strict=True):
        for axes, title, field in zip(
            row,
            ("truth", "network", "network − truth"),
            (truth[lead], free[lead], free[lead] - truth[lead]),
            strict=True,
        ):
            image = axes.imshow(field, cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower")
            axes.set_title(f"{title}, lead {lead + 1}")
        row[0].set_ylabel("grid row")
    for axes in panels[-1]:
        axes.set_xlabel("grid column")
    figure.colorbar(image, ax=panels, label=STATE, extend="both")
    return figure


def map_animation(batch: Batch, forecast: Forecast, shape: tuple[int, ...]) -> Film:
    """Truth and free rollout of the first sample as maps, one frame per step."""
    truth = _first_maps(batch.u, shape)
    free = np.concatenate([truth[:1], _first_maps(forecast.rollout, shape)])
    limit = _limit(batch)
    figure = new_figure(8, 3.8)
    panels = figure.subplots(1, 2, sharey=True)
    images = []
    for axes, title, field in zip(panels, ("truth", "network"), (truth, free), strict=True):
        images.append(axes.imshow(field[0], cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower"))
        axes.set(title=title, xlabel="grid column")
    panels[0].set_ylabel("grid row")
    figure.colorbar(images[-1], ax=panels, label=STATE, extend="both")

    def draw(t: int) -> tuple[Artist, ...]:
        images[0].set_data(truth[t])
        images[1].set_data(free[t])
        return *images, figure.suptitle(f"Free rollout after {t} steps")

    return Film(FILM, figure, draw, _frames(len(truth)))


def _colours_of_time(count: int) -> np.ndarray:
    """Colours in the order of time, from dark to light."""
    return colormaps["viridis"](np.linspace(0, 0.9, count))


def _frames(states: int) -> range:
    return range(0, states, -(-states // 30))


def _limit(batch: Batch) -> float:
    """A scale that belongs to the truth, not to the forecast: 1.5 times the first input's largest value, in halves."""
    return float(np.ceil(3 * batch.u[0, 0].abs().max().item()) / 2) or 0.5


def _thin(values: np.ndarray) -> np.ndarray:
    return values[:: -(-len(values) // POINTS)]


def _first_channel(u: Float[Tensor, "b t n c"]) -> np.ndarray:
    """(t, n) of the first sample and channel, thinned."""
    states = torch.nan_to_num(u[0, :, :, 0].detach()).cpu().numpy()
    return states[:, :: -(-states.shape[1] // POINTS)]


def _first_maps(u: Float[Tensor, "b t n c"], shape: tuple[int, ...]) -> np.ndarray:
    """(t, ny, nx) of the first sample and channel, thinned."""
    fields = torch.nan_to_num(u[0, :, :, 0].detach()).cpu().numpy().reshape(-1, *shape)
    return fields[:, :: -(-shape[0] // 500), :: -(-shape[1] // 500)]
