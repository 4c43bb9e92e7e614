"""The cycle: background, analysis, forecast to the next background."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from eai.tasks.cycling.data import Batch, at
from eai.variational import batch as variational
from eai.variational.observations import ObservationOperator

Forecast = Callable[[Float[Tensor, "b n"]], Float[Tensor, "b n"]]
# From the background, its observations and the memory (b, n, m) to the analysis and the new memory.
Analyse = Callable[[variational.Batch, Tensor], tuple[Tensor, Tensor]]


class Cycled(NamedTuple):
    """What a pass through t analyses gives: ``ahead[:, i, l]`` is the forecast of time i + 1 + l from analysis i."""

    analysis: Float[Tensor, "b t n"]
    background: Float[Tensor, "b t n"]
    ahead: Float[Tensor, "b t l n"]
    last: Float[Tensor, "b n"]  # the background of the time after
    memory: Float[Tensor, "b n m"]


class Estimate(NamedTuple):
    """What is scored of a method.

    ``forecast[:, i, l]`` starts from every ``STRIDE``-th analysis and has lead l + 1; ``spread`` is the standard
    deviation of an ensemble's analyses, over its members, NaN where a method has none; ``crps`` the mean over the grid
    of the CRPS of the analyses, see :mod:`eai.tasks.cycling.probability`; ``model_error`` the root mean square error of
    the method's forecast model in one step from the truth.
    """

    analysis: Float[Tensor, "b t n"]
    background: Float[Tensor, "b t n"]
    forecast: Float[Tensor, "b s l n"]
    spread: Float[Tensor, "b t"]
    crps: Float[Tensor, "b t"]
    model_error: Float[Tensor, " b"]


STRIDE = 10  # analyses between two forecasts that are scored


def cycle(
    analyse: Analyse,
    forecast: Forecast,
    batch: Batch,
    first: Float[Tensor, "b n"],
    memory: Float[Tensor, "b n m"],
    steps: int,
    leads: int = 1,
    through_time: bool = True,
) -> Cycled:
    """``steps`` analyses, each followed by a forecast.

    Args:
        analyse: the analysis.
        forecast: over one interval.
        batch: the observations.
        first: background of the first time.
        memory: what the analysis has kept from before.
        steps: number of analyses.
        leads: of ``ahead``.
        through_time: let gradients pass from a background to the analysis before it.
    """
    background = first
    backgrounds, analyses, forecasts = [], [], []
    for time in range(steps):
        backgrounds.append(background)
        analysis, memory = analyse(at(batch, time, background), memory)
        background = forecast(analysis)
        analyses.append(analysis)
        forecasts.append(background)
        if not through_time:
            background, memory = background.detach(), memory.detach()
    ahead = [torch.stack(forecasts, 1)]
    while len(ahead) < leads:
        ahead.append(forecast(ahead[-1].flatten(0, 1)).unflatten(0, ahead[-1].shape[:2]))
    return Cycled(torch.stack(analyses, 1), torch.stack(backgrounds, 1), torch.stack(ahead, 2), background, memory)


def innovations(
    operator: ObservationOperator, batch: Batch, background: Float[Tensor, "b t n"]
) -> Float[Tensor, "b t p"]:
    """d = y − H(x_b) at the first times; zero where an observation takes no part.

    Args:
        operator: H.
        batch: the observations.
        background: of as many times as are wanted.
    """
    steps = background.shape[1]
    observed = at(batch, slice(0, steps), background)
    departure = (observed.y - operator(observed.xb, observed)) * observed.obs_mask
    return departure.unflatten(0, (len(background), steps))
