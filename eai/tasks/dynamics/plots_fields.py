"""Figures of forecasts of fields from files, in the fields' units: maps of anomalies and errors, errors by lead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from eai.core.learn.figures import Drawing
from eai.core.palette import legend_below, new_figure
from eai.core.style.wording import in_words
from eai.tasks.dynamics.anomalies import Anomalies, Layout
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.forecast import Forecast
from eai.tasks.dynamics.plots_scores import styles

MOST = 0.98  # quantile of absolute values at which a colour scale ends
CELLS = 500  # rows or columns of a map; of larger ones every second, third, … is drawn


def of_samples(batch: Batch, forecast: Forecast, fields: Anomalies) -> Mapping[str, Drawing]:
    """Draw the free rollout of the first sample as maps of every variable."""
    return {f"maps_{name}": maps(batch, forecast, fields, channel) for channel, name in enumerate(fields.variables)}


def of_methods(batch: Batch, forecasts: Mapping[str, Forecast], fields: Anomalies) -> Mapping[str, Drawing]:
    """Errors of all methods by lead, and where the network and the best baseline have theirs, for every variable."""
    figures: dict[str, Drawing] = {}
    for channel, name in enumerate(fields.variables):
        figures[f"rmse_{name}"] = rmse_by_lead(batch, forecasts, fields, channel)
        figures[f"errors_{name}"] = error_maps(batch, forecasts, fields, channel)
    return figures


def maps(batch: Batch, forecast: Forecast, fields: Anomalies, channel: int) -> Figure:
    """Initial state, truth, free rollout and its error at up to three leads of the first sample.

    Args:
        batch: trajectories.
        forecast: of them.
        fields: what the states are.
        channel: of the variable.
    """
    std = fields.std[channel].item()
    truth = std * batch.u[0, :, :, channel].detach().float().cpu()
    free = std * torch.nan_to_num(forecast.rollout[0, :, :, channel].detach().float().cpu())
    leads = np.unique(np.linspace(1, len(free), 3).round().astype(int))
    limit = _quantile(truth)
    change = _quantile(truth[1:] - truth[0])
    figure = new_figure(14, 0.8 + 2.6 * len(leads))
    figure.suptitle(
        f"{_named(fields, channel)}, anomaly from climatology: the forecast should look more like the truth than "
        "the initial state does"
    )
    panels = figure.subplots(len(leads), 4, sharex=True, sharey=True, squeeze=False)
    for row, lead in zip(panels, leads, strict=True):
        shown = {
            "initial state": truth[0],
            f"truth, lead {lead}": truth[lead],
            f"forecast, lead {lead}": free[lead - 1],
            f"forecast − truth, lead {lead}": free[lead - 1] - truth[lead],
        }
        for axes, (title, values) in zip(row, shown.items(), strict=True):
            most = change if axes is row[3] else limit
            image = draw_field(axes, values, fields.layout, title, cmap="RdBu_r", vmin=-most, vmax=most)
            if axes in (panels[0, 2], panels[0, 3]):
                kind = "anomaly" if axes is row[2] else "error"
                at = panels[:, :3] if axes is row[2] else panels[:, 3]
                label = f"{kind} ({fields.units[channel]})"
                figure.colorbar(image, ax=at, label=label, extend="both", shrink=0.8)
    return figure


def rmse_by_lead(batch: Batch, forecasts: Mapping[str, Forecast], fields: Anomalies, channel: int) -> Figure:
    """RMSE of free rollouts in the variable's units against lead time, of every method.

    Args:
        batch: trajectories.
        forecasts: of them, by method.
        fields: what the states are.
        channel: of the variable.
    """
    std, truth = fields.std[channel].item(), batch.u[:, 1:]
    curves = {
        name: std * fields.squares(forecast.rollout, truth)[:, :, channel].mean(0).sqrt().cpu().numpy()
        for name, forecast in forecasts.items()
    }
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    ranked = sorted(curves, key=lambda name: float(curves[name][-1]))
    looks = styles(curves)
    for name in ranked:
        leads = np.arange(1, len(curves[name]) + 1)
        axes.plot(leads, curves[name], label=f"{in_words(name)}: {curves[name][-1]:.3g}", **looks[name])
    best = min(curve.max() for curve in curves.values())
    axes.set(ylim=(0, 3 * float(best)), xlabel="lead time (steps)", ylabel=f"RMSE ({fields.units[channel]})")
    axes.set_title(
        f"RMSE of {_named(fields, channel)}: lower is better; what is far above the best is cut off", fontsize="medium"
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    legend_below(figure, "at the last lead")
    return figure


def _named(fields: Anomalies, channel: int) -> str:
    return fields.variables[channel].replace("_", " ")


def error_maps(batch: Batch, forecasts: Mapping[str, Forecast], fields: Anomalies, channel: int) -> Figure:
    """Where the errors at the last lead are: RMSE over trajectories of the network and of the best baseline.

    Args:
        batch: trajectories.
        forecasts: of them, by method; ``network`` is one.
        fields: what the states are.
        channel: of the variable.
    """
    last, std = batch.u[:, -1, :, channel], fields.std[channel].item()
    errors = {
        name: std * torch.nan_to_num(forecast.rollout[:, -1, :, channel] - last).square().mean(0).sqrt().float().cpu()
        for name, forecast in forecasts.items()
    }
    network, weights = errors.pop("network"), fields.weights.cpu()
    means = {name: float((weights * error.square()).mean().sqrt()) for name, error in errors.items()}
    best = min(means, key=lambda name: means[name])
    figure = new_figure(14, 3.8)
    lead = batch.u.shape[1] - 1
    figure.suptitle(f"RMSE of {_named(fields, channel)} at lead {lead}: blue on the right where the network is better")
    panels = figure.subplots(1, 3, sharex=True, sharey=True)
    most, apart = _quantile(errors[best]), _quantile(network - errors[best])
    scale: dict[str, Any] = {"cmap": "viridis", "vmin": 0, "vmax": most}
    own = float((weights * network.square()).mean().sqrt())
    draw_field(panels[0], network, fields.layout, f"network, mean {own:.3g}", **scale)
    image = draw_field(panels[1], errors[best], fields.layout, f"{in_words(best)}, mean {means[best]:.3g}", **scale)
    figure.colorbar(image, ax=panels[:2], label=f"RMSE ({fields.units[channel]})", extend="max")
    image = draw_field(
        panels[2],
        network - errors[best],
        fields.layout,
        f"network − {in_words(best)}",
        cmap="RdBu_r",
        vmin=-apart,
        vmax=apart,
    )
    figure.colorbar(image, ax=panels[2], label=f"difference ({fields.units[channel]})", extend="both")
    return figure


def draw_field(axes: Axes, values: Float[Tensor, " n"], layout: Layout, title: str, **scale: Any) -> ScalarMappable:
    """Draw the nodes' values by longitude and latitude: as cells on a regular grid, else as dots.

    Args:
        axes: to draw in.
        values: at the nodes.
        layout: where they are.
        title: of the panel.
        scale: colour map and its limits.
    """
    axes.set(title=title, xlabel="longitude (°)", ylabel="latitude (°)")
    axes.label_outer()
    latitude, longitude = (d.numpy() for d in (layout.latitude, layout.longitude))
    if layout.regular:
        every = tuple(slice(None, None, -(-size // CELLS)) for size in layout.shape)
        whole = layout.everywhere(values).view(layout.shape).numpy()[every]
        return axes.pcolormesh(longitude[0][every[1]], latitude[:, 0][every[0]], whole, shading="nearest", **scale)
    nodes = layout.nodes.numpy()
    size = min(40.0, max(0.5, 2e4 / len(nodes)))
    return axes.scatter(longitude.flat[nodes], latitude.flat[nodes], c=values.numpy(), s=size, **scale)


def _quantile(values: Tensor) -> float:
    return float(np.quantile(values.abs().numpy(), MOST)) or 1.0
