"""p(y | x) of a corrupted pixel: what a bound on every recovery needs to know of a corruption."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor

Observed = Float[Tensor, "b 1 h w"]
Templates = Float[Tensor, "#b k h w"]
Strength = Float[Tensor, " b"]
_NODES = 2001


class Likelihood(ABC):
    """How likely a seen pixel's value is, given the clean one; pixels are independent of each other.

    A probability is a density, or the mass at a value that has one (as 0 and 1 of clipped noise).
    """

    @abstractmethod
    def of(self, y: Observed, x: Templates, level: Strength) -> Float[Tensor, "b k h w"]:
        """p(y | x) at each sample's level."""

    @abstractmethod
    def of_uniform(self, y: Observed, level: Strength) -> tuple[Observed, Observed]:
        """p(y) and E[x | y] where x is uniform on [0, 1]."""


class GaussianLikelihood(Likelihood):
    """y = x + N(0, σ²), σ the level (at least 0.001), cut to [0, 1] on request.

    Args:
        clip: y = 0 and y = 1 have the probability mass of what was cut.
    """

    def __init__(self, clip: bool) -> None:
        self.clip = clip

    def of(self, y: Observed, x: Templates, level: Strength) -> Float[Tensor, "b k h w"]:
        sigma = _sigma(level)
        density = _pdf((y - x) / sigma) / sigma
        if not self.clip:
            return density
        return torch.where(y <= 0, _cdf(-x / sigma), torch.where(y >= 1, _cdf((x - 1) / sigma), density))

    def of_uniform(self, y: Observed, level: Strength) -> tuple[Observed, Observed]:
        sigma = _sigma(level)
        low, high = -y / sigma, (1 - y) / sigma
        mass = (_cdf(high) - _cdf(low)).clamp(min=1e-300)
        mean = (y + sigma * (_pdf(low) - _pdf(high)) / mass).clamp(0, 1)
        if self.clip:
            # Mass at 0, ∫ Φ(−u/σ) du, and its first moment; by symmetry those at 1.
            u = (torch.arange(_NODES, device=y.device, dtype=y.dtype) + 0.5) / _NODES
            cut = _cdf(-u / sigma)
            at_zero, first = cut.mean(-1, keepdim=True), (u * cut).mean(-1, keepdim=True)
            mass = torch.where((y <= 0) | (y >= 1), at_zero, mass)
            mean = torch.where(y <= 0, first / at_zero, torch.where(y >= 1, 1 - first / at_zero, mean))
        return mass, mean


def _sigma(level: Strength) -> Float[Tensor, "b 1 1 1"]:
    return level.double().clamp(min=1e-3)[:, None, None, None]


def _pdf(z: Tensor) -> Tensor:
    return torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)


def _cdf(z: Tensor) -> Tensor:
    return torch.special.ndtr(z)
