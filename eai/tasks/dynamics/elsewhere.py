"""A run where the file that it was trained on is absent: what its checkpoint keeps of it, and states of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.fields.times import seasons_of
from eai.tasks.dynamics.anomalies import Anomalies, Layout, seasonal_forcing
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.history import with_history

CHECKPOINT = ".ckpt"
KEY = "fields"  # in a checkpoint, beside the weights


def kept(fields: Anomalies, history: int) -> dict[str, Any]:
    """What a checkpoint keeps of a file beside the statistics of the training: tensors and primitives.

    Args:
        fields: of the run.
        history: of its data.
    """
    layout = {"latitude": fields.layout.latitude, "longitude": fields.layout.longitude, "nodes": fields.layout.nodes}
    names = {"variables": list(fields.variables), "units": list(fields.units)}
    return {**layout, "regular": fields.layout.regular, **names, "history": history}


def layout_in(path: str) -> Layout:
    """The nodes that a run had, from its checkpoint.

    Args:
        path: of the checkpoint.

    Raises:
        ValueError: the run was on no file, or an earlier version of eai wrote the checkpoint.
    """
    found = torch.load(path, map_location="cpu", weights_only=True).get(KEY)
    require(found is not None, "path", "a checkpoint of a run on a file, with its places", path)
    return _layout(found)


def restored(checkpoint: Mapping[str, Any]) -> tuple[Anomalies, int] | None:
    """Anomalies whose statistics are to be loaded, and the history of the data; None if the checkpoint has no file's.

    Args:
        checkpoint: as torch loads it.
    """
    if KEY not in checkpoint:
        return None
    found, weights = checkpoint[KEY], checkpoint["state_dict"]
    coefficients, std = weights["anomalies.coefficients"], weights["anomalies.std"]
    room = torch.zeros_like(coefficients), torch.ones_like(std)
    return Anomalies(*room, _layout(found), found["variables"], found["units"]), found["history"]


def _layout(found: Mapping[str, Any]) -> Layout:
    return Layout(found["latitude"], found["longitude"], found["nodes"], found["regular"])


def batch_of(fields: Anomalies, history: int, states: Float[Tensor, "h c *shape"], times: np.ndarray) -> Batch:
    """A trajectory whose first state is known; the later ones are NaN.

    Args:
        fields: of the run.
        history: h − 1, of its data.
        states: the newest one and those before it, the oldest first, on the grid of the training data, in the
            variables' units; places that are no nodes are not looked at.
        times: of the states and of the forecasts, one step of the training data apart.

    Raises:
        ValueError: there are more states or fewer, other variables, another grid, no time of a forecast, or a node
            without a value.
    """
    shape = (history + 1, len(fields.variables), *fields.layout.shape)
    require(tuple(states.shape) == shape, "states", f"(history + 1, variables, places) = {shape}", tuple(states.shape))
    steps = len(times) - history
    require(steps >= 2, "times", f"those of {history + 1} states and of at least one forecast", len(times))
    x = states.flatten(2)[:, :, fields.layout.nodes.to(states.device)].mT
    absent = int(x.isnan().any(2).any(0).sum())
    require(absent == 0, "states", "a value of every variable at every node", f"none at {absent} of {x.shape[1]} nodes")
    forcing = seasonal_forcing(torch.from_numpy(seasons_of(times)), fields.harmonics)
    known = fields.standardised(x, forcing[: history + 1]).cpu()
    u = torch.cat([known, known.new_full((steps - 1, *known.shape[1:]), torch.nan)])[None]
    static, time = fields.layout.static[None].float(), torch.arange(steps, dtype=torch.float32)[None]
    return Batch(with_history(u, history), static, forcing[None, history:].float(), time)


def example(fields: Anomalies, history: int) -> Batch:
    """A batch of one forecast from the climatology, of the shape that the net was trained on.

    Args:
        fields, history: see :func:`batch_of`.
    """
    times = np.arange(history + 2).astype("datetime64[D]")
    forcing = seasonal_forcing(torch.from_numpy(seasons_of(times)), fields.harmonics)[: history + 1]
    climatology = fields.maps(torch.zeros(history + 1, *fields.coefficients.shape[1:]), forcing)
    return batch_of(fields, history, climatology, times)
