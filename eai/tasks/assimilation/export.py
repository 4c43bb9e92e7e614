"""Analyses as a dataset: ``background``, ``analysis``, ``optimum``, ``truth``, the baselines' and the observations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.data import DataModule
from eai.core.learn.export import Variable, named
from eai.tasks.assimilation.data import grid_of
from eai.variational.batch import Batch
from eai.variational.export import observations
from eai.variational.grid import Grid

NAMES = {"network": "analysis", "blue": "optimum", "background": "background"}


def coordinates(data: DataModule[Batch]) -> Mapping[str, Variable]:
    """Numbers of samples and observations, and the places of grid points.

    Args:
        data: of the run.
    """
    batch, grid = data.batch("test"), grid_of(data)
    points = grid.position(torch.arange(grid.n), torch.zeros(grid.n, grid.d)).unflatten(0, grid.shape)
    if grid.d == 1:
        places = {"x": named(("x",), points[:, 0], "angle on the ring", "radian", axis="X")}
    else:
        places = {
            "grid_y": named(("grid_y",), points[:, 0, 0], "place along y", axis="Y"),
            "grid_x": named(("grid_x",), points[0, :, 1], "place along x", axis="X"),
        }
    return {
        "sample": named(("sample",), torch.arange(len(batch.xb)), "number of the test sample"),
        **places,
        "observation": named(("observation",), torch.arange(batch.y.shape[1]), "number of the observation"),
    }


def variables(grid: Grid, batch: Batch, estimates: Mapping[str, Float[Tensor, "b n"]]) -> Mapping[str, Variable]:
    """States on the grid, and observations with what is known of them.

    Args:
        grid: of the states.
        batch: backgrounds and observations.
        estimates: of every method.
    """
    dims = ("sample", "x") if grid.d == 1 else ("sample", "grid_y", "grid_x")
    there, used = ("sample", "observation"), (batch.obs_mask > 0) | (batch.obs_withheld > 0)
    return {
        "truth": named(dims, batch.xt.unflatten(1, grid.shape), "truth"),
        **{
            NAMES.get(name, f"analysis_{name}"): named(dims, state.unflatten(1, grid.shape), f"analysis by {name}")
            for name, state in estimates.items()
        },
        **observations(there, used, batch.y, batch.obs_index, batch.obs_fraction, batch.obs_sigma),
        "obs_assimilated": named(there, batch.obs_mask > 0, "1 where assimilated, 0 where withheld or none"),
    }
