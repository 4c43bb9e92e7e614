"""Background-error covariances on a ring of n points, [0, 2π)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require


def grid(n: int) -> Float[Tensor, " n"]:
    """The angles 2π i/n of the grid points, in radians, float64."""
    return torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)


class Covariance(nn.Module):
    """A covariance matrix, checked to be positive definite, with its Cholesky factor at hand.

    Args:
        matrix: (n, n), symmetric. Kept in float64.

    Raises:
        ValueError: not square, not symmetric, or not positive definite (names the smallest eigenvalue).
    """

    matrix: Tensor
    cholesky: Tensor
    whitening: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        matrix = matrix.double()
        require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], "matrix", "square", tuple(matrix.shape))
        require(torch.allclose(matrix, matrix.T), "matrix", "symmetric", "an asymmetric one")
        smallest = torch.linalg.eigvalsh(matrix)[0].item()
        # Rounding alone makes eigenvalues of this size, of either sign.
        rounding = len(matrix) * torch.finfo(torch.float64).eps * matrix.abs().max().item()
        require(
            smallest > rounding,
            "covariance",
            "a positive definite matrix (add a nugget, or take a distance valid on the ring)",
            f"smallest eigenvalue {smallest:.3g}",
        )
        # Derived from the configuration, so not part of a checkpoint.
        self.register_buffer("matrix", matrix, persistent=False)
        self.register_buffer("cholesky", torch.linalg.cholesky(matrix), persistent=False)
        identity = torch.eye(len(matrix), dtype=torch.float64)
        whitening = torch.linalg.solve_triangular(self.cholesky, identity, upper=False)
        self.register_buffer("whitening", whitening, persistent=False)

    @property
    def n(self) -> int:
        return len(self.matrix)

    def squared_norm(self, increment: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """δᵀ B⁻¹ δ = |L⁻¹ δ|² for each sample, with B = L Lᵀ; L⁻¹ was computed once."""
        return (increment.to(self.whitening.dtype) @ self.whitening.T).square().sum(1)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """Draws from N(0, B), in float64."""
        white = torch.randn(count, self.n, dtype=torch.float64, generator=generator)
        return white @ self.cholesky.T.cpu()


class GaussianCovariance(Covariance):
    """B_ij = variance · exp(−d_ij² / (2 length²)) + nugget · δ_ij.

    Args:
        n: number of grid points.
        variance: of the correlated part, in units of the state squared.
        length: correlation length in radians.
        nugget: variance of an uncorrelated part. A Gaussian of large length is numerically singular
            without it.
        distance: ``chord`` is 2 sin(|θ_i − θ_j|/2), for which a Gaussian is positive definite on the
            ring; ``line`` is |θ_i − θ_j|, as in slide 2.3, which cuts the ring open at 0.
    """

    def __init__(
        self,
        n: int,
        variance: float = 0.5,
        length: float = 1.5,
        nugget: float = 0.001,
        distance: Literal["chord", "line"] = "chord",
    ) -> None:
        require(n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        require(length > 0, "length", "above 0", length)
        require(nugget >= 0, "nugget", "0 or more", nugget)
        angle = grid(n)
        apart = (angle[:, None] - angle[None, :]).abs()
        if distance == "chord":
            apart = 2 * torch.sin(apart / 2)
        super().__init__(variance * torch.exp(-(apart**2) / (2 * length**2)) + nugget * torch.eye(n))
