"""What costs of an analysis share: innovations, H B Hᵀ and the regression on it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.variational.batch import Batch
from eai.variational.covariance_base import Covariance
from eai.variational.observation_error import ObservationError, cholesky
from eai.variational.observations import ObservationOperator

AT_ONCE = 2**24  # entries of B that are looked up together: 128 MiB


class Regression(NamedTuple):
    """The analysis x_b + B H'ᵀ w, w = (H' B H'ᵀ + E)⁻¹ d, of departures d with the error covariance E."""

    weights: Float[Tensor, "b p"]  # w
    dual: Float[Tensor, "b n"]  # H'ᵀ w, B⁻¹ times the increment
    observed: Float[Tensor, "b p p"]  # H' B H'ᵀ
    factor: Float[Tensor, "b p p"]  # of Cholesky, of H' B H'ᵀ + E


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

    def observed_covariance(
        self, state: Float[Tensor, "b n"], batch: Batch, entries_of: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Float[Tensor, "b p p"]:
        """H B Hᵀ with H linearised at ``state``; rows and columns of padding are zero.

        Args:
            state: (b, n).
            batch: the samples.
            entries_of: B_ij for index tensors i and j; None: of the cost's own B.
        """
        index, weight = self.operator.stencil(state, batch)
        weight, find = (weight * batch.obs_mask[:, :, None]).double(), entries_of or self.covariance.entries
        p, k = index.shape[1:]
        rows = max(1, AT_ONCE // (p * k * k))
        parts = []
        for i, w in zip(*(field.split(max(1, rows // p)) for field in (index, weight)), strict=True):
            blocks = zip(i.split(rows, 1), w.split(rows, 1), strict=True)
            entries = (
                torch.einsum("bpqkl,bpk,bql->bpq", find(j[:, :, None, :, None], i[:, None, :, None, :]), v, w)
                for j, v in blocks
            )
            parts.append(torch.cat(list(entries), 1))
        return torch.cat(parts)

    def regress(
        self, state: Float[Tensor, "b n"], departures: Float[Tensor, "b p"], error: Float[Tensor, "b p p"], batch: Batch
    ) -> Regression:
        """The analysis of ``departures`` with the error covariance ``error``, H linearised at ``state``.

        Rows and columns of padding in ``error`` are those of the identity, which affects no result.
        """
        observed = self.observed_covariance(state, batch)
        factor = cholesky(observed + error)
        weights = torch.cholesky_solve(departures.double()[:, :, None], factor)[:, :, 0] * batch.obs_mask
        return Regression(weights, self.operator.adjoint(state, weights, batch), observed, factor)
