"""Cycles as a dataset: analyses and backgrounds of the network and every reference, truth and observations by time."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from eai.core.learn.export import Variable, named
from eai.tasks.cycling.cycle import Estimate
from eai.tasks.cycling.data import Batch, Cycles
from eai.variational.export import observations

OPTIMUM = "kalman"
STATE, THERE = ("cycle", "time", "x"), ("cycle", "time", "observation")


def coordinates(data: Cycles) -> Mapping[str, Variable]:
    """Numbers of cycles, grid points and observations, and the times of the analyses.

    Args:
        data: of the run.
    """
    batch, steps = data.batch("test"), data.analyses["test"]
    time = data.system.interval * torch.arange(steps, dtype=torch.float64)
    return {
        "cycle": named(("cycle",), torch.arange(len(batch.y)), "number of the test cycle"),
        "time": named(("time",), time, "time of the analysis, in the units of the system's equations", axis="T"),
        "x": named(("x",), torch.arange(data.n), "number of the grid point", axis="X"),
        "observation": named(("observation",), torch.arange(batch.y.shape[2]), "number of the observation"),
    }


def variables(batch: Batch, estimates: Mapping[str, Estimate]) -> Mapping[str, Variable]:
    """States and observations at every analysis time.

    Args:
        batch: the cycles.
        estimates: of every method.
    """
    steps = estimates["network"].analysis.shape[1]
    used = batch.obs_mask[:, :steps] > 0
    told = (field[:, :steps] for field in (batch.y, batch.obs_index, batch.obs_fraction, batch.obs_sigma))

    def states(name: str, estimate: Estimate) -> dict[str, Variable]:
        suffix = {"network": "", OPTIMUM: None}.get(name, f"_{name}")
        places = ("optimum", "background_optimum") if suffix is None else (f"analysis{suffix}", f"background{suffix}")
        parts = (estimate.analysis, estimate.background)
        return {
            place: named(STATE, part, f"{kind} of {name}")
            for place, part, kind in zip(places, parts, ("analysis", "background"), strict=True)
        }

    return {
        "truth": named(STATE, batch.truth[:, :steps], "truth"),
        **{place: one for name, estimate in estimates.items() for place, one in states(name, estimate).items()},
        **observations(THERE, used, *told),
    }
