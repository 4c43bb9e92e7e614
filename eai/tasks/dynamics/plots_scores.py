"""Figures that compare the network with its baselines, and of the graph itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import cycle
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from eai.core.learn.figures import Drawing
from eai.core.palette import BLACK, BLUE, GREEN, ORANGE, PREDICTION, PURPLE, SKY, legend_below, new_figure
from eai.core.style.wording import in_words
from eai.tasks.dynamics.data import Batch, Trajectories
from eai.tasks.dynamics.forecast import Forecast
from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.scores import nrmse, power_by_wavenumber

DRAWN = 200  # nodes up to which a graph is drawn
FLOOR = 1e-8  # of the nRMSE axis: below it is rounding
# One look per kind of method, the same in all figures.
STYLES: dict[str, dict[str, Any]] = {
    "network": {"color": PREDICTION, "lw": 2.4, "marker": "o", "ms": 3.5, "zorder": 3},
    "persistence": {"color": "#777777", "ls": ":"},
    "climatology": {"color": "#777777", "ls": "--"},
    "upwind": {"color": BLUE},
    "lax_wendroff": {"color": BLUE, "ls": "--"},
    "reference": {"color": BLACK},
}
# The others in their order.
LOOKS: tuple[dict[str, Any], ...] = tuple(
    {"color": color, "ls": line} for line in ("-", "--", "-.", ":") for color in (GREEN, ORANGE, PURPLE, SKY, BLUE)
)
ALWAYS, STRONGEST = ("network", "persistence", "reference"), 6


def of_methods(data: Trajectories, batch: Batch, forecasts: Mapping[str, Forecast]) -> Mapping[str, Drawing]:
    """Error against lead time, and spectra, of the network, persistence, the reference and the strongest others."""
    truth = batch.u[:, 1:]
    curves = {name: nrmse(forecast.rollout, truth).mean(0) for name, forecast in forecasts.items()}
    ranked = sorted((name for name in curves if name not in ALWAYS), key=lambda name: float(curves[name][-1]))
    curves = {name: curve for name, curve in curves.items() if name in (*ALWAYS, *ranked[:STRONGEST])}
    if data.surface is not None:
        return {"nrmse": nrmse_by_lead(curves)}
    forecasts = {name: forecasts[name] for name in curves}
    last = {name: forecast.rollout[:, -1] for name, forecast in forecasts.items()}
    spectra = {name: power_by_wavenumber(u, data.shape).mean(0) for name, u in {"truth": truth[:, -1], **last}.items()}
    return {"nrmse": nrmse_by_lead(curves), "spectra": spectrum(spectra, truth.shape[1])}


def nrmse_by_lead(curves: Mapping[str, Float[Tensor, " l"]]) -> Figure:
    """nRMSE of free rollouts against lead time, on a fixed log axis."""
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    for name, style in styles(curves).items():
        values = curves[name].cpu().clamp(min=FLOOR).numpy()
        # The axis is fixed, so give the last value as a number: it may lie outside.
        label = f"{in_words(name)}: {curves[name][-1].item():.2g}"
        axes.plot(np.arange(1, len(values) + 1), values, label=label, **style)
    axes.axhline(1, color=BLACK, lw=0.8)
    axes.set(
        title="Error of free rollouts: lower is better, above the black line no skill is left",
        xlabel="lead time (steps)",
    )
    axes.set(ylabel="nRMSE (1), mean over test trajectories", ylim=(FLOOR / 2, 10), yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    legend_below(figure, "at the last lead")
    return figure


def spectrum(power: Mapping[str, Float[Tensor, " k"]], lead: int) -> Figure:
    """Variance by wavenumber after ``lead`` steps: truth in black, the network in red, the baselines behind them."""
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    scale = max(float(power["truth"].max()), 1e-30)
    shown = min(len(power["truth"]), 64)
    for name, style in styles({name: p for name, p in power.items() if name != "truth"}).items():
        values = (power[name].double().nan_to_num(0, 0, 0).cpu() / scale)[:shown].clamp(1e-16, 1e6)
        axes.plot(np.arange(shown), values.numpy(), label=in_words(name), **style)
    truth = (power["truth"].double().cpu() / scale)[:shown].clamp(min=1e-16)
    axes.plot(np.arange(shown), truth.numpy(), color=BLACK, lw=5, alpha=0.25, label="truth", zorder=1)
    axes.set(title=f"Spectrum after {lead} steps: below the grey line lies damping, above it noise")
    axes.set(xlabel="wavenumber k", ylabel="variance / largest of the truth (1)", yscale="log", ylim=(1e-14, 1e2))
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def of_graph(graph: Graph) -> Mapping[str, Drawing]:
    """Draw the offsets, and the whole graph if it is small enough to see its edges."""
    drawings: dict[str, Drawing] = {"offsets": offsets(graph)}
    if graph.nodes <= DRAWN:
        drawings["adjacency"] = adjacency(graph)
        if len(graph.shape) == 1:
            drawings["circle"] = circle(graph)
            drawings["distances"] = distances(graph)
    return drawings


def distances(graph: Graph) -> Figure:
    """The chord between every two points on the unit circle, 2 sin(π d/n) for d cells, and which of them are joined."""
    figure = new_figure(6, 5)
    axes = figure.subplots()
    apart = np.arange(graph.nodes)[:, None] - np.arange(graph.nodes)
    image = axes.imshow(2 * np.abs(np.sin(np.pi * apart / graph.nodes)), cmap="viridis", vmin=0, vmax=2)
    source, target = graph.edge_index.numpy()
    axes.plot(source, target, "o", color=ORANGE, ms=2, label="joined by an edge")
    axes.set(title="Distances on the unit circle: edges join the nearest points", xlabel="point j", ylabel="point i")
    figure.colorbar(image, ax=axes, label="chord (radii)")
    legend_below(figure)
    return figure


def offsets(graph: Graph) -> Figure:
    """The neighbours that a node receives messages from in one layer."""
    figure = new_figure(6, 2.6 if len(graph.shape) == 1 else 5)
    axes = figure.subplots()
    steps = graph.edge_attr[:, : len(graph.shape)].numpy()
    across, up = steps[:, -1], steps[:, 0] if len(graph.shape) == 2 else np.zeros(len(steps))
    axes.scatter(across, up, color=SKY, s=60, zorder=2)
    axes.scatter([0], [0], color=BLACK, s=60, zorder=3)
    axes.set(
        title=f"One layer: the black node receives from {graph.degree} nodes, itself included", xlabel="cells along x"
    )
    if len(graph.shape) == 2:
        axes.set(ylabel="cells along y", aspect="equal")
    else:
        axes.set_yticks([])
    axes.grid(alpha=0.3)
    return figure


def adjacency(graph: Graph) -> Figure:
    """The adjacency matrix, self-loops included."""
    joined = np.zeros((graph.nodes,) * 2)
    joined[tuple(graph.edge_index.numpy())] = 1
    figure = new_figure(5.2, 4.8)
    axes = figure.subplots()
    axes.imshow(joined, cmap="Greys", vmin=0, vmax=1)
    axes.set(title="Adjacency: black where node i receives from j")
    axes.set(xlabel=f"node j ({int(joined.sum())} edges, {graph.degree} from every node)", ylabel="node i")
    return figure


def circle(graph: Graph) -> Figure:
    """The nodes on the unit circle with the edges between them."""
    angle = 2 * torch.pi / graph.nodes * torch.arange(graph.nodes, dtype=torch.float64)
    points = torch.stack([angle.sin(), angle.cos()], dim=1).numpy()
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


def styles(methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """A style for each method."""
    others = cycle(LOOKS)
    return {name: {"lw": 1.3, **(STYLES.get(name) or next(others))} for name in methods}
