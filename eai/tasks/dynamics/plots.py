"""Figures of the dynamics task: pure functions from tensors to a Figure or an animation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.animation import FuncAnimation
from matplotlib.artist import Artist
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from eai.core.figures import BLACK, INPUT, PREDICTION, REFERENCE, SKY, TRUTH, new_figure
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.forecast import Forecast
from eai.tasks.dynamics.graphs import Graph, chords

LIMIT = 1.5  # of states of amplitude 1, in all figures: the scale does not follow the forecast


def one_step(batch: Batch, forecast: Forecast) -> Figure:
    """Input, truth and one-step prediction, and prediction − truth, at up to four times of the first sample."""
    u, predicted = _first_channel(batch.u), _first_channel(forecast.one_step)
    times = np.unique(np.linspace(0, len(predicted) - 1, 4).round().astype(int))
    figure = new_figure(10, 1 + 2 * len(times))
    figure.suptitle("One step ahead: the prediction should lie on the truth, the difference on zero")
    panels = figure.subplots(len(times), 2, sharex=True, squeeze=False)
    for (left, right), t in zip(panels, times, strict=True):
        left.plot(u[t], color=INPUT, lw=1.2, label="input")
        left.plot(u[t + 1], color=TRUTH, lw=3, alpha=0.35, label="truth")
        left.plot(predicted[t], color=PREDICTION, lw=1.5, ls="--", label="prediction")
        left.set(title=f"step {t} → {t + 1}", ylabel="state u", ylim=(-LIMIT, LIMIT))
        right.plot(predicted[t] - u[t + 1], color=PREDICTION, lw=1.5)
        right.axhline(0, color=BLACK, lw=0.8)
        right.set(title="prediction − truth", ylabel="error of u", ylim=(-1, 1))
        for axes in (left, right):
            axes.grid(alpha=0.3)
    for axes in panels[-1]:
        axes.set_xlabel("grid point i")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return figure


def waves(x: Float[Tensor, " n"], u: Float[Tensor, "t n"]) -> Figure:
    """All states of a trajectory over each other, coloured by time."""
    figure = new_figure()
    axes = figure.subplots()
    lines = LineCollection(
        [np.column_stack([x.numpy(), state.numpy()]) for state in u], array=np.arange(len(u)), cmap="viridis"
    )
    axes.add_collection(lines)
    axes.autoscale()
    axes.set(title="The wave moves by the same distance in every step", xlabel="position x (length units)")
    axes.set_ylabel("state u (dimensionless)")
    axes.grid(alpha=0.3)
    figure.colorbar(lines, ax=axes, label="time step")
    return figure


def distances(graph: Graph) -> Figure:
    """Chords between all pairs of nodes."""
    figure = new_figure(5.6, 4.6)
    axes = figure.subplots()
    image = axes.imshow(chords(graph.positions).numpy(), cmap="viridis", vmin=0, vmax=2)
    axes.set(title="Distance on the circle: first and last are close", xlabel="node j", ylabel="node i")
    figure.colorbar(image, ax=axes, label="chord (radii of the circle)")
    return figure


def adjacency(graph: Graph) -> Figure:
    """The adjacency matrix, self-loops included."""
    joined = np.zeros((len(graph.positions),) * 2)
    joined[tuple(graph.edge_index.numpy())] = 1
    figure = new_figure(5.2, 4.8)
    axes = figure.subplots()
    axes.imshow(joined, cmap="Greys", vmin=0, vmax=1)
    axes.set(title=f"Adjacency: {int(joined.sum())} edges, each within {graph.reach} cells")
    axes.set(xlabel="node j", ylabel="node i")
    return figure


def circle(graph: Graph) -> Figure:
    """The nodes on the unit circle with the edges between them."""
    points = graph.positions.numpy()
    figure = new_figure(5.6, 5.6)
    axes = figure.subplots()
    axes.add_collection(LineCollection(points[graph.edge_index.T.numpy()], colors=SKY, lw=1, zorder=1))
    axes.plot(points[:, 0], points[:, 1], "o", color=BLACK, ms=6, zorder=2)
    for i, point in enumerate(points):
        if i % max(1, len(points) // 25) == 0:
            axes.annotate(str(i), 1.1 * point, ha="center", va="center", fontsize="small")
    axes.set(title="Nodes and edges: messages travel along the blue lines", aspect="equal")
    axes.set(xlabel="sin of the angle (1)", ylabel="cos of the angle (1)", xlim=(-1.25, 1.25), ylim=(-1.25, 1.25))
    return figure


def nrmse_by_lead(curves: Mapping[str, Float[Tensor, " l"]]) -> Figure:
    """nRMSE of free rollouts against lead time: ``network``, ``persistence`` and ``upwind``."""
    colours = {"network": PREDICTION, "persistence": INPUT, "upwind": REFERENCE}
    figure = new_figure()
    axes = figure.subplots()
    for name, values in curves.items():
        # The scale is fixed: a rollout that leaves it is told by its last value.
        label = f"{name}, {values[-1]:.2g} at the end"
        axes.plot(np.arange(1, len(values) + 1), values.cpu(), "o-", ms=4, color=colours[name], label=label)
    axes.axhline(1, color=BLACK, ls=":", label="climatology")
    axes.set(title="Free rollout: above the dotted line there is no skill left", xlabel="lead time (steps)")
    axes.set(ylabel="nRMSE (1)", ylim=(0, 2.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return figure


def hovmoeller(batch: Batch, forecast: Forecast) -> Figure:
    """Space–time diagrams of truth, free rollout and their difference, first sample."""
    truth, free = _first_channel(batch.u), _first_channel(forecast.rollout)
    free = np.concatenate([truth[:1], free])
    figure = new_figure(11, 4)
    figure.suptitle("Free rollout in space and time: stripes should keep the truth's slope and contrast")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    titles = ("truth", "rollout", "rollout − truth")
    for axes, title, field in zip(panels, titles, (truth, free, free - truth), strict=True):
        image = axes.imshow(field, cmap="RdBu_r", vmin=-LIMIT, vmax=LIMIT, origin="lower", aspect="auto")
        axes.set(title=title, xlabel="grid point i")
    panels[0].set_ylabel("time (steps)")
    panels[0].yaxis.set_major_locator(MaxNLocator(integer=True))
    figure.colorbar(image, ax=panels, label="state u (dimensionless)", extend="both")
    return figure


def animation(batch: Batch, forecast: Forecast) -> FuncAnimation:
    """Truth and free rollout of the first sample, one frame per step."""
    truth, free = _first_channel(batch.u), _first_channel(forecast.rollout)
    free = np.concatenate([truth[:1], free])
    figure = new_figure(6, 3.5)
    axes = figure.subplots()
    (true_line,) = axes.plot(truth[0], color=TRUTH, lw=3, alpha=0.35, label="truth")
    (free_line,) = axes.plot(free[0], color=PREDICTION, lw=1.5, ls="--", label="rollout")
    axes.set(xlabel="grid point i", ylabel="state u (dimensionless)", ylim=(-LIMIT, LIMIT))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize="small", ncols=2)

    def draw(t: int) -> tuple[Artist, ...]:
        true_line.set_ydata(truth[t])
        free_line.set_ydata(free[t])
        return true_line, free_line, axes.set_title(f"Free rollout: the network's own state after {t} steps")

    return FuncAnimation(figure, draw, frames=len(truth))


def _first_channel(u: Float[Tensor, "b t n c"]) -> np.ndarray:
    """(t, n) of the first sample and channel."""
    return u[0, :, :, 0].detach().cpu().numpy()
