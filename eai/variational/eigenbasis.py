"""Eigenvectors of covariances, applied without the covariance's matrix where there is a faster way."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

EPSILON = torch.finfo(torch.float64).eps


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


class Eigenbasis(nn.Module, ABC):
    """Q of B = Q Λ Qᵀ, for flat fields on a grid of ``shape``, in float64.

    ``rounding`` is the relative error of eigenvalues that are computed in this basis.

    Args:
        shape: of the grid.
    """

    rounding: float

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    @abstractmethod
    def forward(self, field: Float[Tensor, "b n"]) -> Tensor:
        """Qᵀ v, the m coefficients of each row v."""

    @abstractmethod
    def back(self, coefficients: Tensor) -> Float[Tensor, "b n"]:
        """Q c for each row c of coefficients."""

    @property
    @abstractmethod
    def multiplications(self) -> int:
        """Of a pass forward and back."""


class Fourier(Eigenbasis):
    """Waves: the eigenvectors of every stationary covariance on a periodic grid. m counts half of the spectrum."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.rounding = max(1.0, math.log2(math.prod(shape))) * EPSILON
        self._dims = tuple(range(1, len(shape) + 1))

    def forward(self, field: Float[Tensor, "b n"]) -> Tensor:
        return torch.fft.rfftn(field.double().view(-1, *self.shape), dim=self._dims).flatten(1)

    def back(self, coefficients: Tensor) -> Float[Tensor, "b n"]:
        half = (*self.shape[:-1], self.shape[-1] // 2 + 1)
        return torch.fft.irfftn(coefficients.view(-1, *half), s=self.shape, dim=self._dims).flatten(1)

    @property
    def multiplications(self) -> int:
        n = math.prod(self.shape)
        return round(2 * n * math.log2(n))


class _Factor(nn.Module):
    vectors = FixedDouble()

    def __init__(self, vectors: Float[Tensor, "k k"]) -> None:
        super().__init__()
        self.vectors = vectors


class Kronecker(Eigenbasis):
    """Q = Q_1 ⊗ Q_2: the eigenvectors of B_1 ⊗ B_2 (+ a multiple of I); with one factor, those of a dense matrix.

    Args:
        vectors: Q_k, the eigenvectors along each axis in columns.
    """

    def __init__(self, vectors: Sequence[Float[Tensor, "_ _"]]) -> None:
        super().__init__([len(matrix) for matrix in vectors])
        self.rounding = sum(self.shape) * EPSILON
        self._factors = nn.ModuleList(_Factor(matrix) for matrix in vectors)

    def _matrices(self) -> list[Tensor]:
        return [cast(_Factor, factor).vectors for factor in self._factors]

    def forward(self, field: Float[Tensor, "b n"]) -> Tensor:
        return self._along_axes(field, self._matrices())

    def back(self, coefficients: Tensor) -> Float[Tensor, "b n"]:
        return self._along_axes(coefficients, [matrix.T for matrix in self._matrices()])

    def _along_axes(self, field: Tensor, matrices: Sequence[Tensor]) -> Tensor:
        values = field.double().view(-1, *self.shape)
        for axis, matrix in enumerate(matrices, 1):
            values = (values.movedim(axis, -1) @ matrix).movedim(-1, axis)
        return values.flatten(1)

    @property
    def multiplications(self) -> int:
        return 2 * math.prod(self.shape) * sum(self.shape)
