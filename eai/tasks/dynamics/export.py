"""Forecasts as a dataset: ``network``, ``truth`` and every baseline by (init_time, lead_time, …)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from eai.core.learn.export import Variable, named
from eai.tasks.dynamics.data import Batch, Trajectories
from eai.tasks.dynamics.forecast import Forecast


def coordinates(data: Trajectories) -> Mapping[str, Variable]:
    """Initial and lead times, in steps unless the data know better, and where the nodes are.

    Args:
        data: of the run.
    """
    states, count = data.batch("test", 1).u.shape[1], len(data.samples["test"])
    steps = {"init_time": torch.arange(count), "lead_time": torch.arange(1, states)}
    told = {
        "init_time": named(("init_time",), steps["init_time"], "number of the test trajectory"),
        "lead_time": named(("lead_time",), steps["lead_time"], "steps since the initial state"),
    }
    return {**told, **data.coordinates()}  # which may know the dates


def variables(data: Trajectories, batch: Batch, estimates: Mapping[str, Forecast]) -> Mapping[str, Variable]:
    """Free rollouts of all methods, the truth, and the state from which they begin.

    Of fields with units each of several variables has a dataset's variable of its own, ``network_<variable>``.

    Args:
        data: of the run.
        batch: trajectories.
        estimates: of every method.
    """
    times = ("init_time", "lead_time")
    told = "reference solution" if data.anomalies is None else "states of the file"
    states = {"truth": (batch.u[:, 1:], told)}
    states |= {name: (one.rollout, f"forecast by {name}") for name, one in estimates.items()}
    first = _states(data, "initial", batch.u[:, 0], batch.forcing[:, 0], times[:1], "state from which forecasts begin")
    later = [_states(data, name, u, batch.forcing[:, 1:], times, told) for name, (u, told) in states.items()]
    return {name: variable for one in (first, *later) for name, variable in one.items()}


def _states(
    data: Trajectories, name: str, u: Tensor, forcing: Tensor, times: tuple[str, ...], long_name: str
) -> Mapping[str, Variable]:
    """States (*times, n, c) as variables on the data's grid, in units where they have any."""
    dims, fields = (*times, *data.space), data.anomalies
    if fields is None:
        field = u.unflatten(len(times), data.shape)
        one = u.shape[-1] == 1
        return {name: named(dims, field[..., 0], long_name) if one else named((*dims, "channel"), field, long_name)}
    maps = fields.maps(u, forcing).unbind(len(times))
    found = {}
    for variable, units, values in zip(fields.variables, fields.units, maps, strict=True):
        key = name if len(maps) == 1 else f"{name}_{variable}"
        found[key] = named(dims, values, f"{variable}: {long_name}", units)
    return found
