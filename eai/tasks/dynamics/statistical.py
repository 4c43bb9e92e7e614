"""Reference forecasts of fields whose equation is not known, fitted on anomalies of the training period."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.forecast import Forecast, Step, forecast
from eai.tasks.dynamics.history import advanced, newest, of_newest, recent_mean

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


def autoregression(pairs: Batch, history: int) -> Step:
    """ū + Σ_k a_k (u_{t−k} − ū), ū the mean of u_t … u_{t−h}, a the same at all nodes and in all channels.

    The weights a are fitted by least squares, with the least sum of squares where they are not unique.

    Args:
        pairs: of successive states with their history.
        history: h, at least 1.
    """
    mean = recent_mean(pairs.u, history)[:, 0]
    lagged = pairs.u[:, 0].unflatten(-1, (history + 1, -1)) - mean[..., None, :]
    rows = lagged.movedim(-2, -1).reshape(-1, history + 1).double()
    after = (newest(pairs.u[:, 1], history) - mean).flatten().double()
    a = torch.linalg.pinv(rows.T @ rows, hermitian=True, rtol=1e-9) @ (rows.T @ after)

    def step(u: Float[Tensor, "b n d"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n d"]:
        now = recent_mean(u, history)
        away = u.unflatten(-1, (history + 1, -1)) - now[..., None, :]
        return advanced(now + torch.einsum("k,bnkc->bnc", a.to(u), away), u)

    return step


def references(
    pairs: Batch, validation: Batch, weights: Float[Tensor, " n"], history: int = 0
) -> Mapping[str, Callable[[Batch], Forecast]]:
    """All of them by name, for anomalies.

    ``persistence``; ``climatology``: no anomaly; ``damped_persistence``: r u; ``linear_trend``: a + b t, whatever the
    initial state; ``persistence_with_trend``: u + b; ``damped_to_trend``: what u deviates from the trend is damped;
    ``linear_inverse_model``, with as many of 3, 5, 10, 20, 40 EOFs as have the least error in the validation data.
    With a history also ``recent_mean``, the mean of its states, at all leads; ``recent_trend``: the same, and the slope
    over these states of the mean over all nodes goes on; ``autoregression``.

    Args:
        pairs: of successive training states.
        validation: trajectories.
        weights: of the nodes.
        history: states before each that are further channels.
    """
    long = _of_history(pairs, history, weights) if history else {}
    pairs, validation = of_newest(pairs, history), of_newest(validation, history)
    share, (first, slope) = damping(pairs), linear_trend(pairs)
    deviation = pairs._replace(u=pairs.u - _at(pairs.time, first, slope))
    steps: dict[str, Step] = {
        "persistence": lambda u, known: u,
        "climatology": lambda u, known: torch.zeros_like(u),
        "damped_persistence": lambda u, known: (share.to(u.device) * u).to(u.dtype),
        "persistence_with_trend": lambda u, known: (u + slope.to(u.device)).to(u.dtype),
        "linear_inverse_model": _best_inverse_model(pairs, validation, weights),
    }
    single: dict[str, Callable[[Batch], Forecast]] = {
        **{name: partial(forecast, step) for name, step in steps.items()},
        "linear_trend": partial(_along_trend, fit=(first, slope), share=torch.zeros_like(share)),
        "damped_to_trend": partial(_along_trend, fit=(first, slope), share=damping(deviation)),
    }
    return {name: partial(_from_newest, method, history) for name, method in single.items()} | long


def _from_newest(method: Callable[[Batch], Forecast], history: int, batch: Batch) -> Forecast:
    return method(of_newest(batch, history))


def _of_history(pairs: Batch, history: int, weights: Float[Tensor, " n"]) -> dict[str, Callable[[Batch], Forecast]]:
    """The methods that use the states before the newest one."""
    regression = autoregression(pairs, history)
    back = torch.arange(history + 1, dtype=torch.float64)
    late = back.mean() - back
    late = late / late.square().sum()

    def mean(batch: Batch, slope: Tensor | None = None) -> Forecast:
        now = recent_mean(batch.u, history)
        free = now[:, :1].expand(-1, batch.u.shape[1] - 1, -1, -1)
        if slope is None:
            return Forecast(now[:, :-1], free)
        lead = torch.arange(1, batch.u.shape[1], device=now.device)[:, None, None] + history / 2
        return Forecast(now[:, :-1] + slope[:, :-1] * (1 + history / 2), free + slope[:, :1] * lead)

    def trend(batch: Batch) -> Forecast:
        over_nodes = (batch.u * weights.to(batch.u)[:, None]).mean(2, keepdim=True)
        slope = torch.einsum("k,btnkc->btnc", late.to(batch.u), over_nodes.unflatten(-1, (history + 1, -1)))
        return mean(batch, slope)

    def regressed(batch: Batch) -> Forecast:
        return Forecast(*(newest(u, history) for u in forecast(regression, batch)))

    return {"recent_mean": mean, "recent_trend": trend, "autoregression": regressed}


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
