"""From a step (state to next state) to forecasts: one step at a time, free rollouts, and windows for training."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.core.learn.data import widened
from eai.tasks.dynamics.data import Batch

# Maps states (b, n, c) and what is known at their nodes (b, n, s), see :func:`known`, to the states a time step later.
Step = Callable[[Tensor, Tensor], Tensor]


class Forecast(NamedTuple):
    """Forecasts of ``u[:, 1:]``, with one lead time per entry of the second axis.

    ``one_step``: each from the true state before it. ``rollout``: all from ``u[:, 0]``, freely.
    """

    one_step: Float[Tensor, "b l n c"]
    rollout: Float[Tensor, "b l n c"]


class Windows(NamedTuple):
    """Rollouts over k steps from w states of each trajectory, beside the truth."""

    predicted: Float[Tensor, "b w k n c"]
    truth: Float[Tensor, "b w k n c"]


def known(static: Float[Tensor, "b n s"], forcing: Float[Tensor, "b f"] | None) -> Float[Tensor, "b n g"]:
    """What a step knows of its nodes: their static features and, after them, the forcing at the time of the state.

    Args:
        static: features of the nodes.
        forcing: the same at all nodes; None: there is none.
    """
    if forcing is None or forcing.shape[1] == 0:
        return static  # the same tensor, by which schemes know that nothing changed
    return torch.cat([static, forcing[:, None].expand(-1, static.shape[1], -1)], dim=2)


def rollout(
    step: Step,
    u0: Float[Tensor, "b n c"],
    static: Float[Tensor, "b n s"],
    steps: int,
    detach: bool = False,
    forcing: Float[Tensor, "b t f"] | None = None,
) -> Float[Tensor, "b l n c"]:
    """The step applied ``steps`` times to its own output, starting from ``u0``, which is not returned.

    Args:
        step: from a state to the next.
        u0: the first states.
        static: features of the nodes.
        steps: to take.
        detach: whether no gradient passes from one application of the step to the one before.
        forcing: at the time of ``u0`` and at the following ones, ``steps`` or more; None: there is none.
    """
    states = [u0]
    for lead in range(steps):
        now = known(static, None if forcing is None else forcing[:, lead])
        states.append(step(states[-1].detach() if detach else states[-1], now))
    return torch.stack(states[1:], dim=1)


def one_step(
    step: Step,
    u: Float[Tensor, "b t n c"],
    static: Float[Tensor, "b n s"],
    forcing: Float[Tensor, "b t f"] | None = None,
) -> Float[Tensor, "b l n c"]:
    """The step applied to all states but the last, as one batch of b · (t−1) states.

    Args:
        step: from a state to the next.
        u: trajectories.
        static: features of the nodes.
        forcing: at the times of ``u``; None: there is none.
    """
    inputs = u[:, :-1]
    every = static[:, None].expand(-1, inputs.shape[1], -1, -1).flatten(0, 1)
    now = known(every, None if forcing is None else forcing[:, :-1].flatten(0, 1))
    return step(inputs.flatten(0, 1), now).unflatten(0, inputs.shape[:2])


def forecast(step: Step, batch: Batch) -> Forecast:
    """Both forecasts of a batch with one step, in float32 or better."""
    batch = widened(batch)
    u, static, forcing, _ = batch
    return Forecast(one_step(step, u, static, forcing), rollout(step, u[:, 0], static, u.shape[1] - 1, forcing=forcing))


class Unroll:
    """How trajectories become training samples: rollouts of a few steps from some of their states.

    Args:
        steps: k ≥ 1; 1 trains on single steps. The gradient passes through all k.
        grow_every_n_epochs: curriculum: start with one step and add one every so many epochs, up to ``steps``;
            0 takes all steps from the start.
        windows: starting states drawn at random from each trajectory at every optimisation step; null takes all.
        pushforward: cut the gradient between the steps: the net learns to correct the states it produces
            without being asked to produce others (after Brandstetter et al. 2022).
        noise: standard deviation of Gaussian noise added to the starting states, in units of their own.
    """

    def __init__(
        self,
        steps: int = 1,
        grow_every_n_epochs: int = 0,
        windows: int | None = None,
        pushforward: bool = False,
        noise: float = 0.0,
    ) -> None:
        require(steps >= 1, "steps", "at least 1", steps)
        require(grow_every_n_epochs >= 0, "grow_every_n_epochs", "0 or more", grow_every_n_epochs)
        require(windows is None or windows >= 1, "windows", "at least 1, or null", windows)
        require(noise >= 0, "noise", "0 or more", noise)
        self.steps, self.grow_every_n_epochs, self.windows = steps, grow_every_n_epochs, windows
        self.pushforward, self.noise = pushforward, noise

    def steps_at(self, epoch: int) -> int:
        """The number of steps in an epoch, counted from 0."""
        grown = 1 + epoch // self.grow_every_n_epochs if self.grow_every_n_epochs else self.steps
        return min(self.steps, grown)

    def __call__(self, step: Step, batch: Batch, epoch: int, training: bool) -> Windows:
        """Rollouts from windows of the batch; in evaluation from all of them, over ``steps``, without noise."""
        k = self.steps_at(epoch) if training else self.steps
        # (b, w, n, c, k+1) → (b, w, k+1, n, c)
        windows = batch.u.unfold(1, k + 1, 1).permute(0, 1, 4, 2, 3)
        forcing = batch.forcing.unfold(1, k + 1, 1).mT
        if training and self.windows is not None and self.windows < windows.shape[1]:
            starts = torch.rand(windows.shape[:2], device=batch.u.device).argsort(1)[:, : self.windows]
            rows = torch.arange(len(windows), device=batch.u.device)[:, None]
            windows, forcing = windows[rows, starts], forcing[rows, starts]
        count = windows.shape[1]
        first = windows[:, :, 0].flatten(0, 1)
        if training and self.noise > 0:
            first = first + self.noise * first.std() * torch.randn_like(first)
        static = batch.static[:, None].expand(-1, count, -1, -1).flatten(0, 1)
        predicted = rollout(step, first, static, k, self.pushforward, forcing.flatten(0, 1))
        return Windows(predicted.unflatten(0, (-1, count)), windows[:, :, 1:])


class RolloutMSE(nn.Module):
    """The mean square error of the windows' rollouts, over windows, steps, nodes and channels: term ``mse``.

    With one step it is the loss of slide 2.1.
    """

    def __init__(self) -> None:
        super().__init__()  # nn.Module's own signature would accept any argument

    def forward(self, output: Windows, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        return {"mse": (output.predicted - output.truth).square().flatten(1).mean(1)}
