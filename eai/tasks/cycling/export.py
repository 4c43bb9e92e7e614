"""Cycles as a dataset: analyses and backgrounds of the network and every reference, truth and observations by time.

Of ensembles, ``members_<method>`` has the members of every analysis, along ``member``, which is as long as the largest
of them: NaN follows the last member of a smaller one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from eai.core.learn.export import Parted, Variable, named
from eai.tasks.cycling.cycle import Estimate
from eai.tasks.cycling.data import Batch, Cycles
from eai.tasks.cycling.ensemble import Ensemble
from eai.variational.export import observations

OPTIMUM = "kalman"
STATE, THERE = ("cycle", "time", "x"), ("cycle", "time", "observation")
MEMBERS = ("cycle", "time", "member", "x")
PART = 2**22  # numbers of members that are held at once, about


def coordinates(data: Cycles, most: int) -> Mapping[str, Variable]:
    """Numbers of cycles, grid points, observations and members, and the times of the analyses.

    Args:
        data: of the run.
        most: members of the largest ensemble.
    """
    batch, steps = data.batch("test"), data.analyses["test"]
    time = data.system.interval * torch.arange(steps, dtype=torch.float64)
    return {
        "cycle": named(("cycle",), torch.arange(len(batch.y)), "number of the test cycle"),
        "time": named(("time",), time, "time of the analysis, in the units of the system's equations", axis="T"),
        "x": named(("x",), torch.arange(data.n), "number of the grid point", axis="X"),
        "observation": named(("observation",), torch.arange(batch.y.shape[2]), "number of the observation"),
        "member": named(("member",), torch.arange(most), "number of the member", standard_name="realization"),
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


def members(batch: Batch, ensembles: Mapping[str, Ensemble]) -> Mapping[str, Parted]:
    """The members of all ensembles, which make the cycles once more while they are written, some times in a part.

    Args:
        batch: the cycles.
        ensembles: by the names of their methods.
    """
    count, n = batch.start.shape
    most = max(ensemble.members for ensemble in ensembles.values())
    found = {}
    for name, ensemble in ensembles.items():
        shape = (count, ensemble.steps(batch), most, n)
        length = min(shape[1], max(1, PART // (count * most * n)))
        told = {"long_name": f"analyses by the members of {name}, after inflation", "units": "1"}
        found[f"members_{name}"] = Parted(MEMBERS, shape, _parts(ensemble, batch, most, length), length, told)
    return found


def _parts(ensemble: Ensemble, batch: Batch, most: int, length: int) -> Iterator[Float[Tensor, "b t k n"]]:
    padding = (0, 0, 0, most - ensemble.members)
    padded = (pad(members, padding, value=torch.nan) for _, _, members in ensemble.cycle(batch))
    while some := list(islice(padded, length)):
        yield torch.stack(some, 1)
