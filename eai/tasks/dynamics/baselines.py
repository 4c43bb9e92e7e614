"""Reference forecasts without a network: climatology, persistence, fitted stencils, the exact solution."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.data import widened
from eai.tasks.dynamics import statistical
from eai.tasks.dynamics.data import Batch, Solved, Trajectories
from eai.tasks.dynamics.forecast import Forecast, Step, forecast

ROWS = 5_000  # equations for a fitted stencil, at most
VALIDATED = 64  # trajectories of the validation data by which a statistical model is chosen, at most


def persistence(u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
    """Return the state unchanged."""
    return u


def climatological_mean(batch: Batch) -> Float[Tensor, ""]:
    """The mean of all training states: one number, because the data are homogeneous."""
    return batch.u.double().mean().float()


def fitted_stencil(batch: Batch, shape: tuple[int, ...], radius: int) -> Step:
    """u_i ← Σ_o w_o u_{i+o} over offsets |o| ≤ radius along each axis, w by least squares on all training pairs.

    The singular values of up to 5,000 equations, evenly taken from the data, are cut at 1e-9 of the largest: smooth
    fields leave some directions of w undetermined, and those stay zero.
    """
    offsets = list(product(range(-radius, radius + 1), repeat=len(shape)))
    before, after = batch.u[:, :-1].flatten(0, 1), batch.u[:, 1:].flatten(0, 1)
    total = after.numel()
    chosen = torch.arange(0, total, max(1, math.ceil(total / ROWS)), device=before.device)
    rows = torch.stack([_shifted(before, shape, offset).flatten()[chosen].double() for offset in offsets], dim=1)
    inverse = torch.linalg.pinv(rows, rtol=1e-9)
    weights = (inverse @ after.flatten()[chosen].double()).tolist()

    def step(u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        moved = torch.zeros_like(u, dtype=torch.float64)
        for weight, offset in zip(weights, offsets, strict=True):
            moved = moved + weight * _shifted(u, shape, offset)
        return moved.to(u.dtype)

    return step


def stencil_radii(courant: tuple[float, ...], shape: tuple[int, ...]) -> list[int]:
    """Radii worth fitting: the distance the signal moves, and two points more; both below half the grid."""
    needed = max(1, math.ceil(max(courant)))
    most = (min(shape) - 1) // 2
    return sorted({min(needed, most), min(needed + 2, most)})


def reference(data: Solved) -> Callable[[Batch], Forecast]:
    """The reference solution of the equation, from every state and from the first one."""
    return lambda batch: Forecast(*data.reference(widened(batch)))


def references(data: Trajectories, climatology: Float[Tensor, ""]) -> Mapping[str, Callable[[Batch], Forecast]]:
    """All baselines by name, those fitted on the training data included."""
    batch = data.fitting()
    if not isinstance(data, Solved):
        validation = data.samples["val"]
        some = torch.arange(0, len(validation), -(-len(validation) // VALIDATED))
        weights = torch.ones(batch.u.shape[2]) if data.anomalies is None else data.anomalies.weights.cpu()
        return statistical.references(batch, validation[some], weights, data.history)
    steps: dict[str, Step] = {
        "persistence": persistence,
        "climatology": lambda u, static: climatology.to(u).expand_as(u),
        **data.schemes(),
    }
    for radius in stencil_radii(data.courant, data.shape) if data.positions is None else ():
        steps[f"least_squares_{2 * radius + 1}"] = fitted_stencil(batch, data.shape, radius)
    methods = {name: partial(forecast, step) for name, step in steps.items()}
    return {**methods, "reference": reference(data)}


def _shifted(u: Float[Tensor, "b n c"], shape: tuple[int, ...], offset: tuple[int, ...]) -> Float[Tensor, "b n c"]:
    """u_{i + offset} at every node i."""
    field = u.unflatten(1, shape)
    return field.roll([-o for o in offset], dims=list(range(1, 1 + len(shape)))).flatten(1, len(shape))
