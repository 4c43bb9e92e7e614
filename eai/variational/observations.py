"""H: from the state to what is observed of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import require
from eai.variational.batch import Batch

ALONE = 12  # Newton steps for one observation alone


class ObservationOperator(nn.Module, ABC):
    """H: from a state to the observed quantities."""

    linear: bool

    @abstractmethod
    def forward(self, state: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b p"]: ...

    @abstractmethod
    def stencil(self, state: Float[Tensor, "b n"], batch: Batch) -> tuple[Int[Tensor, "b p k"], Float[Tensor, "b p k"]]:
        """Grid points and weights of H, linearised at ``state`` (ignored by a linear H)."""

    def tangent(self, state: Tensor, field: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b p"]:
        """H' v: the derivative of H at ``state`` in the direction v."""
        return apply_stencil(*self.stencil(state, batch), field)

    def adjoint(self, state: Float[Tensor, "b n"], values: Float[Tensor, "b p"], batch: Batch) -> Float[Tensor, "b n"]:
        """H'ᵀ w."""
        index, weight = self.stencil(state, batch)
        spread = (values[:, :, None] * weight).flatten(1)
        return spread.new_zeros(state.shape).scatter_add(1, index.flatten(1), spread)

    @abstractmethod
    def near(
        self, batch: Batch, variance: Float[Tensor, "b p"], inflation: float = 1.0
    ) -> tuple[LinearOperator, Batch]:
        """A linear operator with observations y and σ of it that mean nearly the same; itself for a linear H.

        Args:
            batch: the samples.
            variance: of the background error at the observations.
            inflation: of the σ that the batch tells.
        """

    def matrix(self, state: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b p n"]:
        """H' as a dense matrix, for tests and small problems."""
        index, weight = self.stencil(state, batch)
        empty = weight.new_zeros(*index.shape[:2], state.shape[1])
        return empty.scatter_add(2, index, weight)


def apply_stencil(
    index: Int[Tensor, "b p k"], weight: Float[Tensor, "b p k"], field: Float[Tensor, "b n"]
) -> Float[Tensor, "b p"]:
    values = field.gather(1, index.flatten(1)).view(index.shape)
    return (values * weight).sum(2)


class LinearOperator(ObservationOperator):
    linear = True

    def near(
        self, batch: Batch, variance: Float[Tensor, "b p"], inflation: float = 1.0
    ) -> tuple[LinearOperator, Batch]:
        return self, batch

    def forward(self, state: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b p"]:
        return apply_stencil(*self.stencil(state, batch), state)


class PointValue(LinearOperator):
    """The state at the observed grid point. For observations on grid points."""

    def stencil(self, state: Float[Tensor, "b n"], batch: Batch) -> tuple[Int[Tensor, "b p k"], Float[Tensor, "b p k"]]:
        return batch.obs_index[:, :, None], torch.ones_like(batch.obs_fraction, dtype=state.dtype)[:, :, None]


class Interpolation(LinearOperator):
    """(1 − f) x_i + f x_(i+1), with periodic wrap: linear interpolation to an observation in the cell right of i."""

    def stencil(self, state: Float[Tensor, "b n"], batch: Batch) -> tuple[Int[Tensor, "b p k"], Float[Tensor, "b p k"]]:
        right = (batch.obs_index + 1) % state.shape[1]
        fraction = batch.obs_fraction.to(state.dtype)
        return torch.stack([batch.obs_index, right], 2), torch.stack([1 - fraction, fraction], 2)


class WindowAverage(LinearOperator):
    """The mean over ``width`` grid points centred on the observed one: a footprint, as of a satellite.

    Args:
        width: number of points, odd.
    """

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        require(width >= 1 and width % 2 == 1, "width", "an odd number of points", width)
        self.width = width

    def stencil(self, state: Float[Tensor, "b n"], batch: Batch) -> tuple[Int[Tensor, "b p k"], Float[Tensor, "b p k"]]:
        n = state.shape[1]
        require(self.width <= n, "width", f"at most n = {n}", self.width)
        offsets = torch.arange(self.width, device=state.device) - self.width // 2
        index = (batch.obs_index[:, :, None] + offsets) % n
        return index, torch.full(index.shape, 1 / self.width, dtype=state.dtype, device=state.device)


class PointwiseFunction(ObservationOperator):
    """A non-linear H(x) = f(L x), L linear: f = exp (as a humidity from its logarithm) or |·| (as a wind speed).

    Args:
        inner: L.
        function: ``exp`` or ``abs``.
    """

    linear = False

    def __init__(self, inner: LinearOperator, function: Literal["exp", "abs"] = "exp") -> None:
        super().__init__()
        self.inner, self.function = inner, function

    def _of(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """f and its derivative."""
        if self.function == "exp":
            return values.exp(), values.exp()
        return values.abs(), values.sign()

    def forward(self, state: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b p"]:
        return self._of(self.inner(state, batch))[0]

    def stencil(self, state: Float[Tensor, "b n"], batch: Batch) -> tuple[Int[Tensor, "b p k"], Float[Tensor, "b p k"]]:
        index, weight = self.inner.stencil(state, batch)
        return index, weight * self._of(apply_stencil(index, weight, state))[1][:, :, None]

    def near(
        self, batch: Batch, variance: Float[Tensor, "b p"], inflation: float = 1.0
    ) -> tuple[LinearOperator, Batch]:
        """Observations of L: f is linearised at z, to where the observation alone would move the background L x_b.

        z minimises (z − L x_b)²/(2 variance) + (y − f(z))²/(2 σ²), by Newton steps no longer than the background's
        standard deviation. Then y' = z + (y − f(z))/f'(z), σ' = σ/|f'(z)|.
        """
        background, sigma = self.inner(batch.xb.double(), batch), inflation * batch.obs_sigma.double()
        z, longest = background, variance.sqrt()
        for _ in range(ALONE):
            value, slope = self._of(z)
            precision = slope**2 / sigma**2 + 1 / variance
            step = (slope * (batch.y - value) / sigma**2 - (z - background) / variance) / precision
            z = z + step.clamp(-longest, longest)
        value, slope = self._of(z)
        slope = torch.where(slope < 0, slope.clamp(max=-1e-6), slope.clamp(min=1e-6))
        return self.inner, batch._replace(y=z + (batch.y - value) / slope, obs_sigma=sigma / slope.abs() / inflation)
