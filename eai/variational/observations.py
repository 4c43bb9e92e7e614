"""Observations: their positions, operators (H) and errors (R)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import require
from eai.variational.batch import Batch

ALONE = 12  # Newton steps for one observation alone


class ObservationNetwork:
    """Positions of the observations: distinct grid points or points between them, new in every sample or fixed.

    Args:
        p: number of observations of a sample, or the largest number if ``p_min`` is given.
        p_min: if given, the number varies uniformly from ``p_min`` to ``p``; the rest is padding.
        moving: new positions in every sample; else one random set for all.
        on_grid: on grid points; else uniform in between as well.
        void: angle (radians) of an arc in which nothing is observed, its place random.
        cluster: 0 spreads observations evenly; towards 1 they crowd around a random point of the ring.
        withheld: further observations that are not assimilated, for verification.
    """

    def __init__(
        self,
        p: int = 18,
        p_min: int | None = None,
        moving: bool = True,
        on_grid: bool = True,
        void: float = 0.0,
        cluster: float = 0.0,
        withheld: int = 0,
    ) -> None:
        require(p >= 1, "p", "at least 1", p)
        require(p_min is None or 1 <= p_min <= p, "p_min", f"null or 1 ≤ p_min ≤ p = {p}", p_min)
        require(0 <= void < 2 * math.pi, "void", "0 ≤ void < 2π", void)
        require(0 <= cluster < 1, "cluster", "0 ≤ cluster < 1", cluster)
        require(withheld >= 0, "withheld", "0 or more", withheld)
        self.p, self.p_min, self.moving, self.on_grid = p, p_min, moving, on_grid
        self.void, self.cluster, self.withheld = void, cluster, withheld

    @property
    def slots(self) -> int:
        """Observations of a sample, withheld ones and padding included."""
        return self.p + self.withheld

    def check_grid(self, n: int) -> None:
        """Raise ``ValueError`` if the grid is too small for as many distinct points."""
        free = n - math.ceil((self.void + 2 * self._margin(n)) / (2 * math.pi) * n)
        require(self.slots <= free, "network.p", f"p + withheld ≤ {free} free of {n} grid points", self.slots)

    def draw(
        self, count: int, n: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b p"], Float[Tensor, "b p"], Float[Tensor, "b p"], Float[Tensor, "b p"]]:
        """Index of the grid point to the left, fraction of the cell, masks of assimilated and of withheld ones."""
        device = generator.device
        index = self._indices(count, n, generator)
        fraction = torch.zeros(count, self.slots, device=device)
        if not self.on_grid:
            fraction = torch.rand(count, self.slots, generator=generator, device=device)
        # Which of the slots are withheld is random as well: indices are in random order.
        assimilated = torch.ones(count, self.slots, device=device)
        assimilated[:, self.p :] = 0
        withheld = 1 - assimilated
        if self.p_min is not None:
            number = torch.randint(self.p_min, self.p + 1, (count, 1), generator=generator, device=device)
            assimilated = assimilated * (torch.arange(self.slots, device=device) < number)
        return index, fraction, assimilated, withheld

    def _margin(self, n: int) -> float:
        """Half a cell where the void is closed to whole cells, since an observation lies anywhere in its own."""
        return 0.0 if self.on_grid or not self.void else math.pi / n

    def _indices(self, count: int, n: int, generator: torch.Generator) -> Int[Tensor, "b p"]:
        """Distinct points, drawn without replacement by exponential races with rates that `cluster` and `void` set."""
        device = generator.device
        angle = torch.arange(n, device=device) * (2 * math.pi / n)
        centre = 2 * math.pi * torch.rand(count, 1, generator=generator, device=device)
        apart = (angle - centre).remainder(2 * math.pi)
        concentration = self.cluster / (1 - self.cluster)
        # The logarithms of exponential waiting times: rates overflow for a cluster close to 1.
        uniform = torch.rand(count, n, generator=generator, device=device).clamp(min=1e-12)
        race = (-uniform.log()).log() - concentration * torch.cos(apart)
        margin = self._margin(n)
        race = torch.where((apart + margin - math.pi).abs() < self.void / 2 + margin, math.inf, race)
        chosen = race.argsort(1)[:, : self.slots]
        # Shuffle: points in clusters come first, and withheld observations must be as clustered as assimilated ones.
        return chosen.gather(1, torch.rand(chosen.shape, generator=generator, device=device).argsort(1))


class RegularNetwork(ObservationNetwork):
    """Every k-th grid point, the same in every sample.

    Args:
        n: grid points, a multiple of ``every``.
        every: k; 1 observes every point.
        offset: the first observed point.
    """

    def __init__(self, n: int, every: int = 1, offset: int = 0) -> None:
        require(every >= 1 and n % every == 0, "every", f"a divisor of n = {n}", every)
        require(0 <= offset < every, "offset", f"0 to {every - 1}", offset)
        super().__init__(n // every, moving=False)
        self.every, self.offset = every, offset

    def _indices(self, count: int, n: int, generator: torch.Generator) -> Int[Tensor, "b p"]:
        points = torch.arange(self.offset, n, self.every, device=generator.device)
        return points[None].expand(count, -1)


class ShareNetwork(ObservationNetwork):
    """A share of the grid points, drawn at random: once, or anew for every sample.

    Args:
        n: grid points.
        share: of them that is observed, above 0; at least one is.
        moving: new positions in every sample.
    """

    def __init__(self, n: int, share: float = 0.5, moving: bool = True) -> None:
        require(0 < share <= 1, "share", "above 0, at most 1", share)
        super().__init__(max(1, round(share * n)), moving=moving)


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


class ObservationError:
    """R = D C D: standard deviations D = diag(σ_i), known for each observation, and correlations C.

    Args:
        sigma: standard deviation, or the smallest one if ``sigma_max`` is given.
        sigma_max: if given, each observation's σ is uniform on [sigma, sigma_max].
        correlation_length: C_ij = exp(−d_ij/length), d the chord in radians; 0 for uncorrelated errors.
        inflation: factor of all σ, on top of what batches tell.
    """

    def __init__(
        self,
        sigma: float = 0.05,
        sigma_max: float | None = None,
        correlation_length: float = 0.0,
        inflation: float = 1.0,
    ) -> None:
        require(sigma > 0, "sigma", "above 0", sigma)
        require(sigma_max is None or sigma_max >= sigma, "sigma_max", f"null or at least sigma = {sigma}", sigma_max)
        require(correlation_length >= 0, "correlation_length", "0 or more", correlation_length)
        require(inflation > 0, "inflation", "above 0", inflation)
        self.sigma, self.sigma_max, self.correlation_length = sigma, sigma_max, correlation_length
        self.inflation = inflation

    def inflated(self, factor: float) -> ObservationError:
        """The same with all σ times ``factor``."""
        return ObservationError(self.sigma, self.sigma_max, self.correlation_length, self.inflation * factor)

    def std(self, batch: Batch) -> Float[Tensor, "b p"]:
        """σ of each observation, float64."""
        return self.inflation * batch.obs_sigma.double()

    def draw_sigma(self, count: int, p: int, generator: torch.Generator) -> Float[Tensor, "b p"]:
        device = generator.device
        if self.sigma_max is None:
            return torch.full((count, p), float(self.sigma), device=device)
        return self.sigma + (self.sigma_max - self.sigma) * torch.rand(count, p, generator=generator, device=device)

    def draw(self, batch: Batch, n: int, generator: torch.Generator) -> Float[Tensor, "b p"]:
        """ε ~ N(0, R), in float64, for all slots, withheld ones too."""
        white = torch.randn(batch.y.shape, dtype=torch.float64, generator=generator, device=generator.device)
        if not self.correlation_length:
            return self.std(batch) * white
        whole = batch._replace(obs_mask=torch.ones_like(batch.obs_mask))
        return (cholesky(self.matrix(whole, n)) @ white[:, :, None])[:, :, 0]

    def matrix(self, batch: Batch, n: int) -> Float[Tensor, "b p p"]:
        """R per sample, float64; where an observation takes no part, a row and column of the identity."""
        sigma, mask = self.std(batch), batch.obs_mask.double()
        variance = sigma**2 * mask + (1 - mask)
        if not self.correlation_length:
            return torch.diag_embed(variance)
        angle = (batch.obs_index + batch.obs_fraction.double()) * (2 * math.pi / n)
        chord = 2 * torch.sin((angle[:, :, None] - angle[:, None, :]).abs() / 2)
        scale = sigma * mask
        full = scale[:, :, None] * scale[:, None, :] * torch.exp(-chord / self.correlation_length)
        return full + torch.diag_embed(1 - mask)

    def weigh(self, residual: Float[Tensor, "b p"], batch: Batch, n: int) -> Float[Tensor, "b p"]:
        """R⁻¹ r for each sample; zero where an observation takes no part."""
        masked = residual * batch.obs_mask
        if not self.correlation_length:
            return masked / self.std(batch).to(masked.dtype) ** 2
        factor = cholesky(self.matrix(batch, n))
        return torch.cholesky_solve(masked.double()[:, :, None], factor)[:, :, 0]


def cholesky(matrix: Float[Tensor, "b p p"]) -> Float[Tensor, "b p p"]:
    """The Cholesky factors L of R or H B Hᵀ + R, L Lᵀ = matrix.

    Raises:
        ValueError: one of them is singular, as R is if two observations at one point have perfectly correlated errors.
    """
    factor, info = torch.linalg.cholesky_ex(matrix)
    if matrix.is_meta:  # no values to look at
        return factor
    # A singular matrix may pass with pivots that are rounding, 1e-16 of its diagonal.
    left = factor.diagonal(dim1=1, dim2=2).square() / matrix.diagonal(dim1=1, dim2=2)
    singular = (info > 0) | (left < 1e-14).any(1)
    require(
        not bool(singular.any()),
        "obs_error",
        "a positive definite R (with a correlation_length no two observations at one point)",
        f"a singular one in {int(singular.sum())} of {len(matrix)} samples",
    )
    return factor
