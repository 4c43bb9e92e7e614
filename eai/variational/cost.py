"""The 3D-Var cost, its exact minimiser, and the loss that slide 2.3 prints in its place."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.cost_base import AT_ONCE, Cost, Regression
from eai.variational.covariance_base import Covariance
from eai.variational.newton import damped_newton
from eai.variational.observation_error import ObservationError
from eai.variational.observations import ObservationOperator


class Optimum(NamedTuple):
    """The minimum of J: x*, J*, DFS, the diagonal of H B Hᵀ at the background, and 1 where the search converged."""

    state: Float[Tensor, "b n"]
    cost: Float[Tensor, " b"]
    dfs: Float[Tensor, " b"]
    background_variance: Float[Tensor, "b p"]
    converged: Float[Tensor, " b"]


class VariationalCost(Cost):
    """J(x) = ½ (x−x_b)ᵀ B⁻¹ (x−x_b) + ½ (y−H(x))ᵀ R⁻¹ (y−H(x)), per sample (slide 2.3).

    The value for a sample does not depend on the rest of the batch or on padding.

    With ``bias_sigma`` = σ_β, a background whose error may have an offset β is corrected while it is analysed, as
    variational bias correction does (Dee 2005): J(x, β) = ½ (x−x_b−β1)ᵀ B⁻¹ (x−x_b−β1) + ½ β²/σ_β² + J_o(x). The
    least over β is J with B + σ_β² 1 1ᵀ in place of B: the cost that nets and solvers see; :meth:`bias` gives β.

    Args:
        covariance, operator, obs_error, precision: see :class:`Cost`.
        bias_sigma: σ_β, the prior standard deviation of the offset; 0 for none.
    """

    _latest: tuple[Batch, Optimum] | None = None

    def __init__(
        self,
        covariance: Covariance,
        operator: ObservationOperator,
        obs_error: ObservationError,
        precision: Literal["float32", "float64"] = "float64",
        bias_sigma: float = 0.0,
    ) -> None:
        require(bias_sigma >= 0, "bias_sigma", "0 or more", bias_sigma)
        self.bias_variance = bias_sigma**2
        with_offset = covariance.plus_constant(self.bias_variance) if bias_sigma else covariance
        super().__init__(with_offset, operator, obs_error, precision)

    def exact(self) -> VariationalCost:
        """The same cost in float64."""
        cost = VariationalCost(self.covariance, self.operator, self.obs_error)
        cost.bias_variance = self.bias_variance  # B has it already
        return cost

    def bias(self, analysis: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, " b"]:
        """β = σ_β² 1ᵀ (B + σ_β² 1 1ᵀ)⁻¹ (x − x_b), the offset that fits the analysis best; float64."""
        return self.bias_variance * self.covariance.solve(analysis.double() - batch.xb).sum(1)

    def forward(self, analysis: Float[Tensor, "b n"], batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        analysis = analysis.to(self.dtype)
        return {
            "background": 0.5 * self.covariance.squared_norm(analysis - batch.xb).to(self.dtype),
            "observation": self.observation_term(analysis, batch).to(self.dtype),
        }

    def observation_term(self, state: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, " b"]:
        """½ (y−H(x))ᵀ R⁻¹ (y−H(x)), in the precision of the state."""
        residual = (batch.y - self.operator(state, batch)) * batch.obs_mask
        return 0.5 * (residual * self.obs_error.weigh(residual, batch, self.covariance.grid)).sum(1)

    def pull(self, state: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b n"]:
        """H'ᵀ R⁻¹ (y − H(x)), the observations' part of −∇J, float64."""
        x = state.double()
        residual = (batch.y - self.operator(x, batch)) * batch.obs_mask
        weighed = self.obs_error.weigh(residual, batch, self.covariance.grid).double()
        return self.operator.adjoint(x, weighed, batch)

    def gradient(self, analysis: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b n"]:
        """∇J = B⁻¹ (x − x_b) − H'ᵀ R⁻¹ (y − H(x)), float64."""
        return self.covariance.solve(analysis.double() - batch.xb) - self.pull(analysis, batch)

    def observed_curvature(
        self, state: Float[Tensor, "b n"], direction: Float[Tensor, "b n"], batch: Batch
    ) -> Float[Tensor, "b n"]:
        """H'ᵀ R⁻¹ H' v, the observations' part of the Gauss-Newton Hessian at x times v, float64."""
        x, v = state.double(), direction.double()
        observed = self.operator.tangent(x, v, batch) * batch.obs_mask
        weighed = self.obs_error.weigh(observed, batch, self.covariance.grid).double()
        return self.operator.adjoint(x, weighed, batch)

    def curvature(
        self, analysis: Float[Tensor, "b n"], direction: Float[Tensor, "b n"], batch: Batch
    ) -> Float[Tensor, "b n"]:
        """(B⁻¹ + H'ᵀ R⁻¹ H') v, the Gauss-Newton Hessian at x times v, float64."""
        return self.covariance.solve(direction) + self.observed_curvature(analysis, direction, batch)

    def near(self, batch: Batch) -> tuple[VariationalCost, Batch]:
        """A quadratic cost near J, and its observations: J for a linear H (see :meth:`ObservationOperator.near`)."""
        variance = self.covariance.entries(batch.obs_index, batch.obs_index)
        operator, like = self.operator.near(batch, variance, self.obs_error.inflation)
        return (self if self.operator.linear else VariationalCost(self.covariance, operator, self.obs_error)), like

    def minimiser(self, batch: Batch) -> Float[Tensor, "b n"]:
        """The BLUE: x* = x_b + K d, K = B Hᵀ (H B Hᵀ + R)⁻¹, d = y − H x_b; a p × p Cholesky per sample.

        For a non-linear H, Gauss-Newton from the background, with a line search for each sample, until √(gᵀBg), g = ∇J,
        is 1e-8 of that at the background (:func:`damped_newton`): the least cost unless J has several minima.
        """
        return self._search(batch)[0]

    def minimum(self, batch: Batch) -> Float[Tensor, " b"]:
        """J* = ½ dᵀ (H B Hᵀ + R)⁻¹ d for a linear H; else J at :meth:`minimiser`."""
        return self.optimum(batch).cost

    def degrees_of_freedom(self, batch: Batch) -> Float[Tensor, " b"]:
        """DFS = tr(H K) = tr(H B Hᵀ (H B Hᵀ + R)⁻¹): how many numbers the analysis takes from the observations."""
        return self.optimum(batch).dfs

    def optimum(self, batch: Batch) -> Optimum:
        """The minimiser and what is known of it; kept, so that all methods scored on a batch share it."""
        if self._latest is None or any(a is not b for a, b in zip(self._latest[0], batch, strict=True)):
            state, converged = self._search(batch)
            linear = self._linearised(state, batch)
            fixed = self.operator.linear
            observed = linear.observed if fixed else self.observed_covariance(batch.xb.double(), batch)
            gain = torch.cholesky_solve(linear.observed, linear.factor)
            cost = 0.5 * (self.innovation(batch) * linear.weights).sum(1)
            if not self.operator.linear:
                cost = self.total(state, batch).double()
            variance, dfs = observed.diagonal(dim1=1, dim2=2), gain.diagonal(dim1=1, dim2=2).sum(1)
            self._latest = batch, Optimum(state, cost, dfs, variance, converged)
        return self._latest[1]

    def analysis_variance(self, batch: Batch) -> Float[Tensor, "b n"]:
        """The diagonal of A = (I − K H) B."""
        state = self.minimiser(batch)
        index, weight = self.operator.stencil(state, batch)
        weight, factor = weight * batch.obs_mask[:, :, None], self._linearised(state, batch).factor
        parts = []
        for points in torch.arange(self.covariance.n, device=state.device).split(max(1, AT_ONCE // index.numel())):
            observed = (self.covariance.entries(index[:, :, :, None], points) * weight[..., None]).sum(2)
            half = torch.linalg.solve_triangular(factor, observed, upper=False)
            parts.append(self.covariance.entries(points, points) - half.square().sum(1))
        return torch.cat(parts, 1)

    def _linearised(self, state: Float[Tensor, "b n"], batch: Batch) -> Regression:
        """The analysis for H linearised at ``state``; the BLUE for a linear H, wherever that is."""
        departures = batch.y - self.operator(state, batch) + self.operator.tangent(state, state - batch.xb, batch)
        error = self.obs_error.matrix(batch, self.covariance.grid)
        return self.regress(state, departures * batch.obs_mask, error, batch)

    def _search(self, batch: Batch) -> tuple[Float[Tensor, "b n"], Float[Tensor, " b"]]:
        """The minimiser, and 1 where it was reached to the tolerance."""
        background = batch.xb.double()
        if self.operator.linear:
            increment = self.covariance.multiply(self._linearised(background, batch).dual)
            return background + increment, background.new_ones(len(background))

        # In v, x = x_b + B v, neither J nor its gradient needs B⁻¹.
        def at(v: Tensor, rows: Tensor) -> tuple[Batch, Tensor]:
            part = Batch(*(field[rows] for field in batch))
            return part, part.xb + self.covariance.multiply(v)

        def value(v: Tensor, rows: Tensor) -> Tensor:
            part, state = at(v, rows)
            return 0.5 * (v * (state - part.xb)).sum(1) + self.observation_term(state, part)

        def propose(v: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            part, state = at(v, rows)
            return v - self.pull(state, part), self._linearised(state, part).dual - v

        v, converged = damped_newton(torch.zeros_like(background), value, propose, self.covariance.multiply)
        return background + self.covariance.multiply(v), converged


class SlidesCost(Cost):
    """The loss of slide 2.3 as its code prints it, for batches of b samples and p observations:

    background (1/b) zᵀ B⁻¹ z and observation |y − H z|² / (p² σ_o²), z being the net's output.

    It departs from J, the cost on the slide before it:

    * z stands for an increment in the first term and for an analysis in the second, so that
      **x_b never enters the loss**: the net learns an analysis with background zero;
    * the first term is divided by the batch size, so that **the batch size changes the analysis**;
    * the second is divided by p² and neither has the factor ½, so that their ratio is not that of J.
    """

    def forward(self, analysis: Float[Tensor, "b n"], batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        analysis = analysis.to(self.dtype)
        residual = (batch.y - self.operator(analysis, batch)) * batch.obs_mask
        p = batch.obs_mask.sum(1)
        return {
            "background": self.covariance.squared_norm(analysis).to(self.dtype) / len(analysis),
            "observation": (residual / batch.obs_sigma).square().sum(1) / p**2,
        }

    def minimiser(self, batch: Batch) -> Float[Tensor, "b n"]:
        """z* = B Hᵀ (H B Hᵀ + (p² σ_o²/b) I)⁻¹ y, for linear H and batches without padding."""
        require(bool((batch.obs_mask == 1).all()), "obs_mask", "no padded observation", "some")
        b, p = batch.y.shape
        error = torch.diag_embed(p**2 * batch.obs_sigma.double() ** 2 / b)
        return self.covariance.multiply(self.regress(batch.xb.double(), batch.y, error, batch).dual)
