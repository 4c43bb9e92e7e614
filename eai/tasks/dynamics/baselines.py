"""Steps that learn nothing: the references of every forecast."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor

from eai.tasks.dynamics.forecast import Step


def persistence(u: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
    """Tomorrow is as today."""
    return u


def upwind(cells: float) -> Step:
    """The first-order upwind scheme for a signal that moves ``cells`` cells per step (positive: to the right).

    u_i ← u_i − ν (u_i − u_{i∓1}), in ceil(|cells|) sub-steps, so that ν = |cells|/sub-steps ≤ 1 is stable.
    It is conservative, monotone and diffusive; exact for whole numbers of cells.
    """
    substeps = max(1, math.ceil(abs(cells)))
    nu, upstream = abs(cells) / substeps, 1 if cells > 0 else -1

    def step(u: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        for _ in range(substeps):
            u = u - nu * (u - u.roll(upstream, dims=1))
        return u

    return step
