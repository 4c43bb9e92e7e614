"""The 3D-Var cost, its exact minimiser, and the loss that slide 2.3 prints in its place."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.assimilation.covariance import Covariance
from eai.tasks.assimilation.data import Batch, innovation, observe, on_grid


class Cost(nn.Module, ABC):
    """A cost of an analysis, in per-sample terms ``background`` and ``observation``, with its minimiser.

    Args:
        covariance: B, the background-error covariance.
        sigma_o: standard deviation of the observation error; R = σ_o² I.
    """

    def __init__(self, covariance: Covariance, sigma_o: float) -> None:
        super().__init__()
        require(sigma_o > 0, "sigma_o", "above 0", sigma_o)
        self.covariance, self.sigma_o = covariance, sigma_o

    @abstractmethod
    def forward(self, analysis: Float[Tensor, "b n"], batch: Batch) -> dict[str, Float[Tensor, " b"]]: ...

    @abstractmethod
    def minimiser(self, batch: Batch) -> Float[Tensor, "b n"]:
        """The analysis of least cost, exact to rounding."""

    def _solve(
        self, d: Float[Tensor, "b p"], batch: Batch, variance: float
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b p"]]:
        """B Hᵀ (H B Hᵀ + variance I)⁻¹ d and (…)⁻¹ d; padding takes no part."""
        matrix, index, mask = self.covariance.matrix, batch.obs_index, batch.obs_mask.to(d.dtype)
        hbh = matrix[index[:, :, None], index[:, None, :]] * mask[:, :, None] * mask[:, None, :]
        # A padded observation becomes one of a unit-variance quantity that nothing depends on.
        diagonal = variance * mask + (1 - mask)
        factor = torch.linalg.cholesky(hbh + torch.diag_embed(diagonal))
        weights = torch.cholesky_solve((d * mask)[:, :, None], factor)[:, :, 0]
        return on_grid(weights * mask, index, self.covariance.n) @ matrix, weights


class VariationalCost(Cost):
    """J(x) = ½ (x−x_b)ᵀ B⁻¹ (x−x_b) + ½ (y−Hx)ᵀ R⁻¹ (y−Hx), per sample (slide 2.3).

    Computed in float64. The value for a sample does not depend on the rest of the batch or on padding.
    """

    def forward(self, analysis: Float[Tensor, "b n"], batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        analysis = analysis.double()
        residual = (batch.y - observe(analysis, batch.obs_index)) * batch.obs_mask
        return {
            "background": 0.5 * self.covariance.squared_norm(analysis - batch.xb),
            "observation": 0.5 * (residual / self.sigma_o).square().sum(1),
        }

    def minimiser(self, batch: Batch) -> Float[Tensor, "b n"]:
        """The BLUE: x* = x_b + K d, K = B Hᵀ (H B Hᵀ + R)⁻¹, d = y − H x_b; a p × p Cholesky per sample."""
        increment, _ = self._solve(innovation(batch).double(), batch, self.sigma_o**2)
        return batch.xb + increment

    def minimum(self, batch: Batch) -> Float[Tensor, " b"]:
        """J* = ½ dᵀ (H B Hᵀ + R)⁻¹ d."""
        d = innovation(batch).double()
        _, weights = self._solve(d, batch, self.sigma_o**2)
        return 0.5 * (d * weights).sum(1)


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
        analysis = analysis.double()
        residual = (batch.y - observe(analysis, batch.obs_index)) * batch.obs_mask
        p = batch.obs_mask.sum(1)
        return {
            "background": self.covariance.squared_norm(analysis) / len(analysis),
            "observation": (residual / self.sigma_o).square().sum(1) / p**2,
        }

    def minimiser(self, batch: Batch) -> Float[Tensor, "b n"]:
        """z* = B Hᵀ (H B Hᵀ + (p² σ_o²/b) I)⁻¹ y, for batches without padding."""
        require(bool((batch.obs_mask == 1).all()), "obs_mask", "no padded observation", "some")
        b, p = batch.y.shape
        analysis, _ = self._solve(batch.y.double(), batch, p**2 * self.sigma_o**2 / b)
        return analysis
