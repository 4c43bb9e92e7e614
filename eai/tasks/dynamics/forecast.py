"""From a step (state to next state) to forecasts, and how far they are from the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.tasks.dynamics.data import Batch

# A map from states (b, n, c) to the states one time step later.
Step = Callable[[Tensor], Tensor]


class Forecast(NamedTuple):
    """Forecasts of ``u[:, 1:]``, with one lead time per entry of the second axis.

    ``one_step``: each from the true state before it. ``rollout``: all from ``u[:, 0]``, freely.
    """

    one_step: Float[Tensor, "b l n c"]
    rollout: Float[Tensor, "b l n c"]


def one_step(step: Step, u: Float[Tensor, "b t n c"]) -> Float[Tensor, "b l n c"]:
    """The step applied to all states but the last, as one batch of b · (t−1) states."""
    inputs = u[:, :-1]
    return step(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])


def rollout(step: Step, u0: Float[Tensor, "b n c"], steps: int) -> Float[Tensor, "b l n c"]:
    """The step applied ``steps`` times to its own output, starting from ``u0``, which is not returned."""
    states = [u0]
    for _ in range(steps):
        states.append(step(states[-1]))
    return torch.stack(states[1:], dim=1)


def forecast(step: Step, batch: Batch) -> Forecast:
    """Both forecasts of a batch with one step."""
    return Forecast(one_step(step, batch.u), rollout(step, batch.u[:, 0], batch.u.shape[1] - 1))


def mse(predicted: Float[Tensor, "b l n c"], truth: Float[Tensor, "b l n c"]) -> Float[Tensor, " b"]:
    """Mean square error of each sample over leads, nodes and channels."""
    return (predicted - truth).square().flatten(1).mean(1)


def nrmse(predicted: Float[Tensor, "b l n c"], truth: Float[Tensor, "b l n c"]) -> Float[Tensor, "b l"]:
    """RMSE / rms(truth) over nodes and channels, of each sample at each lead; 1 is a forecast of zero."""
    error = (predicted - truth).square().flatten(2).mean(2)
    return (error / truth.square().flatten(2).mean(2)).sqrt()


class OneStepMSE(nn.Module):
    """The mean square error of the next state, from the true state before it: term ``mse`` (slide 2.1)."""

    def __init__(self) -> None:
        super().__init__()  # nn.Module's own signature would accept any argument

    def forward(self, predicted: Float[Tensor, "b l n c"], batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        return {"mse": mse(predicted, batch.u[:, 1:])}
