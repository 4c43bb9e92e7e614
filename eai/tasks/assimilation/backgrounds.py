"""Backgrounds of an OSSE: what was known before the observations."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.tasks.assimilation.file_states import FileStates
from eai.variational.covariance_base import Covariance


class Background(ABC):
    """Where backgrounds come from. ``lag`` is how many steps before the truth they look."""

    lag = 0

    @abstractmethod
    def draw(
        self,
        states: FileStates,
        steps: np.ndarray,
        xt: Float[Tensor, "b n"],
        covariance: Covariance,
        generator: torch.Generator,
    ) -> Float[Tensor, "b n"]:
        """x_b of each truth.

        Args:
            states: of the file.
            steps: time steps of the truths.
            xt: the truths.
            covariance: B that the cost assumes.
            generator: of random numbers.
        """


class Lagged(Background):
    """x_b(t) = x_t(t − lag), a persistence forecast of the anomaly; both are of one period, without a gap in between.

    Args:
        lag: time steps, at least 1.
    """

    def __init__(self, lag: int = 1) -> None:
        require(lag >= 1, "lag", "at least 1", lag)
        self.lag = lag

    def draw(
        self,
        states: FileStates,
        steps: np.ndarray,
        xt: Float[Tensor, "b n"],
        covariance: Covariance,
        generator: torch.Generator,
    ) -> Float[Tensor, "b n"]:
        return states.read(steps - self.lag).to(xt.device)


class Perturbed(Background):
    """x_b = x_t + e, e ~ N(0, scale · B), B the one that the cost assumes: consistent with it for scale 1.

    Args:
        scale: above 0.
    """

    def __init__(self, scale: float = 1.0) -> None:
        require(scale > 0, "scale", "above 0", scale)
        self.scale = scale

    def draw(
        self,
        states: FileStates,
        steps: np.ndarray,
        xt: Float[Tensor, "b n"],
        covariance: Covariance,
        generator: torch.Generator,
    ) -> Float[Tensor, "b n"]:
        error = covariance.sample(len(xt), generator).to(xt.device)
        return (xt.double() + self.scale**0.5 * error).float()
