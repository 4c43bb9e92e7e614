"""The forecast in the cycle: a system's own equations, or a network that learned them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

import eai
from eai.core.errors import ConfigError
from eai.systems.system import System
from eai.tasks.cycling.cycle import STRIDE, Estimate
from eai.tasks.cycling.data import Batch


class Exact(nn.Module):
    """The step of a system, from a state within its bounds: a cycle that is lost stays finite.

    Args:
        system: whose step it is.
    """

    def __init__(self, system: System) -> None:
        super().__init__()
        self.system, self.n = system, system.n

    def forward(self, state: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        bound = self.system.bound
        if bound == math.inf:
            return self.system.step(state)
        return self.system.step(state.clamp(-bound, bound)).nan_to_num(0.0).clamp(-bound, bound)


class Learned(nn.Module):
    """The network of a finished run of ``task=dynamics``, which is not trained any further.

    Args:
        path: of the run.

    Raises:
        ConfigError: not a run whose network makes a state of one number per point from another.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        run = eai.load_run(path)
        if not callable(getattr(run.module, "step", None)):
            raise ConfigError(f"forecast: expected a run of task=dynamics, got {path} (task={run.config.task})")
        shape: tuple[int, ...] = getattr(run.data, "shape", ())
        if len(shape) != 1:
            raise ConfigError(f"forecast: expected a run on a ring, got {path} on a grid of shape {shape}")
        self.n, self.interval = shape[0], getattr(run.data, "interval", None)
        self.module = run.module.requires_grad_(False)

    def train(self, mode: bool = True) -> Learned:
        """Stay in evaluation mode."""
        return super().train(False)

    def forward(self, state: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        step, field = self.module.step, state[:, :, None]
        return step(field, field[:, :, :0])[:, :, 0]  # type: ignore[operator]


def forecast_model(forecast: System | str) -> Exact | Learned:
    """The forecast that ``forecast`` names.

    Args:
        forecast: a system, or the directory of a run of ``task=dynamics``.
    """
    return Learned(forecast) if isinstance(forecast, str) else Exact(forecast)


@torch.no_grad()
def finished(
    model: nn.Module,
    batch: Batch,
    analysis: Float[Tensor, "b t n"],
    background: Float[Tensor, "b t n"],
    leads: int,
    spread: Float[Tensor, "b t"] | None = None,
    crps: Float[Tensor, "b t"] | None = None,
) -> Estimate:
    """A method's analyses with the forecasts that start from them.

    Args:
        model: of one interval.
        batch: the cycles.
        analysis, background: of each time.
        leads: of the forecasts, in intervals; 0: none.
        spread: of the analyses, where there is one.
        crps: of the analyses, where they are distributions; else their mean absolute error.
    """
    steps = analysis.shape[1]
    first = analysis[:, ::STRIDE]
    state, states = first.flatten(0, 1), []
    for _ in range(leads):
        state = model(state)
        states.append(state)
    forecast = torch.stack(states, 1) if states else state[:, None][:, :0]
    # From every STRIDE-th truth too: enough to know the model's own error.
    before, after = (batch.truth[:, start:steps:STRIDE] for start in (0, 1))
    before = before[:, : after.shape[1]]
    error = model(before.flatten(0, 1)).view(before.shape) - after
    return Estimate(
        analysis,
        background,
        forecast.unflatten(0, first.shape[:2]),
        torch.full_like(analysis[:, :, 0], torch.nan) if spread is None else spread,
        (analysis - batch.truth[:, :steps]).abs().mean(2) if crps is None else crps,
        error.square().flatten(1).mean(1).sqrt(),
    )
