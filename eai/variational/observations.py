"""H: from the state to what is observed of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.grid import Grid, as_grid

ALONE = 12  # Newton steps for one observation alone


class ObservationOperator(nn.Module, ABC):
    """H: from a state to the observed quantities.

    Args:
        n: number of points of a ring, or the grid of the state; None: a ring of as many points as the state has.
    """

    linear: bool

    def __init__(self, n: int | Grid | None = None) -> None:
        super().__init__()
        self.grid = None if n is None else as_grid(n)

    def grid_of(self, state: Float[Tensor, "b n"]) -> Grid:
        """The grid of a state.

        Args:
            state: of which the number of points is checked.

        Raises:
            ValueError: the operator is for another number of points.
        """
        n = state.shape[1]
        if self.grid is None:
            return as_grid(n)
        require(self.grid.n == n, "operator.n", f"the state's number of points, {n}", self.grid)
        return self.grid

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

    def __init__(self) -> None:
        super().__init__()

    def stencil(self, state: Float[Tensor, "b n"], batch: Batch) -> tuple[Int[Tensor, "b p k"], Float[Tensor, "b p k"]]:
        return batch.obs_index[:, :, None], torch.ones_like(batch.obs_sigma, dtype=state.dtype)[:, :, None]


def check_between(operator: ObservationOperator, on_grid: bool, why: str) -> None:
    """Refuse an operator that cannot observe between grid points where observations lie there.

    Args:
        operator: H.
        on_grid: whether all observations lie at grid points.
        why: they do not, for the message.

    Raises:
        ValueError: it has a :class:`PointValue`.
    """
    blind = any(isinstance(part, PointValue) for part in operator.modules())
    expected = f"Interpolation or WindowAverage for observations between grid points ({why})"
    require(on_grid or not blind, "operator", expected, "PointValue")


class Interpolation(LinearOperator):
    """Linear interpolation in the cell of the observation: on a ring (1 − f) x_i + f x_(i+1), on a plane bilinear.

    Σ_c Π_k w_k x_c over the 2^d corners c of the cell; w_k is f_k at the far corners along axis k, and 1 − f_k at the
    near ones.

    Args:
        n: see :class:`ObservationOperator`.
    """

    def __init__(self, n: int | Grid | None = None) -> None:
        super().__init__(n)

    def stencil(self, state: Float[Tensor, "b n"], batch: Batch) -> tuple[Int[Tensor, "b p k"], Float[Tensor, "b p k"]]:
        grid = self.grid_of(state)
        far = corners(grid.d).to(state.device)
        index, _ = grid.moved(batch.obs_index, far)
        return index, corner_weights(batch.obs_fraction.to(state.dtype), far)


def corners(d: int) -> Int[Tensor, "k d"]:
    """The 2^d corners of a cell: 0 near and 1 far, for each axis.

    Args:
        d: number of axes.
    """
    return torch.cartesian_prod(*[torch.arange(2)] * d).view(-1, d)


def corner_weights(fraction: Float[Tensor, "*any d"], far: Int[Tensor, "k d"]) -> Float[Tensor, "*any k"]:
    """The weights of a cell's corners in linear interpolation.

    Args:
        fraction: how far into the cell, along each axis.
        far: see :func:`corners`.
    """
    along = torch.where(far > 0, fraction[..., None, :], 1 - fraction[..., None, :])
    return along.prod(-1)


class WindowAverage(LinearOperator):
    """The mean over a box of ``width`` grid points along each axis, centred on the observed one: a footprint.

    At the edge of a bounded domain it is the mean over the points of the box that are inside.

    Args:
        width: number of points along each axis, odd.
        n: see :class:`ObservationOperator`.
    """

    def __init__(self, width: int = 3, n: int | Grid | None = None) -> None:
        super().__init__(n)
        require(width >= 1 and width % 2 == 1, "width", "an odd number of points", width)
        self.width = width

    def stencil(self, state: Float[Tensor, "b n"], batch: Batch) -> tuple[Int[Tensor, "b p k"], Float[Tensor, "b p k"]]:
        grid = self.grid_of(state)
        require(self.width <= min(grid.shape), "width", f"at most n = {min(grid.shape)}", self.width)
        offsets = torch.arange(self.width, device=state.device) - self.width // 2
        box = torch.cartesian_prod(*[offsets] * grid.d).view(-1, grid.d)
        index, inside = grid.moved(batch.obs_index, box)
        return index, inside.to(state.dtype) / inside.sum(-1, keepdim=True)


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
