"""Newton steps with a line search, for many small problems at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOOPS = 100  # steps, at most
HALVINGS = 30  # of one step, at most
TOLERANCE = 1e-8  # of the gradient's norm, relative to that at the start


def damped_newton(
    start: Float[Tensor, "b n"],
    value: Callable[[Float[Tensor, "k n"], Int[Tensor, " k"]], Float[Tensor, " k"]],
    propose: Callable[[Float[Tensor, "k n"], Int[Tensor, " k"]], tuple[Float[Tensor, "k n"], Float[Tensor, "k n"]]],
    scale: Callable[[Float[Tensor, "k n"]], Float[Tensor, "k n"]],
) -> tuple[Float[Tensor, "b n"], Float[Tensor, " b"]]:
    """Minimise b functions of n variables: v ← v + α s, α the first of 1, ½, ¼, … at which the value falls enough.

    Enough is 10⁻⁴ of what the slope promises (Armijo). A row is done when its √(gᵀBg) is 1e-8 of that at the start;
    only rows that are not are computed further, a hundred steps at most.

    Args:
        start: first v.
        value: of the functions with the given numbers, at v.
        propose: their gradients g and steps s; s has to point downhill.
        scale: B g, which makes the gradient's norm one of its units.

    Returns:
        The last v, and 1 where it is a minimum to the tolerance.
    """
    v, converged, rows = start.clone(), start.new_zeros(len(start)), torch.arange(len(start), device=start.device)
    limit: Tensor | None = None
    for _ in range(LOOPS):
        gradient, step = propose(v[rows], rows)
        scaled = scale(gradient)
        steepness = (gradient * scaled).sum(1)
        limit = TOLERANCE**2 * steepness if limit is None else limit
        open_ = steepness > limit
        converged[rows[~open_]] = 1
        rows, limit, step = rows[open_], limit[open_], step[open_]
        if not len(rows):
            break
        length, slope = step.new_ones(len(rows)), (scaled[open_] * step).sum(1)
        before = value(v[rows], rows)
        for _ in range(HALVINGS):
            # 1e-14: near the minimum the value is rounding.
            enough = value(v[rows] + length[:, None] * step, rows) <= before * (1 + 1e-14) + 1e-4 * length * slope
            if enough.all():
                break
            length = torch.where(enough, length, length / 2)
        v[rows] += length[:, None] * step
    return v, converged
