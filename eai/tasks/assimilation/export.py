"""Analyses as a dataset: ``background``, ``analysis``, ``optimum``, ``truth``, the baselines' and the observations."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.data import DataModule
from eai.core.learn.export import Variable, named
from eai.variational.batch import Batch
from eai.variational.covariance import grid
from eai.variational.export import observations

NAMES = {"network": "analysis", "blue": "optimum", "background": "background"}


def coordinates(data: DataModule[Batch]) -> Mapping[str, Variable]:
    """Numbers of samples and observations, and the grid's angles.

    Args:
        data: of the run.
    """
    batch = data.batch("test")
    return {
        "sample": named(("sample",), torch.arange(len(batch.xb)), "number of the test sample"),
        "x": named(("x",), grid(batch.xb.shape[1]), "angle on the ring", "radian", axis="X"),
        "observation": named(("observation",), torch.arange(batch.y.shape[1]), "number of the observation"),
    }


def variables(batch: Batch, estimates: Mapping[str, Float[Tensor, "b n"]]) -> Mapping[str, Variable]:
    """States on the grid, and observations with what is known of them.

    Args:
        batch: backgrounds and observations.
        estimates: of every method.
    """
    there, used = ("sample", "observation"), (batch.obs_mask > 0) | (batch.obs_withheld > 0)
    return {
        "truth": named(("sample", "x"), batch.xt, "truth"),
        **{
            NAMES.get(name, f"analysis_{name}"): named(("sample", "x"), state, f"analysis by {name}")
            for name, state in estimates.items()
        },
        **observations(there, used, batch.y, batch.obs_index, batch.obs_fraction, batch.obs_sigma),
        "obs_assimilated": named(there, batch.obs_mask > 0, "1 where assimilated, 0 where withheld or none"),
    }
