"""Reference forecasts of fields whose equation is not known, fitted on anomalies of the training period."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.forecast import Forecast, Step, forecast

EOFS = (3, 5, 10, 20, 40)  # of the linear inverse models, of which the validation data choose one
PAIRS = 2000  # of successive states that a linear inverse model is fitted on, at most

Fit = tuple[Float[Tensor, "n c"], Float[Tensor, "n c"]]


def damping(pairs: Batch) -> Float[Tensor, "n c"]:
    """r = Σ u_t u_{t+1} / Σ u_t² at every node, within [0, 1]: the share of an anomaly that is left after a step.

    Args:
        pairs: of successive states.
    """
    before, after = pairs.u[:, 0].double(), pairs.u[:, 1].double()
    return ((before * after).sum(0) / before.square().sum(0).clamp(min=1e-30)).clamp(0, 1)


def linear_trend(pairs: Batch) -> Fit:
    """a and b of u = a + b · time at every node, by least squares; b is 0 where all times are equal.

    Args:
        pairs: of successive states, of which the first are used.
    """
    u, time = pairs.u[:, 0].double(), pairs.time[:, 0].double()
    late = time - time.mean()
    slope = torch.einsum("t,tnc->nc", late, u) / late.square().sum().clamp(min=1e-30)
    return u.mean(0) - slope * time.mean(), slope


def inverse_model(pairs: Batch, weights: Float[Tensor, " n"], eofs: int) -> Step:
    """The linear inverse model of the leading principal components x: x_{t+1} = G x_t, G = ⟨x_{t+1} x_tᵀ⟩⟨x_t x_tᵀ⟩⁻¹.

    What the EOFs do not hold is forecast as zero. Source: Penland and Sardeshmukh, J. Climate 8 (1995).

    Args:
        pairs: of successive states.
        weights: of the nodes, by which EOFs are orthogonal.
        eofs: at most as many as there are pairs.
    """
    root = weights.double().sqrt()[:, None].expand(-1, pairs.u.shape[3]).flatten()
    before, after = (pairs.u[:, t].double().flatten(1) * root for t in (0, 1))
    basis = torch.linalg.svd(before, full_matrices=False).Vh[:eofs]
    x, y = before @ basis.T, after @ basis.T
    step_matrix = torch.linalg.lstsq(x, y).solution
    there, back = root[:, None] * basis.T, basis / root
    whole = there @ step_matrix

    def step(u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        anomalies = u.double().flatten(1)
        return (anomalies @ whole.to(u.device) @ back.to(u.device)).view_as(u).to(u.dtype)

    return step


def references(
    pairs: Batch, validation: Batch, weights: Float[Tensor, " n"]
) -> Mapping[str, Callable[[Batch], Forecast]]:
    """All of them by name, for anomalies.

    ``persistence``; ``climatology``: no anomaly; ``damped_persistence``: r u; ``linear_trend``: a + b t, whatever the
    initial state; ``persistence_with_trend``: u + b; ``damped_to_trend``: what u deviates from the trend is damped;
    ``linear_inverse_model``, with as many of 3, 5, 10, 20, 40 EOFs as have the least error in the validation data.

    Args:
        pairs: of successive training states.
        validation: trajectories.
        weights: of the nodes.
    """
    share, (first, slope) = damping(pairs), linear_trend(pairs)
    deviation = pairs._replace(u=pairs.u - _at(pairs.time, first, slope))
    steps: dict[str, Step] = {
        "persistence": lambda u, known: u,
        "climatology": lambda u, known: torch.zeros_like(u),
        "damped_persistence": lambda u, known: (share.to(u.device) * u).to(u.dtype),
        "persistence_with_trend": lambda u, known: (u + slope.to(u.device)).to(u.dtype),
        "linear_inverse_model": _best_inverse_model(pairs, validation, weights),
    }
    return {
        **{name: partial(forecast, step) for name, step in steps.items()},
        "linear_trend": partial(_along_trend, fit=(first, slope), share=torch.zeros_like(share)),
        "damped_to_trend": partial(_along_trend, fit=(first, slope), share=damping(deviation)),
    }


def _at(time: Float[Tensor, "b t"], first: Float[Tensor, "n c"], slope: Float[Tensor, "n c"]) -> Tensor:
    """The trend at these times, (b, t, n, c)."""
    return (first + slope * time.double()[:, :, None, None]).to(time.dtype)


def _along_trend(batch: Batch, fit: Fit, share: Float[Tensor, "n c"]) -> Forecast:
    """The trend, and ``share`` to the power of the lead of what the initial state deviates from it."""
    first, slope, share = (part.to(batch.u.device) for part in (*fit, share))
    trend = _at(batch.time, first, slope)
    lead = torch.arange(1, batch.u.shape[1], device=batch.u.device)[:, None, None]
    away = batch.u - trend
    one = trend[:, 1:] + share * away[:, :-1]
    free = trend[:, 1:] + share**lead * away[:, :1]
    return Forecast(one.to(batch.u.dtype), free.to(batch.u.dtype))


def _best_inverse_model(pairs: Batch, validation: Batch, weights: Float[Tensor, " n"]) -> Step:
    some = Batch(*(field[:: -(-len(pairs.u) // PAIRS)] for field in pairs))
    possible = [number for number in EOFS if number <= len(some.u) // 2] or [1]
    models = [inverse_model(some, weights, number) for number in possible]
    truth = validation.u[:, 1:]
    errors = [(forecast(model, validation).rollout - truth).square().mean().nan_to_num(torch.inf) for model in models]
    return models[int(torch.stack(errors).argmin())]
