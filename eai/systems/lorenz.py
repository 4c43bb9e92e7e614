"""The two systems of Lorenz that data assimilation is tried on."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.systems.system import Integrated


class Lorenz96(Integrated):
    """dx_i/dt = (x_{i+1} − x_{i−2}) x_{i−1} − x_i + F on a ring (Lorenz 1996); chaotic for F = 8.

    A unit of time stands for five days. At n = 40 and F = 8 the climate has the mean 2.3 and the standard deviation
    3.6, and small errors double in 0.42 units of time.

    Args:
        n: points, at least 4.
        forcing: F.
        dt: time step.
        interval: between two analyses, a multiple of ``dt``.
    """

    def __init__(self, n: int = 40, forcing: float = 8.0, dt: float = 0.05, interval: float = 0.05) -> None:
        require(n >= 4, "n", "at least 4 points", n)
        self.forcing = forcing
        super().__init__(n, dt, interval, spin_up=20.0)

    def tendency(self, state: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        # One copy in place of three `roll`s.
        ring = torch.cat([state[..., -2:], state, state[..., :1]], -1)
        n = self.n
        return (ring[..., 3 : n + 3] - ring[..., :n]) * ring[..., 1 : n + 1] - state + self.forcing

    def rough(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        noise = torch.randn(count, self.n, dtype=torch.float64, generator=generator, device=generator.device)
        return self.forcing + noise


class Lorenz63(Integrated):
    """dx/dt = s (y − x), dy/dt = r x − y − x z, dz/dt = x y − b z (Lorenz 1963); chaotic with the defaults.

    Args:
        s: the Prandtl number.
        r: the relative Rayleigh number.
        b: of the geometry.
        dt: time step.
        interval: between two analyses, a multiple of ``dt``.
    """

    def __init__(
        self, s: float = 10.0, r: float = 28.0, b: float = 8 / 3, dt: float = 0.01, interval: float = 0.25
    ) -> None:
        self.s, self.r, self.b = s, r, b
        super().__init__(3, dt, interval, spin_up=5.0)  # 5 times the growth time of errors

    def tendency(self, state: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        x, y, z = state.unbind(-1)
        return torch.stack([self.s * (y - x), self.r * x - y - x * z, x * y - self.b * z], -1)

    def rough(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        noise = torch.randn(count, 3, dtype=torch.float64, generator=generator, device=generator.device)
        return noise * 5 + torch.tensor([0.0, 0.0, self.r - 1], dtype=torch.float64, device=generator.device)
