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
    count, states = data.batch("test").u.shape[:2]
    steps = {"init_time": torch.arange(count), "lead_time": torch.arange(1, states)}
    told = {
        "init_time": named(("init_time",), steps["init_time"], "number of the test trajectory"),
        "lead_time": named(("lead_time",), steps["lead_time"], "steps since the initial state"),
    }
    return {**told, **data.coordinates()}


def variables(data: Trajectories, batch: Batch, estimates: Mapping[str, Forecast]) -> Mapping[str, Variable]:
    """Free rollouts of all methods, the truth, and the state from which they begin.

    Args:
        data: of the run.
        batch: trajectories.
        estimates: of every method.
    """

    def of(u: Tensor, times: tuple[str, ...], long_name: str) -> Variable:
        field = u.unflatten(len(times), data.shape)
        dims = (*times, *data.space)
        if u.shape[-1] == 1:
            return named(dims, field[..., 0], long_name)
        return named((*dims, "channel"), field, long_name)

    times = ("init_time", "lead_time")
    return {
        "initial": of(batch.u[:, 0], times[:1], "state from which forecasts begin"),
        "truth": of(batch.u[:, 1:], times, "reference solution"),
        **{name: of(one.rollout, times, f"forecast by {name}") for name, one in estimates.items()},
    }
