"""Descent on J: the learned, unrolled solver, and conjugate gradients from the background as its baseline."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.assimilation.batch import Batch
from eai.tasks.assimilation.cost import VariationalCost
from eai.tasks.assimilation.nets import uniform_analysis_filter

Preconditioner = Literal["background", "uniform"]


class Descent:
    """Preconditioned conjugate gradients on J, one Hessian product a step, from any first guess.

    Each step goes along the preconditioned gradient, made conjugate to the last step, to the minimum on that line.
    For a linear H the cost therefore never rises, whatever the preconditioner, and with a fixed one the iterates are
    those of PCG. For a non-linear H the quadratic is that of H linearised at the first guess.

    Args:
        cost: J.
        batch: the samples.
        first_guess: (b, n).
    """

    def __init__(self, cost: VariationalCost, batch: Batch, first_guess: Float[Tensor, "b n"]) -> None:
        self._cost, self._batch = cost, batch
        self._anchor = self.state = first_guess.double()
        self._gradient = cost.gradient(self.state, batch)
        self._last: tuple[Tensor, Tensor] | None = None

    def step(self, response: Float[Tensor, "*b m"]) -> None:
        """One step; ``response`` are the preconditioner's eigenvalues in B's eigenbasis."""
        direction = -self._cost.covariance.filter(self._gradient, response)
        curved = self._cost.curvature(self._anchor, direction, self._batch)
        if self._last is not None:
            past, past_curved = self._last
            share = _ratio(direction, past_curved, past, past_curved)
            direction, curved = direction - share * past, curved - share * past_curved
        length = -_ratio(self._gradient, direction, direction, curved)
        self._last = length * direction, length * curved
        self.state = self.state + self._last[0]
        self._gradient = self._gradient + self._last[1]


def _ratio(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Float[Tensor, "b 1"]:
    """a·b / c·d per sample; 0 where the denominator vanishes, as it does at convergence."""
    denominator = (c * d).sum(1, keepdim=True)
    safe = denominator > 1e-300
    return torch.where(safe, (a * b).sum(1, keepdim=True) / denominator.clamp(min=1e-300), 0.0)


def conjugate_gradients(
    cost: VariationalCost, batch: Batch, steps: int, preconditioner: Preconditioner
) -> Float[Tensor, "b n"]:
    """Iterative 3D-Var: ``steps`` PCG iterations from x_b.

    ``background`` preconditions with B, as operational centres do; ``uniform`` with (B⁻¹ + ρ)⁻¹, the analysis
    covariance for evenly spread observations.
    """
    uniform = preconditioner == "uniform"
    response = uniform_analysis_filter(cost, batch) if uniform else cost.covariance.eigenvalues
    descent = Descent(cost, batch, batch.xb)
    for _ in range(steps):
        descent.step(response)
    return descent.state


class UnrolledSolver(nn.Module):
    """A network's first guess, improved by a few steps of descent on J with a learned preconditioner.

    Step k preconditions with (B⁻¹ + e^{a_k} ρ)⁻¹, a_k learned, and goes to the minimum on its line: for a linear H the
    cost decreases from step to step (see :class:`Descent`).

    In training a share of each batch takes the steps, and the gradient passes through them; the rest stops at the
    first guess. Trained behind the steps alone, the first guess learns slowly, because they hide its errors.

    Args:
        cost: J.
        first_guess: a net from Batch to analysis.
        steps: number of steps; each costs one Hessian product, as a step of conjugate gradients.
        unrolled: share of each training batch that takes the steps.
    """

    def __init__(self, cost: VariationalCost, first_guess: nn.Module, steps: int = 6, unrolled: float = 0.125) -> None:
        super().__init__()
        require(steps >= 1, "steps", "at least 1", steps)
        require(0 < unrolled <= 1, "unrolled", "0 < unrolled ≤ 1", unrolled)
        self.cost, self.first_guess, self.steps, self.unrolled = cost, first_guess, steps, unrolled
        self.log_scale = nn.Parameter(torch.zeros(steps))

    def iterates(self, batch: Batch) -> list[Float[Tensor, "b n"]]:
        """The first guess and the state after each step."""
        return self._descend(batch, self.first_guess(batch))

    def _descend(self, batch: Batch, first_guess: Float[Tensor, "b n"]) -> list[Float[Tensor, "b n"]]:
        descent = Descent(self.cost, batch, first_guess)
        states = [descent.state]
        for scale in self.log_scale.exp().double():
            descent.step(uniform_analysis_filter(self.cost, batch, scale))
            states.append(descent.state)
        return states

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        guess = self.first_guess(batch).double()
        if not self.training:
            return self._descend(batch, guess)[-1]
        share = math.ceil(self.unrolled * len(guess))
        some = Batch(*(field[:share] for field in batch))
        return torch.cat([self._descend(some, guess[:share])[-1], guess[share:]])
