"""The 3D-Var cost, its exact minimiser, and the loss that slide 2.3 prints in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.assimilation.batch import Batch
from eai.tasks.assimilation.covariance import Covariance
from eai.tasks.assimilation.observations import ObservationError, ObservationOperator

OUTER_LOOPS = 10  # Gauss-Newton loops for a non-linear H


class Cost(nn.Module, ABC):
    """A cost of an analysis, in per-sample terms ``background`` and ``observation``, with its minimiser.

    Args:
        covariance: B, the background-error covariance.
        operator: H, the observation operator.
        obs_error: R, the observation-error covariance.
        precision: in which the cost and its gradient are computed.
    """

    def __init__(
        self,
        covariance: Covariance,
        operator: ObservationOperator,
        obs_error: ObservationError,
        precision: Literal["float32", "float64"] = "float64",
    ) -> None:
        super().__init__()
        self.covariance, self.operator, self.obs_error = covariance, operator, obs_error
        self.dtype = torch.float32 if precision == "float32" else torch.float64

    @abstractmethod
    def forward(self, analysis: Float[Tensor, "b n"], batch: Batch) -> dict[str, Float[Tensor, " b"]]: ...

    @abstractmethod
    def minimiser(self, batch: Batch) -> Float[Tensor, "b n"]:
        """The analysis of least cost."""

    def total(self, analysis: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, " b"]:
        return torch.stack(list(self(analysis, batch).values())).sum(0)

    def innovation(self, batch: Batch) -> Float[Tensor, "b p"]:
        """d = y − H(x_b) (O−B), float64; zero where an observation takes no part."""
        return (batch.y - self.operator(batch.xb.double(), batch)) * batch.obs_mask

    def observed_covariance(self, state: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b p p"]:
        """H B Hᵀ with H linearised at ``state``; rows and columns of padding are zero."""
        index, weight = self.operator.stencil(state, batch)
        weight = weight * batch.obs_mask[:, :, None]
        entries = self.covariance.entries(index[:, :, None, :, None], index[:, None, :, None, :])
        return torch.einsum("bpqkl,bpk,bql->bpq", entries, weight.double(), weight.double())

    def spread(self, state: Float[Tensor, "b n"], weights: Float[Tensor, "b p"], batch: Batch) -> Float[Tensor, "b n"]:
        """B Hᵀ w."""
        return self.covariance.multiply(self.operator.adjoint(state, (weights * batch.obs_mask).double(), batch))


class Optimum(NamedTuple):
    """The exact minimum of J: x*, J*, DFS, and the diagonal of H B Hᵀ at the background."""

    state: Float[Tensor, "b n"]
    cost: Float[Tensor, " b"]
    dfs: Float[Tensor, " b"]
    background_variance: Float[Tensor, "b p"]


class VariationalCost(Cost):
    """J(x) = ½ (x−x_b)ᵀ B⁻¹ (x−x_b) + ½ (y−H(x))ᵀ R⁻¹ (y−H(x)), per sample (slide 2.3).

    The value for a sample does not depend on the rest of the batch or on padding.
    """

    def forward(self, analysis: Float[Tensor, "b n"], batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        analysis = analysis.to(self.dtype)
        residual = (batch.y - self.operator(analysis, batch)) * batch.obs_mask
        weighed = self.obs_error.weigh(residual, batch, self.covariance.n)
        return {
            "background": 0.5 * self.covariance.squared_norm(analysis - batch.xb).to(self.dtype),
            "observation": 0.5 * (residual * weighed).sum(1).to(self.dtype),
        }

    def gradient(self, analysis: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b n"]:
        """∇J = B⁻¹ (x − x_b) − H'ᵀ R⁻¹ (y − H(x)), float64."""
        x = analysis.double()
        residual = (batch.y - self.operator(x, batch)) * batch.obs_mask
        weighed = self.obs_error.weigh(residual, batch, self.covariance.n).double()
        return self.covariance.solve(x - batch.xb) - self.operator.adjoint(x, weighed, batch)

    def curvature(
        self, analysis: Float[Tensor, "b n"], direction: Float[Tensor, "b n"], batch: Batch
    ) -> Float[Tensor, "b n"]:
        """(B⁻¹ + H'ᵀ R⁻¹ H') v, the Gauss-Newton Hessian at x times v, float64."""
        x, v = analysis.double(), direction.double()
        observed = self.operator.tangent(x, v, batch) * batch.obs_mask
        weighed = self.obs_error.weigh(observed, batch, self.covariance.n).double()
        return self.covariance.solve(v) + self.operator.adjoint(x, weighed, batch)

    def minimiser(self, batch: Batch) -> Float[Tensor, "b n"]:
        """The BLUE: x* = x_b + K d, K = B Hᵀ (H B Hᵀ + R)⁻¹, d = y − H x_b; a p × p Cholesky per sample.

        For a non-linear H, Gauss-Newton: H is linearised anew at each of ten iterates. The result is a stationary
        point, and the least cost unless J has several minima.
        """
        background = batch.xb.double()
        state = background
        for _ in range(1 if self.operator.linear else OUTER_LOOPS):
            departure = self.operator.tangent(state, state - background, batch) * batch.obs_mask
            d = (batch.y - self.operator(state, batch)) * batch.obs_mask + departure
            weights = torch.cholesky_solve(d.double()[:, :, None], self._factor(state, batch))[:, :, 0]
            state = background + self.spread(state, weights, batch)
        return state

    def minimum(self, batch: Batch) -> Float[Tensor, " b"]:
        """J* = ½ dᵀ (H B Hᵀ + R)⁻¹ d for a linear H; else J at :meth:`minimiser`."""
        if not self.operator.linear:
            return self.total(self.minimiser(batch), batch).double()
        d = self.innovation(batch).double()
        weights = torch.cholesky_solve(d[:, :, None], self._factor(batch.xb.double(), batch))[:, :, 0]
        return 0.5 * (d * weights).sum(1)

    def optimum(self, batch: Batch) -> Optimum:
        """:meth:`minimiser`, :meth:`minimum` and :meth:`degrees_of_freedom` of a batch; one Cholesky if H is linear."""
        background = batch.xb.double()
        observed = self.observed_covariance(background, batch)
        variance = observed.diagonal(dim1=1, dim2=2)
        if not self.operator.linear:
            return Optimum(self.minimiser(batch), self.minimum(batch), self.degrees_of_freedom(batch), variance)
        factor = torch.linalg.cholesky(observed + self.obs_error.matrix(batch, self.covariance.n))
        d = self.innovation(batch).double()
        weights = torch.cholesky_solve(d[:, :, None], factor)[:, :, 0]
        gain = torch.cholesky_solve(observed, factor)
        return Optimum(
            background + self.spread(background, weights, batch),
            0.5 * (d * weights).sum(1),
            gain.diagonal(dim1=1, dim2=2).sum(1),
            variance,
        )

    def degrees_of_freedom(self, batch: Batch) -> Float[Tensor, " b"]:
        """DFS = tr(H K) = tr(H B Hᵀ (H B Hᵀ + R)⁻¹): how many numbers the analysis takes from the observations."""
        state = self.minimiser(batch)
        observed = self.observed_covariance(state, batch)
        gain = torch.cholesky_solve(observed, self._factor(state, batch))
        return gain.diagonal(dim1=1, dim2=2).sum(1)

    def analysis_variance(self, batch: Batch) -> Float[Tensor, "b n"]:
        """The diagonal of A = (I − K H) B."""
        state = self.minimiser(batch)
        points = torch.arange(self.covariance.n, device=state.device)
        index, weight = self.operator.stencil(state, batch)
        weight = weight * batch.obs_mask[:, :, None]
        entries = self.covariance.entries(index[:, :, :, None], points)
        observed = (entries * weight[..., None]).sum(2)
        half = torch.linalg.solve_triangular(self._factor(state, batch), observed, upper=False)
        return self.covariance.entries(points, points) - half.square().sum(1)

    def _factor(self, state: Float[Tensor, "b n"], batch: Batch) -> Float[Tensor, "b p p"]:
        """The Cholesky factor of H B Hᵀ + R. Padding gets unit variance, which affects no result."""
        error = self.obs_error.matrix(batch, self.covariance.n)
        return torch.linalg.cholesky(self.observed_covariance(state, batch) + error)


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
        state = batch.xb.double()
        variance = p**2 * batch.obs_sigma.double() ** 2 / b
        factor = torch.linalg.cholesky(self.observed_covariance(state, batch) + torch.diag_embed(variance))
        weights = torch.cholesky_solve(batch.y.double()[:, :, None], factor)[:, :, 0]
        return self.spread(state, weights, batch)
