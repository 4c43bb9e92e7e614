"""The gain of a linear analysis."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from eai.tasks.cycling.data import Cycles
from eai.variational import batch as variational
from eai.variational.observations import ObservationOperator


class StaticGain:
    """x_b + K d with K = B H'ᵀ (H' B H'ᵀ + R)⁻¹ of a static B, at each call; once, where nothing changes.

    Args:
        data: whose observations they are.
        covariance: B.
    """

    def __init__(self, data: Cycles, covariance: Float[Tensor, "n n"]) -> None:
        self._operator, self._error, self._covariance = data.operator, data.obs_error, covariance
        self._constant = data.uniform and data.operator.linear
        self._gain: Tensor | None = None

    def __call__(self, observed: variational.Batch) -> Float[Tensor, "b n"]:
        if self._gain is None or not self._constant:
            few = variational.Batch(*(field[:1] for field in observed)) if self._constant else observed
            self._gain = gain(self._operator, self._covariance, few, self._error.matrix(few, len(self._covariance)))
        departure = (observed.y - self._operator(observed.xb, observed)) * observed.obs_mask
        return observed.xb + (self._gain @ departure[:, :, None]).squeeze(2)


def gain(
    operator: ObservationOperator,
    covariance: Float[Tensor, "*b n n"],
    observed: variational.Batch,
    error: Float[Tensor, "b p p"],
) -> Float[Tensor, "b n p"]:
    """K = B H'ᵀ (H' B H'ᵀ + R)⁻¹, columns of padding zero.

    Args:
        operator: H.
        covariance: B, one for all samples or one for each.
        observed: the samples.
        error: R, with rows and columns of the identity for padding.
    """
    h = operator.matrix(observed.xb, observed).to(covariance) * observed.obs_mask[:, :, None]
    across = covariance @ h.mT
    innovation = h @ across + error.to(covariance)
    return torch.linalg.solve(innovation, across.mT).mT
