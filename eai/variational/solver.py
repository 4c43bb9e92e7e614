"""Descent on J: the learned, unrolled solver, and conjugate gradients from the background as its baseline."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.nets import uniform_analysis_filter


class Descent:
    """Preconditioned conjugate gradients on J, one Hessian product a step, from any first guess.

    Each step goes along the preconditioned gradient, made conjugate to the last step, to the minimum on that line.
    For a linear H the cost therefore never rises, whatever the preconditioner, and with a fixed one the iterates are
    those of PCG.

    For a non-linear H each step linearises it anew, at the state reached, and the minimum on the line is that of the
    linearised cost. The step then takes the part of the way there, of 2, 1, ½, … 2⁻¹² and none, where J itself is
    least: J never rises either, whatever the preconditioner.

    Args:
        cost: J.
        batch: the samples.
        first_guess: (b, n).
    """

    PARTS = (0.0, *(2.0**k for k in range(-12, 2)))

    def __init__(self, cost: VariationalCost, batch: Batch, first_guess: Float[Tensor, "b n"]) -> None:
        self._cost, self._batch = cost, batch
        self.state = first_guess.double()
        # B⁻¹ (x − x_b) follows from step to step: only the first gradient needs a product for it.
        self._dual = cost.covariance.solve(self.state - batch.xb)
        self.gradient = self._dual - cost.pull(self.state, batch)
        self._last: tuple[Tensor, Tensor, Tensor] | None = None

    def step(self, response: Float[Tensor, "*b m"]) -> None:
        """One step; ``response`` are the preconditioner's eigenvalues in B's eigenbasis."""
        cost, batch, linear = self._cost, self._batch, self._cost.operator.linear
        direction = -cost.covariance.filter(self.gradient, response)
        dual = cost.covariance.solve(direction)
        curved = dual + cost.observed_curvature(self.state, direction, batch)
        if self._last is not None:
            share = _ratio(direction, self._last[2], self._last[0], self._last[2])
            direction, dual, curved = (
                new - share * old for new, old in zip((direction, dual, curved), self._last, strict=True)
            )
        length = -_ratio(self.gradient, direction, direction, curved)
        if not linear:
            length = length * self._best_part(length * direction, length * dual)
        self._last = length * direction, length * dual, length * curved
        self.state, self._dual = self.state + self._last[0], self._dual + self._last[1]
        moved = self.gradient + self._last[2]
        self.gradient = moved if linear else self._dual - cost.pull(self.state, batch)

    @torch.no_grad()
    def _best_part(self, move: Float[Tensor, "b n"], dual: Float[Tensor, "b n"]) -> Float[Tensor, "b 1"]:
        parts = move.new_tensor(self.PARTS)[:, None, None]
        tries, many = self.state + parts * move, Batch(*(torch.cat([field] * len(parts)) for field in self._batch))
        observation = self._cost.observation_term(tries.flatten(0, 1), many).view(len(parts), -1)
        # ½ (x−x_b)ᵀ B⁻¹ (x−x_b) along the line, but for its value at the start.
        rise = (parts * (move * self._dual).sum(1, keepdim=True)).squeeze(2)
        rise = rise + 0.5 * parts[:, 0] ** 2 * (move * dual).sum(1)
        total = torch.where(observation.isfinite(), observation + rise, torch.inf)
        return parts[total.argmin(0), 0]


def _ratio(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Float[Tensor, "b 1"]:
    """a·b / c·d per sample; 0 where the denominator vanishes, as it does at convergence."""
    denominator = (c * d).sum(1, keepdim=True)
    safe = denominator > 1e-300
    return torch.where(safe, (a * b).sum(1, keepdim=True) / denominator.clamp(min=1e-300), 0.0)


def descend(
    cost: VariationalCost,
    batch: Batch,
    first_guess: Float[Tensor, "b n"],
    responses: Iterable[Float[Tensor, "*b m"]],
) -> list[Float[Tensor, "b n"]]:
    """The first guess and the state after each step; one step a preconditioner.

    For a linear H the cost never rises. For a non-linear one the first four fifths of the steps descend on the
    quadratic cost near J (see :meth:`VariationalCost.near`), and the rest on J from where that led or, should J be
    higher there, from the first guess: the last state never costs more than the first.

    Args:
        cost: J.
        batch: the samples.
        first_guess: where to start.
        responses: eigenvalues of each step's preconditioner in B's eigenbasis.
    """
    responses = list(responses)
    turn = len(responses) if cost.operator.linear else len(responses) - max(1, len(responses) // 5)
    descent = Descent(*cost.near(batch), first_guess)
    states = [descent.state]
    for number, response in enumerate(responses):
        if number == turn:
            better = (cost.total(descent.state, batch) < cost.total(states[0], batch))[:, None]
            descent = Descent(cost, batch, torch.where(better, descent.state, states[0]))
        descent.step(response)
        states.append(descent.state)
    return states


def conjugate_gradients(
    cost: VariationalCost, batch: Batch, steps: int, scale: float | None = None
) -> Float[Tensor, "b n"]:
    """Iterative 3D-Var: ``steps`` PCG iterations from x_b.

    Preconditioned with B, as operational centres do, or with (B⁻¹ + scale · ρ)⁻¹, at scale 1 the analysis covariance
    of evenly spread observations (for a non-linear H of those of the cost near J). See :func:`descend`.
    """
    response = cost.covariance.eigenvalues
    if scale is not None:
        response = uniform_analysis_filter(*cost.near(batch), scale)
    return descend(cost, batch, batch.xb, [response] * steps)[-1]


def best_scale(cost: VariationalCost, batch: Batch, steps: int) -> float:
    """The scale of ρ, of e⁻⁴, e⁻³·⁷⁵, … e², at which :func:`conjugate_gradients` ends at the lowest mean J."""
    scales = [math.exp(k / 4) for k in range(-16, 9)]
    return min(
        scales, key=lambda scale: float(cost.total(conjugate_gradients(cost, batch, steps, scale), batch).mean())
    )


class UnrolledSolver(nn.Module):
    """A network's first guess, improved by a few steps of descent on J with a learned preconditioner.

    Step k preconditions with (B⁻¹ + e^{a_k} ρ)⁻¹, a_k learned (one a for all for a non-linear H), and goes to the
    minimum on its line: for a linear H the cost decreases from step to step, for a non-linear one the analysis never
    costs more than the first guess (see :func:`descend`).

    In training a share of each batch takes the steps, and the gradient passes through them; the rest stops at the
    first guess. Trained behind the steps alone, the first guess learns slowly, because they hide its errors.

    Args:
        cost: J.
        first_guess: a net from Batch to analysis.
        steps: number of steps; each costs one Hessian product, as a step of conjugate gradients.
        unrolled: share of each training batch that takes the steps.
        scale: e^{a_k} before training; null: 1, for a non-linear H e⁻⁵.
    """

    def __init__(
        self,
        cost: VariationalCost,
        first_guess: nn.Module,
        steps: int = 6,
        unrolled: float = 0.125,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        require(steps >= 1, "steps", "at least 1", steps)
        require(0 < unrolled <= 1, "unrolled", "0 < unrolled ≤ 1", unrolled)
        require(scale is None or scale > 0, "scale", "null or above 0", scale)
        self.cost, self.first_guess, self.steps, self.unrolled = cost, first_guess, steps, unrolled
        # Where slopes decide what observations are worth, ρ is that of the steepest few: begin with B, nearly. And from
        # far away the steps have to stay conjugate to all before, which they do behind one preconditioner.
        linear = cost.operator.linear
        first = (0.0 if linear else -5.0) if scale is None else math.log(scale)
        self.log_scale = nn.Parameter(torch.full((steps if linear else 1,), first))

    def iterates(self, batch: Batch) -> list[Float[Tensor, "b n"]]:
        """The first guess and the state after each step."""
        return self._descend(batch, self.first_guess(batch))

    def _descend(self, batch: Batch, first_guess: Float[Tensor, "b n"]) -> list[Float[Tensor, "b n"]]:
        near = self.cost.near(batch)
        scales = self.log_scale.exp().double().expand(self.steps)
        responses = [uniform_analysis_filter(*near, scale) for scale in scales]
        return descend(self.cost, batch, first_guess, responses)

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        guess = self.first_guess(batch).double()
        if not self.training:
            return self._descend(batch, guess)[-1]
        share = math.ceil(self.unrolled * len(guess))
        some = Batch(*(field[:share] for field in batch))
        return torch.cat([self._descend(some, guess[:share])[-1], guess[share:]])
