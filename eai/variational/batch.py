"""The batch of the assimilation task."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class Batch(NamedTuple):
    """Symbols as in the literature; b samples, n grid points in d dimensions, p slots for observations.

    ``xt`` and ``obs_sigma_true`` are the truth, and ``y`` at ``obs_withheld`` is kept for verification: no loss and no
    net may use them.
    """

    xb: Float[Tensor, "b n"]  # background
    y: Float[Tensor, "b p"]  # observations
    obs_index: Int[Tensor, "b p"]  # the grid point at, or to the left of and below, each observation
    obs_fraction: Float[Tensor, "b p d"]  # how far into the cell it lies along each axis, from 0 to 1
    obs_sigma: Float[Tensor, "b p"]  # standard deviation of its error, as the cost assumes
    obs_mask: Float[Tensor, "b p"]  # 1 where assimilated; 0 where padding or withheld
    obs_withheld: Float[Tensor, "b p"]  # 1 where withheld
    xt: Float[Tensor, "b n"]  # truth
    obs_sigma_true: Float[Tensor, "b p"]  # standard deviation of each observation's error, in truth
