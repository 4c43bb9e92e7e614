"""Observations as variables of a dataset, for the tasks that have them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from eai.core.learn.export import Variable, named

FRACTIONS = {
    1: [("obs_fraction", "")],
    2: [("obs_fraction_y", " along y"), ("obs_fraction_x", " along x")],
}


def observations(
    dims: tuple[str, ...],
    used: Tensor,
    y: Tensor,
    index: Tensor,
    fraction: Tensor,
    sigma: Tensor,
    *,
    units: str = "1",
) -> Mapping[str, Variable]:
    """Values, places and errors of observations, missing (NaN, or −1) where there is none.

    Args:
        dims: names of the dimensions, that of the observations last.
        used: true where there is an observation.
        y: values.
        index: of the grid point at, or to the left of, each.
        fraction: how far into the cell each lies, along each axis.
        sigma: standard deviation of its error that is assumed.
        units: of values and errors.
    """

    def observed(values: Tensor, long_name: str, units: str = "1") -> Variable:
        missing = values.new_full((), torch.nan if values.is_floating_point() else -1)
        return named(dims, torch.where(used, values, missing), long_name, units)

    return {
        "y": observed(y, "observed value", units),
        "obs_index": observed(index, "grid point at, or to the left of and below, the observation; -1 for none"),
        **{
            name: observed(part, f"how far into the cell the observation lies{where}, 0 to 1")
            for (name, where), part in zip(FRACTIONS[fraction.shape[-1]], fraction.unbind(-1), strict=True)
        },
        "obs_sigma": observed(sigma, "standard deviation of its error that is assumed", units),
    }
