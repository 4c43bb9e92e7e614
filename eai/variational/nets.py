"""Networks from a batch (background and observations) to the analysis.

Nets with an argument ``cost`` take H, R and B from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.grid import Grid
from eai.variational.observations import corner_weights, corners
from eai.variational.resampling import resample


def dtype_of(net: nn.Module) -> torch.dtype:
    """The precision of a net's weights, and so of the inputs that it takes."""
    return next(net.parameters()).dtype


def observation_density(cost: VariationalCost, batch: Batch) -> Float[Tensor, "b 1"]:
    """Σ 1/σ_i² / n: the mean of R⁻¹ over the grid, float64."""
    return (batch.obs_mask / cost.obs_error.std(batch) ** 2).sum(1, keepdim=True) / cost.covariance.n


def uniform_analysis_filter(cost: VariationalCost, batch: Batch, scale: Tensor | float = 1.0) -> Float[Tensor, "b m"]:
    """(Λ⁻¹ + scale · ρ)⁻¹: the analysis covariance in B's eigenbasis, as if observations were spread evenly (ρ)."""
    return 1 / (1 / cost.covariance.eigenvalues + scale * observation_density(cost, batch))


def seen_innovations(cost: VariationalCost, batch: Batch) -> tuple[Float[Tensor, "b p"], Float[Tensor, "b p"]]:
    """The innovations that a net sees, and the weight of each observation; float64.

    d and 1 for a linear H. For a non-linear one g d and g of the linear problem near it, g = B_ii/(B_ii + σ²): what the
    observation alone would add to the background, from 0 where it says nothing.
    """
    near, batch = cost.near(batch)
    d, weight = near.innovation(batch), batch.obs_mask.double()
    if not cost.operator.linear:
        variance = cost.covariance.entries(batch.obs_index, batch.obs_index)
        weight = weight * variance / (variance + near.obs_error.std(batch) ** 2)
        d = d * weight
    return d, weight


def uniform_increment(cost: VariationalCost, batch: Batch) -> Float[Tensor, "b n"]:
    """u = (B⁻¹ + ρ)⁻¹ Hᵀ R⁻¹ d, the increment if observations were spread evenly; float64, without gradients.

    For a non-linear H that of the linear problem near it.
    """
    with torch.no_grad():
        cost, batch = cost.near(batch)
        d = cost.innovation(batch).double()
        weighed = cost.obs_error.weigh(d, batch, cost.covariance.grid).double()
        forcing = cost.operator.adjoint(batch.xb.double(), weighed, batch)
        return cost.covariance.filter(forcing, uniform_analysis_filter(cost, batch))


def observation_fields(
    cost: VariationalCost, batch: Batch, inner: Grid, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "b 2 points"]:
    """Sums of the innovations and of the observations' weights on another grid: see :func:`seen_innovations`.

    Each is shared among the corners of its cell as in linear interpolation. On the state's own grid, and for a linear H
    of grid points and a uniform R, these are sufficient for the analysis.

    Args:
        cost: J, for the innovations.
        batch: the samples.
        inner: the grid that the fields are given on.
        dtype: of the result: that of the weights of the net that takes it.
    """
    d, weight = (values.to(dtype) for values in seen_innovations(cost, batch))
    index, fraction = inner.cells(inner.steps_on(cost.covariance.grid, batch.obs_index, batch.obs_fraction))
    far = corners(inner.d).to(index.device)
    at, share = inner.moved(index, far)[0], corner_weights(fraction.to(dtype), far)
    sums = [
        share.new_zeros(len(d), inner.n).scatter_add(
            1, at.movedim(2, 1).flatten(1), (share * values[:, :, None]).movedim(2, 1).flatten(1)
        )
        for values in (d, weight)
    ]
    return torch.stack(sums, 1)


class TutorialMLP(nn.Module):
    """The net of slide 2.3: (x_b, y, index/n) → tanh (n+p)² → ReLU n → n, read as the analysis.

    958,908 parameters at n = 60, p = 18. It sees the values of the indices as numbers and is tied to n and p. A full
    batch passes in blocks, because a hidden layer that fits the processor's cache takes a fifth less time.

    Args:
        n: grid points.
        p: observations, padding and withheld ones included.
    """

    BLOCK = 125  # samples

    def __init__(self, n: int, p: int) -> None:
        super().__init__()
        require(n >= 1, "n", "at least 1", n)
        require(1 <= p <= n, "p", f"1 ≤ p ≤ n = {n}", p)
        self.n, self.p = n, p
        self.layers = nn.Sequential(
            nn.Linear(n + 2 * p, (n + p) ** 2), nn.Tanh(), nn.Linear((n + p) ** 2, n), nn.ReLU(), nn.Linear(n, n)
        )

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        slots = batch.y.shape[1]
        require(slots == self.p, "p", f"the number of observations in the data, {slots}", self.p)
        position = (batch.obs_index + batch.obs_fraction[..., -1]) / self.n
        inputs = torch.cat([batch.xb, batch.y * batch.obs_mask, position * batch.obs_mask], dim=1)
        inputs = inputs.to(dtype_of(self))
        if inputs.is_cuda:
            return self.layers(inputs)
        return torch.cat([self.layers(block) for block in inputs.split(self.BLOCK)])


