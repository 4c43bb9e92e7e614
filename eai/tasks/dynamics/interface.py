"""What a net of this task gives and gets, and what it may say of itself, checked against the data.

A net is any ``nn.Module`` whose forward gets the state u (b, n, c) and what is known of the nodes (b, n, s), their
static features and after them the forcing at that time, s may be 0, and gives the next state (b, n, c). Node numbers
run fastest along the grid's last axis. Optional are

* ``graph``, a :class:`eai.tasks.dynamics.graphs.Graph`, which must be on the data's grid, and is drawn, or a
  :class:`eai.tasks.dynamics.meshes.PointGraph`, whose points must be the data's;
* ``reach``, from how far a signal can arrive in one step, along each axis: refused where the signal moves further;
* ``static_features`` and ``state_channels``, how many it expects;
* ``fit_scales(batch)``, called once with the training data.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from eai.core.errors import ConfigError
from eai.tasks.dynamics.data import Batch, Trajectories
from eai.tasks.dynamics.forecast import known
from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.meshes import PointGraph

TOLERANCE = 1e-9  # of reach and Courant number
SAME_PLACE = 1e-6  # of positions in radii, which may have come from single precision


def graph_of(net: nn.Module) -> Graph | None:
    """The periodic grid's graph of a net that has one."""
    graph = getattr(net, "graph", None)
    return graph if isinstance(graph, Graph) else None


def reach_of(net: nn.Module) -> tuple[float, ...] | None:
    """The reach of a net that says it, in cells or, on points, in the units of their positions."""
    reach = getattr(net, "reach", None)
    return reach if isinstance(reach, tuple) else None


def fit_scales(net: nn.Module, batch: Batch) -> None:
    """Let a net that has scales take them from training data."""
    fit = getattr(net, "fit_scales", None)
    if callable(fit):
        fit(batch)


def check_grid(net: nn.Module, fields: Trajectories) -> None:
    """Compare the grid and the reach that a net states with those of the data.

    Raises:
        ConfigError: it is on another grid, or the signal moves further in a step than the net can see.
    """
    graph, reach = getattr(net, "graph", None), reach_of(net)
    key = "model.net.graph" if graph else "model.net"
    for name, shape in (("graph", getattr(graph, "shape", None)), ("shape", getattr(net, "shape", None))):
        points = isinstance(graph, PointGraph) and fields.positions is not None
        expected = (math.prod(fields.shape),) if points else fields.shape
        if isinstance(shape, tuple) and shape != expected:
            raise ConfigError(f"model.net.{name}: expected the grid of data, {expected}, got {shape}")
    if isinstance(graph, PointGraph) and fields.positions is not None:
        apart = (graph.positions - fields.positions.to(graph.positions)).abs().max().item()
        if apart > SAME_PLACE:
            raise ConfigError(f"{key}: expected the points of data, in their order, got points up to {apart:.2g} away")
    if reach is None or not fields.courant:
        return
    if len(reach) != len(fields.shape):
        raise ConfigError(f"{key}: expected a reach along each axis of the grid of data, {fields.shape}, got {reach}")
    for axis, (courant, far) in enumerate(zip(fields.courant, reach, strict=True)):
        cells = far / fields.spacing
        if cells < courant - TOLERANCE:
            along = f" along axis {axis}" if len(fields.shape) > 1 else ""
            layers = getattr(net, "layers", None)
            grid = graph_of(net)
            counted = f" ({layers} layers × {grid.reach[axis]} cells)" if grid and isinstance(layers, int) else ""
            needed = math.ceil(courant - TOLERANCE)
            raise ConfigError(
                f"{key}: expected a reach of at least {needed} cells per step{along}, because the signal of data moves "
                f"{courant:.2f}; got a reach of {cells:g}{counted}"
            )


def check_call(net: nn.Module, step: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> None:
    """Call a net once, which also gives its lazy layers their sizes.

    Raises:
        ConfigError: it cannot be called with such data, or what it gives is no next state.
    """
    u, static = batch.u[:, 0], known(batch.static, batch.forcing[:, 0])
    for name, given in (("static_features", static.shape[2]), ("state_channels", u.shape[2])):
        stated = getattr(net, name, None)
        if isinstance(stated, int) and stated != given:
            raise ConfigError(f"model.net.{name}: expected {given}, what data gives, got {stated}")
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            after = step(u, static)
    except (RuntimeError, TypeError, ValueError, AttributeError) as error:
        told = f"{type(error).__name__}: {' '.join(str(error).split())}"
        shapes = f"u of shape {tuple(u.shape)} and static of shape {tuple(static.shape)}"
        raise ConfigError(f"model.net: cannot be called with {shapes} ({told})") from error
    finally:
        net.train(training)
    if after.shape != u.shape:
        raise ConfigError(f"model.net: expected the next state, of shape {tuple(u.shape)}, got {tuple(after.shape)}")
