"""Background-error covariances on a ring of n points, [0, 2π)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import require

EPSILON = torch.finfo(torch.float64).eps


def grid(n: int) -> Float[Tensor, " n"]:
    """The angles 2π i/n of the grid points, in radians, float64."""
    return torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)


def slides_grid(n: int) -> Float[Tensor, " n"]:
    """The grid of slide 2.3: angles rounded to three decimals."""
    return (grid(n) * 1000).round() / 1000


class FixedDouble:
    """A float64 buffer of a module that stays float64 when the module is converted to another precision.

    It is stored as its bits in an int64 buffer, because ``Module.to`` moves integers to a device but does not convert
    them.

    Args:
        persistent: whether it is part of a checkpoint; not if it is derived from the configuration.
    """

    def __init__(self, persistent: bool = False) -> None:
        self._persistent = persistent

    def __set_name__(self, owner: type, name: str) -> None:
        self._bits = f"{name}_bits"

    def __get__(self, module: nn.Module, owner: type) -> Tensor:
        return module.get_buffer(self._bits).view(torch.float64)

    def __set__(self, module: nn.Module, value: Tensor) -> None:
        module.register_buffer(self._bits, value.contiguous().view(torch.int64), persistent=self._persistent)


class Covariance(nn.Module, ABC):
    """A symmetric positive definite matrix B (n, n), held by its eigenvalues, in float64.

    Every product that the 3D-Var cost needs is a function of B: see :meth:`filter`.

    Args:
        eigenvalues: (m,), of the eigenvectors that the subclass knows.
        n: size of the state.
        rounding: relative error of the eigenvalues; smaller ones count as zero.

    ``has_length`` tells whether there is a length that can be rescaled.

    Raises:
        ValueError: B is not positive definite; names the smallest eigenvalue.
    """

    has_length = False
    eigenvalues = FixedDouble()

    def __init__(self, eigenvalues: Float[Tensor, " m"], n: int, rounding: float) -> None:
        super().__init__()
        self.n = n
        smallest, largest = eigenvalues.min().item(), eigenvalues.max().item()
        require(
            smallest > rounding * largest,
            "covariance",
            "a positive definite matrix (add a nugget, or take a distance valid on the ring)",
            f"smallest eigenvalue {smallest:.3g}",
        )
        self.eigenvalues = eigenvalues

    @abstractmethod
    def entries(self, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> Float[Tensor, ...]:
        """B_ij for index tensors that broadcast against each other."""

    @abstractmethod
    def filter(self, field: Float[Tensor, "b n"], response: Float[Tensor, "*b m"]) -> Float[Tensor, "b n"]:
        """Q diag(response) Qᵀ v for each row v, B = Q Λ Qᵀ; one response for all rows, or one for each."""

    @property
    def matrix(self) -> Float[Tensor, "n n"]:
        index = torch.arange(self.n, device=self.eigenvalues.device)
        return self.entries(index[:, None], index[None, :])

    def multiply(self, field: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """B v for each row v."""
        return self.filter(field, self.eigenvalues)

    def solve(self, field: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """B⁻¹ v for each row v."""
        return self.filter(field, 1 / self.eigenvalues)

    def squared_norm(self, increment: Float[Tensor, "b n"]) -> Float[Tensor, " b"]:
        """δᵀ B⁻¹ δ = |B^(−½) δ|² for each row δ."""
        return self.filter(increment, self.eigenvalues.rsqrt()).square().sum(1)

    def scaled_entries(
        self, i: Int[Tensor, ...], j: Int[Tensor, ...], variance: Float[Tensor, ""], length: Float[Tensor, ""]
    ) -> Float[Tensor, ...]:
        """B_ij with the variance of its correlated part and its length times these factors, differentiable in them.

        Where ``has_length`` is false, the length plays no part. A nugget stays as it is: in the innovations of
        observations at grid points it could not be told from σ_o².
        """
        return variance * self.entries(i, j)

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        """The covariance that :meth:`scaled_entries` describes."""
        return DenseCovariance(variance * self.matrix)

    def plus_constant(self, variance: float) -> Covariance:
        """B + variance · 1 1ᵀ: errors with an offset in common, of that variance."""
        return DenseCovariance(self.matrix + variance)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """``count`` draws from N(0, B)."""
        white = torch.randn(count, self.n, dtype=torch.float64, generator=generator, device=generator.device)
        return self.filter(white.to(self.eigenvalues.device), self.eigenvalues.sqrt())


class DenseCovariance(Covariance):
    """A covariance given as a matrix; its eigenvectors are computed on construction.

    Args:
        matrix: (n, n), symmetric.
    """

    values, eigenvectors = FixedDouble(), FixedDouble()

    def __init__(self, matrix: Tensor) -> None:
        matrix = matrix.double()
        require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], "matrix", "square", tuple(matrix.shape))
        require(torch.allclose(matrix, matrix.T), "matrix", "symmetric", "an asymmetric one")
        eigenvalues, eigenvectors = torch.linalg.eigh(matrix)
        super().__init__(eigenvalues, len(matrix), len(matrix) * EPSILON)
        self.values, self.eigenvectors = matrix, eigenvectors

    def entries(self, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> Float[Tensor, ...]:
        return self.values[i, j]

    def filter(self, field: Float[Tensor, "b n"], response: Float[Tensor, "*b m"]) -> Float[Tensor, "b n"]:
        return ((field.double() @ self.eigenvectors) * response) @ self.eigenvectors.T


class StationaryCovariance(Covariance):
    """B_ij = c((i − j) mod n): diagonal in Fourier space, so that every product is an FFT.

    Args:
        column: c (n,), the covariance with point 0; even, c(k) = c(n − k).
    """

    column = FixedDouble()

    def __init__(self, column: Float[Tensor, " n"]) -> None:
        column = column.double()
        require(torch.allclose(column, column.roll(-1).flip(0)), "column", "even: c(k) = c(n − k)", "an uneven one")
        super().__init__(torch.fft.rfft(column).real, len(column), max(1.0, math.log2(len(column))) * EPSILON)
        self.column = column

    def entries(self, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> Float[Tensor, ...]:
        return self.column[(i - j) % self.n]

    def filter(self, field: Float[Tensor, "b n"], response: Float[Tensor, "*b m"]) -> Float[Tensor, "b n"]:
        return torch.fft.irfft(torch.fft.rfft(field.double()) * response, n=self.n)

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        return StationaryCovariance(variance * self.column)

    def plus_constant(self, variance: float) -> Covariance:
        return StationaryCovariance(self.column + variance)


class IsotropicCovariance(StationaryCovariance, ABC):
    """B_ij = variance · ρ(d/length) + nugget · δ_ij, d = 2 sin(θ/2) the chord between the points.

    A correlation ρ that is valid in the plane is valid on the ring for the chord.

    Args:
        n: number of grid points.
        variance: of the correlated part, in units of the state squared.
        length: of the correlation, in radians.
        nugget: variance of an uncorrelated part.
    """

    has_length = True
    longest = math.inf

    def __init__(self, n: int, variance: float, length: float, nugget: float) -> None:
        require(n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        require(length > 0, "length", "above 0", length)
        require(nugget >= 0, "nugget", "0 or more", nugget)
        column = variance * self.correlation(2 * torch.sin(grid(n) / 2) / length)
        # Exactly even, where rounding of the sine is not.
        column = 0.5 * (column + column.roll(-1).flip(0))
        column[0] += nugget
        super().__init__(column)
        self.variance, self.length, self.nugget = variance, length, nugget

    @staticmethod
    @abstractmethod
    def correlation(distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        """ρ of distances in lengths, from 1 at 0."""

    def scaled_entries(
        self, i: Int[Tensor, ...], j: Int[Tensor, ...], variance: Float[Tensor, ""], length: Float[Tensor, ""]
    ) -> Float[Tensor, ...]:
        chord = 2 * torch.sin((i - j).abs().double() * (math.pi / self.n))
        correlated = self.variance * self.correlation(chord / (self.length * length).clamp(max=self.longest))
        return variance * correlated + self.nugget * (i == j).double()

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        scaled = min(self.length * length, self.longest)
        return type(self)(self.n, self.variance * variance, scaled, self.nugget)


class DiagonalCovariance(StationaryCovariance):
    """B = variance · I.

    Args:
        n: number of grid points.
        variance: of every point, in units of the state squared.
    """

    def __init__(self, n: int, variance: float = 0.5) -> None:
        require(n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        super().__init__(variance * torch.eye(n, 1, dtype=torch.float64)[:, 0])


class GaussianCovariance(IsotropicCovariance):
    """B_ij = variance · exp(−d²/(2 length²)) + nugget · δ_ij, d the chord between the points.

    Args:
        n, variance, length: see :class:`IsotropicCovariance`.
        nugget: variance of an uncorrelated part. A Gaussian of large length is numerically singular
            without it.
    """

    def __init__(self, n: int, variance: float = 0.5, length: float = 1.5, nugget: float = 0.001) -> None:
        super().__init__(n, variance, length, nugget)

    @staticmethod
    def correlation(distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        return torch.exp(-(distance**2) / 2)


class SOARCovariance(IsotropicCovariance):
    """Second-order autoregressive: B_ij = variance · (1 + d/length) exp(−d/length) + nugget · δ_ij."""

    def __init__(self, n: int, variance: float = 0.5, length: float = 0.5, nugget: float = 0.0) -> None:
        super().__init__(n, variance, length, nugget)

    @staticmethod
    def correlation(distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        return (1 + distance) * torch.exp(-distance)


def gaspari_cohn(distance: Float[Tensor, ...], support: float) -> Float[Tensor, ...]:
    """The compactly supported correlation of Gaspari and Cohn (1999, eq. 4.10): 1 at 0, 0 beyond ``support``."""
    z = distance / (support / 2)
    near = -(z**5) / 4 + z**4 / 2 + 5 * z**3 / 8 - 5 * z**2 / 3 + 1
    safe = z.clamp(min=1e-9)
    far = z**5 / 12 - z**4 / 2 + 5 * z**3 / 8 + 5 * z**2 / 3 - 5 * z + 4 - 2 / (3 * safe)
    return torch.where(z <= 1, near, torch.where(z <= 2, far, torch.zeros_like(z)))


class GaspariCohnCovariance(IsotropicCovariance):
    """B_ij = variance · GC(d; support) + nugget · δ_ij: a Gaussian-like correlation that ends at ``support``.

    Args:
        n, variance, nugget: see :class:`IsotropicCovariance`.
        support: chord from which on the correlation is 0, at most 2, the ring's diameter.
    """

    longest = 2.0  # the ring's diameter

    def __init__(self, n: int, variance: float = 0.5, support: float = 1.5, nugget: float = 0.0) -> None:
        require(0 < support <= 2, "support", "0 < support ≤ 2, the ring's diameter", support)
        super().__init__(n, variance, support, nugget)

    @staticmethod
    def correlation(distance: Float[Tensor, ...]) -> Float[Tensor, ...]:
        return gaspari_cohn(distance, 1.0)


class PowerLawCovariance(StationaryCovariance):
    """Spectral: the eigenvalue of wavenumber k is proportional to (1 + (k/k0)²)^(−slope/2), with trace n · variance.

    Args:
        n: number of grid points.
        variance: of each point.
        k0: wavenumber below which the spectrum is flat.
        slope: of the decay beyond.
    """

    def __init__(self, n: int, variance: float = 0.5, k0: float = 2.0, slope: float = 4.0) -> None:
        require(n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        require(k0 > 0, "k0", "above 0", k0)
        require(slope >= 0, "slope", "0 or more", slope)
        super().__init__(torch.fft.irfft(power_law_spectrum(n, variance, k0, slope), n=n))
        self.variance, self.k0, self.slope = variance, k0, slope

    has_length = True  # 1/k0

    def scaled_entries(
        self, i: Int[Tensor, ...], j: Int[Tensor, ...], variance: Float[Tensor, ""], length: Float[Tensor, ""]
    ) -> Float[Tensor, ...]:
        spectrum = power_law_spectrum(self.n, self.variance, self.k0 / length, self.slope)
        return variance * torch.fft.irfft(spectrum, n=self.n)[(i - j) % self.n]

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        return PowerLawCovariance(self.n, self.variance * variance, self.k0 / length, self.slope)


def power_law_spectrum(n: int, variance: float, k0: float | Tensor, slope: float) -> Float[Tensor, " m"]:
    """The eigenvalues of :class:`PowerLawCovariance` for the wavenumbers 0 … n/2."""
    k = torch.arange(n // 2 + 1, dtype=torch.float64, device=k0.device if isinstance(k0, Tensor) else None)
    shape = (1 + (k / k0) ** 2) ** (-slope / 2)
    return shape * variance / torch.fft.irfft(shape, n=n)[0]


class SlidesCovariance(DenseCovariance):
    """B of slide 2.3: a Gaussian of |θ_i − θ_j|, the distance on the line, which cuts the ring open at 0.

    The angles θ are rounded to three decimals, as on the slide.

    Args:
        n, variance, nugget: see :class:`IsotropicCovariance`.
        length: of the correlation, in radians.
    """

    def __init__(self, n: int, variance: float = 0.5, length: float = 1.5, nugget: float = 0.001) -> None:
        require(n >= 2, "n", "at least 2", n)
        require(variance > 0, "variance", "above 0", variance)
        require(length > 0, "length", "above 0", length)
        require(nugget >= 0, "nugget", "0 or more", nugget)
        apart = slides_grid(n)[:, None] - slides_grid(n)[None, :]
        correlated = variance * torch.exp(-(apart**2) / (2 * length**2))
        super().__init__(correlated + nugget * torch.eye(n, dtype=torch.float64))
