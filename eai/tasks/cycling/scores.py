"""How good the analyses and forecasts of a cycle are: quantities of each cycle, and scores from their means.

Everything is over the analyses after the spin-up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.scores import PerSample
from eai.tasks.cycling.cycle import STRIDE, Estimate
from eai.tasks.cycling.data import Batch, at
from eai.variational.observations import ObservationOperator

LOST = 0.8  # of the climate's standard deviation: an analysis no nearer to the truth is lost
NEVER = 1e3  # standard deviations of the climate: the error of what is no number


def per_cycle(
    operator: ObservationOperator, batch: Batch, estimate: Estimate, spin_up: int, std: float
) -> dict[str, PerSample]:
    """Quantities of each cycle whose means make the scores.

    Args:
        operator: H.
        batch: the cycles.
        estimate: of a method.
        spin_up: analyses that are not scored.
        std: standard deviation of the climate.
    """
    steps = estimate.analysis.shape[1]
    truth = batch.truth[:, :steps]
    analysis = _rmse(estimate.analysis, truth, std)[:, spin_up:]
    values: dict[str, PerSample] = {
        "rmse_analysis": analysis.mean(1),
        "rmse_background": _rmse(estimate.background, truth, std)[:, spin_up:].mean(1),
        "mse_analysis": analysis.square().mean(1),
        "crps_analysis": _bounded(estimate.crps, std)[:, spin_up:].mean(1),
        "lost": (analysis > LOST * std).any(1).to(analysis.dtype),
        "model_error": estimate.model_error.nan_to_num(NEVER * std),
    }
    spread = estimate.spread[:, spin_up:].square().mean(1)
    if bool(spread.isfinite().all()):
        values["spread"] = spread
    values |= _innovation_statistics(operator, batch, estimate.background, spin_up)
    starts = torch.arange(0, steps, STRIDE, device=truth.device)
    for lead in range(1, estimate.forecast.shape[2] + 1):
        valid = (starts >= spin_up) & (starts + lead < batch.truth.shape[1])
        if not valid.any():
            break  # a run too short for any
        error = _rmse(estimate.forecast[:, valid, lead - 1], batch.truth[:, starts[valid] + lead], std)
        values[f"rmse/lead_{lead:02d}"] = error.mean(1)
    return values


def final_scores(means: Mapping[str, float]) -> dict[str, float]:
    """The scores from means over cycles.

    Args:
        means: of what :func:`per_cycle` gives.
    """
    final = {name: means[name] for name in means if name.startswith(("rmse", "crps", "lost", "model_error"))}
    final["innovation"] = _ratio(means["innovation_square"], means["observations"])
    final["innovation_mean"] = _ratio(means["innovation_sum"], means["observations"])
    final["innovation_lag1"] = _ratio(
        _ratio(means["innovation_lagged"], means["pairs"]), _ratio(means["innovation_grid"], means["points"])
    )
    if "spread" in means:
        final["spread_skill"] = math.sqrt(_ratio(means["spread"], means["mse_analysis"]))
    return final


def _innovation_statistics(
    operator: ObservationOperator, batch: Batch, background: Float[Tensor, "b t n"], spin_up: int
) -> dict[str, PerSample]:
    """Sums over the observations of a cycle of d/σ, its square, and its product with that one interval later."""
    (count, steps, n), shape = background.shape, background.shape[:2]
    observed = at(batch, slice(0, steps), background)
    departure = (observed.y - operator(observed.xb, observed)) / observed.obs_sigma * observed.obs_mask
    departure = departure.nan_to_num(NEVER).clamp(-NEVER, NEVER)
    # Observations may move: pair those at the same grid point at successive times.
    grid = departure.new_zeros(count * steps, n).scatter_add(1, observed.obs_index, departure).view(count, steps, n)
    seen = departure.new_zeros(count * steps, n).scatter_add(1, observed.obs_index, observed.obs_mask)
    seen = seen.clamp(max=1).view(count, steps, n)
    departure, mask = departure.view(*shape, -1)[:, spin_up:], observed.obs_mask.view(*shape, -1)[:, spin_up:]
    grid, seen = grid[:, spin_up:], seen[:, spin_up:]
    return {
        "innovation_square": departure.square().sum((1, 2)),
        "innovation_sum": departure.sum((1, 2)),
        "observations": mask.sum((1, 2)),
        "innovation_lagged": (grid[:, 1:] * grid[:, :-1]).sum((1, 2)),
        "pairs": (seen[:, 1:] * seen[:, :-1]).sum((1, 2)),
        "innovation_grid": grid.square().sum((1, 2)),
        "points": seen.sum((1, 2)),
    }


def _rmse(estimate: Float[Tensor, "b t n"], truth: Float[Tensor, "b t n"], std: float) -> Float[Tensor, "b t"]:
    return _bounded((estimate - truth).square().mean(2).sqrt(), std)


def _bounded(error: Float[Tensor, "b t"], std: float) -> Float[Tensor, "b t"]:
    return error.nan_to_num(NEVER * std).clamp(max=NEVER * std)


def _ratio(a: float, b: float) -> float:
    return a / b if b else math.nan