class IncrementMLP(nn.Module):
    """x_a = x_b + f(Hᵀ d, Hᵀ 1): innovations and number of observations per grid point to the increment.

    For a linear H on grid points and a uniform R these are sufficient for the analysis, whatever the number of
    observations. Tied to n.

    Args:
        cost: J, which knows n, H and R.
        width: of the hidden layers.
        depth: number of hidden layers.
    """

    def __init__(self, cost: VariationalCost, width: int = 512, depth: int = 2) -> None:
        super().__init__()
        require(width >= 1, "width", "at least 1", width)
        require(depth >= 1, "depth", "at least 1", depth)
        self.cost, n = cost, cost.covariance.n
        sizes = [2 * n] + [width] * depth
        hidden = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(width, n))

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        fields = observation_fields(self.cost, batch, self.cost.covariance.grid, dtype_of(self))
        return batch.xb + self.layers(fields.flatten(1))


class CircularConvolution(nn.Module):
    """x_a = x_b + u + f(fields, u): residual convolutions, the same weights for any number of points.

    u is the increment for evenly spread observations. The convolutions work on a grid of ``points``, to which the
    fields are brought and from which f is interpolated: a kernel spans the same part of the domain whatever the
    state's grid is. They are circular along periodic axes, and see zeros beyond bounded ones. Dilations 1, 2, 4, 8
    widen the view; a mean over the grid joins each block.

    With ``smooth`` f passes through (B⁻¹ + ρ)⁻¹ ρ, ρ as in u: scales that B has little variance at, for which J makes
    noise of the net expensive, are taken out of it. On a plane most scales are such.

    Args:
        cost: J.
        points: of the inner grid, for all axes or for each.
        channels: of the hidden fields.
        blocks: number of residual blocks; block i has dilation 2^(i mod 4).
        kernel: points of a convolution along each axis, odd.
        smooth: take scales out of f at which B has little variance.
    """

    def __init__(
        self,
        cost: VariationalCost,
        points: int | Sequence[int] = 60,
        channels: int = 24,
        blocks: int = 4,
        kernel: int = 5,
        smooth: bool = False,
    ) -> None:
        super().__init__()
        grid = cost.covariance.grid
        shape = [points] * grid.d if isinstance(points, int) else list(points)
        require(len(shape) == grid.d, "points", f"a number, or one for each of {grid.d} axes", points)
        require(min(shape) >= 8, "points", "at least 8", points)
        require(channels >= 1, "channels", "at least 1", channels)
        require(blocks >= 1, "blocks", "at least 1", blocks)
        require(kernel >= 1 and kernel % 2 == 1, "kernel", "an odd number of points", kernel)
        widest = 2 ** min(blocks - 1, 3) * (kernel // 2)
        require(widest <= min(shape), "points", f"at least {widest}, half the widest kernel", points)
        self.cost, self.inner, self.smooth = cost, grid.resized(shape), smooth
        convolution = nn.Conv1d if grid.d == 1 else nn.Conv2d
        self.lift = convolution(3, channels, 1)
        self.mix = nn.ModuleList(convolution(channels, channels, kernel, dilation=2 ** (i % 4)) for i in range(blocks))
        self.point = nn.ModuleList(convolution(channels, channels, 1) for _ in range(blocks))
        self.read = convolution(channels, 1, 1)
        # Start from u itself.
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)  # type: ignore[arg-type]

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        uniform, dtype = uniform_increment(self.cost, batch), dtype_of(self)
        grid, inner = self.cost.covariance.grid, self.inner
        fields = observation_fields(self.cost, batch, inner, dtype)
        brought = resample(uniform, grid, inner.shape).to(dtype)[:, None]
        hidden = self.lift(torch.cat([fields, brought], 1).unflatten(2, inner.shape))
        space = tuple(range(2, hidden.ndim))
        for mix, point in zip(self.mix, self.point, strict=True):
            mixed = nn.functional.silu(mix(self._padded(hidden, mix)))
            hidden = hidden + point(mixed + mixed.mean(space, keepdim=True))
        correction = resample(self.read(hidden)[:, 0].flatten(1), inner, grid.shape)
        if self.smooth:
            correction = self._smoothed(correction, batch)
        return batch.xb + uniform + correction

    def _smoothed(self, correction: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b n"]:
        near = self.cost.near(batch)
        return self.cost.covariance.filter(correction, uniform_analysis_filter(*near) * observation_density(*near))

    def _padded(self, hidden: Tensor, mix: nn.Module) -> Tensor:
        """The fields with as many points around them as a convolution loses."""
        assert isinstance(mix, nn.Conv1d | nn.Conv2d)
        width = mix.dilation[0] * (mix.kernel_size[0] // 2)
        for axis, closed in enumerate(self.inner.periodic):
            pads = [0] * (2 * self.inner.d)
            before = 2 * (self.inner.d - 1 - axis)  # torch counts axes from the last one
            pads[before], pads[before + 1] = width, width
            hidden = nn.functional.pad(hidden, pads, mode="circular" if closed else "constant")
        return hidden
