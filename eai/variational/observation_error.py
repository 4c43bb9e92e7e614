"""R: the errors of observations."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.grid import Grid, as_grid


class ObservationError:
    """R = D C D: standard deviations D = diag(σ_i), known for each observation, and correlations C.

    Args:
        sigma: standard deviation, or the smallest one if ``sigma_max`` is given.
        sigma_max: if given, each observation's σ is uniform on [sigma, sigma_max].
        correlation_length: C_ij = exp(−d_ij/length), d the distance on the grid (the chord in radians on a ring);
            0 for uncorrelated errors.
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

    def draw(self, batch: Batch, n: int | Grid, generator: torch.Generator) -> Float[Tensor, "b p"]:
        """ε ~ N(0, R), in float64, for all slots, withheld ones too."""
        white = torch.randn(batch.y.shape, dtype=torch.float64, generator=generator, device=generator.device)
        if not self.correlation_length:
            return self.std(batch) * white
        whole = batch._replace(obs_mask=torch.ones_like(batch.obs_mask))
        return (cholesky(self.matrix(whole, n)) @ white[:, :, None])[:, :, 0]

    def matrix(self, batch: Batch, n: int | Grid) -> Float[Tensor, "b p p"]:
        """R per sample, float64; where an observation takes no part, a row and column of the identity."""
        sigma, mask = self.std(batch), batch.obs_mask.double()
        variance = sigma**2 * mask + (1 - mask)
        if not self.correlation_length:
            return torch.diag_embed(variance)
        place = as_grid(n).position(batch.obs_index, batch.obs_fraction)
        apart = as_grid(n).distance(place[:, :, None], place[:, None])
        scale = sigma * mask
        full = scale[:, :, None] * scale[:, None, :] * torch.exp(-apart / self.correlation_length)
        return full + torch.diag_embed(1 - mask)

    def weigh(self, residual: Float[Tensor, "b p"], batch: Batch, n: int | Grid) -> Float[Tensor, "b p"]:
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
