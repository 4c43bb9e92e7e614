"""B and its products: what every background-error covariance has."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import require
from eai.variational.eigenbasis import Eigenbasis, FixedDouble, Fourier, Kronecker
from eai.variational.grid import Grid, as_grid

LARGEST_MATRIX = 4096  # points of which B is ever written out


class Covariance(nn.Module, ABC):
    """A symmetric positive definite matrix B (n, n), held by its eigenvalues, in float64.

    Every product that the 3D-Var cost needs is a function of B: see :meth:`filter`.

    Args:
        eigenvalues: (m,), of the eigenvectors in ``basis``.
        basis: the eigenvectors.
        grid: of the state.

    ``has_length`` tells whether there is a length that can be rescaled.

    Raises:
        ValueError: B is not positive definite; names the smallest eigenvalue.
    """

    has_length = False
    parts: tuple[Covariance, ...] = ()  # that it is a sum of, where it keeps them
    eigenvalues = FixedDouble()

    def __init__(self, eigenvalues: Float[Tensor, " m"], basis: Eigenbasis, grid: Grid) -> None:
        super().__init__()
        self.grid, self.n = grid, grid.n
        smallest, largest = eigenvalues.min().item(), eigenvalues.max().item()
        require(
            smallest > basis.rounding * largest,
            "covariance",
            "a positive definite matrix (add a nugget, or take a distance valid on the grid)",
            f"smallest eigenvalue {smallest:.3g}",
        )
        self.eigenvalues, self.basis = eigenvalues, basis

    @abstractmethod
    def entries(self, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> Float[Tensor, ...]:
        """B_ij for index tensors that broadcast against each other."""

    def filter(self, field: Float[Tensor, "b n"], response: Float[Tensor, "*b m"]) -> Float[Tensor, "b n"]:
        """Q diag(response) Qᵀ v for each row v, B = Q Λ Qᵀ; one response for all rows, or one for each."""
        return self.basis.back(self.basis(field) * response)

    @property
    def matrix(self) -> Float[Tensor, "n n"]:
        """B written out.

        Raises:
            ValueError: of more than 4,096 points.
        """
        check_size(self.n)
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
        return DenseCovariance(variance * self.matrix, self.grid)

    def plus_constant(self, variance: float) -> Covariance:
        """B + variance · 1 1ᵀ: errors with an offset in common, of that variance."""
        return DenseCovariance(self.matrix + variance, self.grid)

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """``count`` draws from N(0, B)."""
        white = torch.randn(count, self.n, dtype=torch.float64, generator=generator, device=generator.device)
        return self.filter(white.to(self.eigenvalues.device), self.eigenvalues.sqrt())


def check_size(n: int) -> None:
    """Refuse to write B out for so many points, with what to take instead.

    Args:
        n: points.

    Raises:
        ValueError: they are more than 4,096.
    """
    require(
        n <= LARGEST_MATRIX,
        "covariance",
        f"at most {LARGEST_MATRIX:,} points where B is a dense matrix (beyond: a periodic grid, wider than the domain "
        "by the reach of B; or, on a bounded one, a Gaussian or separable = true)",
        n,
    )


class DenseCovariance(Covariance):
    """A covariance given as a matrix; its eigenvectors are computed on construction unless they are given.

    Args:
        matrix: (n, n), symmetric; at most 4,096 points.
        grid: of the state; None: a ring.
        eigen: eigenvalues (n,) and eigenvectors (n, n), in columns; None: not known.
    """

    values = FixedDouble()

    def __init__(self, matrix: Tensor, grid: Grid | None = None, eigen: tuple[Tensor, Tensor] | None = None) -> None:
        require(matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1], "matrix", "square", tuple(matrix.shape))
        check_size(len(matrix))
        matrix = matrix.double()
        require(torch.allclose(matrix, matrix.T), "matrix", "symmetric", "an asymmetric one")
        eigenvalues, eigenvectors = eigen or torch.linalg.eigh(matrix)
        super().__init__(eigenvalues, Kronecker([eigenvectors]), grid or as_grid(len(matrix)))
        self.values = matrix

    def entries(self, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> Float[Tensor, ...]:
        return self.values[i, j]


class StationaryCovariance(Covariance):
    """B_ij = c(i − j): the same everywhere.

    On a periodic grid every product is an FFT. On a bounded one products are those of the axes' matrices where c is
    Π_k c_k + nugget · δ; any other c needs B as a dense matrix.

    Args:
        column: c (n,), flat, at the lags 0 … n_k − 1 of each axis; even, c(k) = c(−k).
        n: number of points of a ring, or a grid; None: a ring of as many points as c has.
        columns: c_k (n_k,) of each axis; None: c is not such a product.
        nugget: the variance of an uncorrelated part, beside ``columns``.
    """

    table = FixedDouble()  # c at all lags, −(n_k − 1) … n_k − 1: entries are looked up without a remainder

    def __init__(
        self,
        column: Float[Tensor, " n"],
        n: int | Grid | None = None,
        columns: Sequence[Float[Tensor, " _"]] | None = None,
        nugget: float = 0.0,
    ) -> None:
        grid = as_grid(len(column) if n is None else n)
        table = lag_table(column.double(), grid)
        if all(grid.periodic):
            mirrored = table.flip(0)
            require(torch.allclose(table, mirrored), "column", "even: c(k) = c(n − k)", "an uneven one")
            eigenvalues = torch.fft.rfftn(column.double().view(grid.shape)).real.flatten()
            super().__init__(eigenvalues, Fourier(grid.shape), grid)
        elif columns is not None:
            lines = [Grid([size], closed) for size, closed in zip(grid.shape, grid.periodic, strict=True)]
            pairs = [
                torch.linalg.eigh(_matrix(lag_table(one, line), line)) for one, line in zip(columns, lines, strict=True)
            ]
            basis = Kronecker([vectors for _, vectors in pairs])
            super().__init__(reduce(torch.kron, [values for values, _ in pairs]) + nugget, basis, grid)
        else:
            check_size(grid.n)
            eigenvalues, vectors = torch.linalg.eigh(_matrix(table, grid))
            super().__init__(eigenvalues, Kronecker([vectors]), grid)
        self.table = table

    @property
    def column(self) -> Float[Tensor, " n"]:
        """c at the lags 0 … n_k − 1 of each axis."""
        lags = self.table.view([2 * size - 1 for size in self.grid.shape])
        for axis, size in enumerate(self.grid.shape):
            lags = lags.narrow(axis, size - 1, size)
        return lags.flatten()

    def entries(self, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> Float[Tensor, ...]:
        return at_lags(self.table, self.grid, i, j)

    def rescaled(self, variance: float, length: float = 1.0) -> Covariance:
        if all(self.grid.periodic):
            return StationaryCovariance(variance * self.column, self.grid)
        return super().rescaled(variance, length)

    def plus_constant(self, variance: float) -> Covariance:
        if all(self.grid.periodic):
            return StationaryCovariance(self.column + variance, self.grid)
        return super().plus_constant(variance)


def lag_table(column: Float[Tensor, " n"], grid: Grid) -> Float[Tensor, " t"]:
    """c at all differences of two points, flat; on a bounded axis c(−k) = c(k).

    Args:
        column: c at the lags 0 … n_k − 1 of each axis.
        grid: of the points.
    """
    values = column.view(grid.shape)
    for axis, (size, closed) in enumerate(zip(grid.shape, grid.periodic, strict=True)):
        lags = torch.arange(1 - size, size, device=column.device)
        values = values.index_select(axis, lags % size if closed else lags.abs())
    return values.flatten()


def at_lags(table: Float[Tensor, " t"], grid: Grid, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> Float[Tensor, ...]:
    """c(i − j) for index tensors that broadcast against each other.

    Args:
        table: see :func:`lag_table`.
        grid: of the points.
        i, j: indices in a flat state.
    """
    lags = Grid([2 * size - 1 for size in grid.shape])
    zero = lags.flat([torch.tensor(size - 1, device=i.device) for size in grid.shape])
    return table[lags.flat(grid.axes(i)) - lags.flat(grid.axes(j)) + zero]


def _matrix(table: Float[Tensor, " t"], grid: Grid) -> Float[Tensor, "n n"]:
    index = torch.arange(grid.n)
    return at_lags(table, grid, index[:, None], index)
