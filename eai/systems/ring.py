"""A linear system: a field that is carried round a ring, forgotten slowly and renewed by noise."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.systems.system import System
from eai.variational.power_law import power_law_spectrum


class Ring(System):
    """x_{t+1} = a S x_t + q_t: the wave of slide 2.1 with noise, for which the Kalman filter is the optimum.

    S shifts by ``courant`` cells, by Fourier interpolation; q ~ N(0, C − a² S C Sᵀ), so that the climate is N(0, C), C
    having the eigenvalues of :class:`eai.variational.power_law.PowerLawCovariance`.

    Args:
        n: points, at least 4.
        courant: cells that the field moves in an interval.
        memory: a, at least 0 and below 1.
        variance: of the climate, at each point.
        k0, slope: of the climate's spectrum.
    """

    linear, stochastic = True, True

    def __init__(
        self,
        n: int = 40,
        courant: float = 1.5,
        memory: float = 0.99,
        variance: float = 1.0,
        k0: float = 4.0,
        slope: float = 6.0,
    ) -> None:
        require(n >= 4, "n", "at least 4 points", n)
        require(0 <= memory < 1, "memory", "0 ≤ memory < 1", memory)
        require(variance > 0, "variance", "above 0", variance)
        require(k0 > 0, "k0", "above 0", k0)
        require(slope >= 0, "slope", "0 or more", slope)
        self.n, self.courant, self.memory = n, courant, memory
        self.spectrum = power_law_spectrum(n, variance, k0, slope)
        k = torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64)
        shift = torch.exp(-2j * math.pi * courant / n * k)
        if n % 2 == 0:
            shift[-1] = math.cos(math.pi * courant)  # the grid cannot tell the phase of its highest mode
        # What is forgotten is renewed, mode by mode: the highest one may be forgotten faster.
        self._renewed = self.spectrum * (1 - (memory * shift.abs()) ** 2)
        # As a matrix: at a few dozen points a product is quicker than two transforms.
        self._matrix = memory * torch.fft.irfft(shift[:, None] * torch.fft.rfft(_identity(n), dim=0), n=n, dim=0)

    def step(self, state: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return state @ self._matrix.to(state).T

    def random_states(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        return self._fields(self.spectrum, count, generator)

    def noise(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        return self._fields(self._renewed, count, generator)

    def noise_covariance(self) -> Float[Tensor, "n n"]:
        column = torch.fft.rfft(_identity(self.n), dim=0) * self._renewed[:, None]
        return torch.fft.irfft(column, n=self.n, dim=0)

    def _fields(self, spectrum: Tensor, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        white = torch.randn(count, self.n, dtype=torch.float64, generator=generator, device=generator.device)
        return torch.fft.irfft(torch.fft.rfft(white) * spectrum.to(white.device).sqrt(), n=self.n)


def _identity(n: int) -> Float[Tensor, "n n"]:
    return torch.eye(n, dtype=torch.float64)
