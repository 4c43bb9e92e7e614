"""Semilinear equations on a ring: Burgers, Korteweg–de Vries, Kuramoto–Sivashinsky, advection with diffusion."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.tasks.dynamics.random_fields import RandomFields, Sizes, band_limited, check_ring, of_peak_one
from eai.tasks.dynamics.schemes import Field, trigonometric

CONTOUR = 32  # points of the contour integrals


class Equation(NamedTuple):
    """u_t + a u_x + b (u²/2)_x + δ u_xxx = ν u_xx − η u_xxxx, lengths in cells and times in steps.

    ``advection`` a and ``convection`` b in cells per step, ``diffusion`` ν in cells² per step, ``dispersion`` δ in
    cells³ per step, ``hyperdiffusion`` η in cells⁴ per step.
    """

    advection: float = 0.0
    convection: float = 0.0
    diffusion: float = 0.0
    dispersion: float = 0.0
    hyperdiffusion: float = 0.0


class _Weights(NamedTuple):
    """The factors of one sub-step for each wavenumber, complex."""

    whole: Tensor
    half: Tensor
    stage: Tensor
    first: Tensor
    middle: Tensor
    last: Tensor
    slope: Tensor


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept may be used in training next
def _weights(equation: Equation, n: int, coarse: int, substeps: int, device: torch.device) -> _Weights:
    """ETDRK4's factors as means over a circle around each value, where the formulas themselves lose all digits."""
    k = torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64, device=device)
    # One step and one grid cell are the units; mode k has the wavenumber 2π k/coarse there.
    wave = 2 * math.pi / coarse * k
    # The grid cannot tell the phase of the highest mode of an even number of points: it has no slope.
    odd = wave * (2 * k < n)
    growth = -equation.diffusion * wave**2 - equation.hyperdiffusion * wave**4
    turn = -equation.advection * odd + equation.dispersion * odd**3
    linear = torch.complex(growth, turn) / substeps
    angle = 2 * math.pi * (torch.arange(CONTOUR, dtype=torch.float64, device=device) + 0.5) / CONTOUR
    z = linear[:, None] + torch.polar(torch.ones_like(angle), angle)
    exp = torch.exp(z)
    return _Weights(
        torch.exp(linear),
        torch.exp(linear / 2),
        ((torch.exp(z / 2) - 1) / z).mean(1),
        ((-4 - z + exp * (4 - 3 * z + z**2)) / z**3).mean(1),
        (2 * (2 + z + exp * (z - 2)) / z**3).mean(1),
        ((-4 - 3 * z - z**2 + exp * (4 - z)) / z**3).mean(1),
        -0.5j * equation.convection / substeps * odd,
    )


def pseudo_spectral(u0: Field, equation: Equation, steps: int, finer: int, substeps: int) -> Float[Tensor, "b l n"]:
    """The solution after 1 … ``steps`` steps, by a pseudo-spectral method in float64.

    The trigonometric interpolant of u0 on ``finer`` times as many points; products on half as many points more, so that
    nothing is aliased; linear terms exactly, the product by exponential time differencing of fourth order (ETDRK4, Cox
    and Matthews 2002; Kassam and Trefethen 2005). On many more points than the grid's it is the reference, on the
    grid's own the strongest scheme of its resolution.

    Args:
        u0: initial fields.
        equation: what they obey.
        steps: number of steps.
        finer: points per grid point.
        substeps: of the integrator, per step.
    """
    coarse = u0.shape[1]
    n = coarse * finer
    padded = 2 * math.ceil(3 * n / 4)
    by = _weights(equation, n, coarse, substeps, u0.device)
    slope = by.slope * (padded / n)
    u = u0.double()
    modes, states = torch.fft.rfft(trigonometric(u, finer) if finer > 1 else u, dim=1), []

    def tendency(modes: Tensor) -> Tensor:
        square = torch.fft.irfft(modes, n=padded, dim=1).square()
        return slope * torch.fft.rfft(square, dim=1)[:, : n // 2 + 1]

    def substep(modes: Tensor) -> Tensor:
        if not equation.convection:
            return by.whole * modes
        here = tendency(modes)
        a = by.half * modes + by.stage * here
        at_a = tendency(a)
        b = by.half * modes + by.stage * at_a
        at_b = tendency(b)
        c = by.half * a + by.stage * (2 * at_b - here)
        return by.whole * modes + by.first * here + by.middle * (at_a + at_b) + by.last * tendency(c)

    for _ in range(steps):
        for _ in range(substeps):
            modes = substep(modes)
        states.append(torch.fft.irfft(modes, n=n, dim=1)[:, ::finer])
    return torch.stack(states, dim=1)


class Semilinear(RandomFields):
    """Random fields on a ring that obey u_t + a u_x + b (u²/2)_x + δ u_xxx = ν u_xx − η u_xxxx.

    The initial fields are band-limited with a largest absolute value of 1; a trajectory begins after ``warm_up`` steps.
    The reference is :func:`pseudo_spectral` on ``finer`` times as many points.

    Args:
        nx: grid points, at least 3.
        modes: wavenumbers of the initial fields, below nx/2.
        advection, convection, diffusion, dispersion, hyperdiffusion: see :class:`Equation`.
        warm_up: steps before the first state, as long as it takes to reach the attractor of a chaotic equation.
        finer: points of the reference per grid point.
        substeps: of the reference, per step.
        length: of the ring, in length units; only labels the figures.
        sizes: see :class:`eai.tasks.dynamics.random_fields.RandomFields`.
    """

    def __init__(
        self,
        nx: int = 160,
        modes: int = 5,
        advection: float = 0.0,
        convection: float = 0.0,
        diffusion: float = 0.0,
        dispersion: float = 0.0,
        hyperdiffusion: float = 0.0,
        warm_up: int = 0,
        finer: int = 2,
        substeps: int = 4,
        length: float = 1.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        check_ring(nx, modes, length)
        damped = hyperdiffusion > 0 or (hyperdiffusion == 0 and diffusion >= 0)
        require(damped, "hyperdiffusion", "above 0, or 0 with a diffusion of 0 or more: short waves must not grow",
                hyperdiffusion)  # fmt: skip
        require(warm_up >= 0, "warm_up", "0 or more", warm_up)
        require(finer >= 1, "finer", "at least 1", finer)
        require(substeps >= 1, "substeps", "at least 1", substeps)
        self.equation = Equation(advection, convection, diffusion, dispersion, hyperdiffusion)
        self.warm_up, self.finer, self.substeps = warm_up, finer, substeps
        self.shape, self.modes, self.length = (nx,), modes, length
        self.courant = (abs(advection) + abs(convection),)  # where |u| is 1

    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 0"]]:
        u = of_peak_one(band_limited(count, self.shape[0], self.modes, generator))
        if self.warm_up:
            # To any state of the attractor: no matter how it got there.
            u = pseudo_spectral(u, self.equation, self.warm_up, finer=1, substeps=1)[:, -1]
        return u[:, :, None], u.new_zeros(*u.shape, 0)

    def solve(self, u0: Float[Tensor, "b n 1"], static: Float[Tensor, "b n s"], steps: int) -> Float[Tensor, "b l n 1"]:
        return self._integrate(u0[:, :, 0], steps)[..., None].to(u0.dtype)

    def schemes(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        def spectral(u: Tensor, static: Tensor) -> Tensor:
            return pseudo_spectral(u[:, :, 0], self.equation, 1, finer=1, substeps=1)[:, 0, :, None].to(u.dtype)

        return {"spectral": spectral}

    def _integrate(self, u: Field, steps: int) -> Float[Tensor, "b l n"]:
        return pseudo_spectral(u, self.equation, steps, self.finer, self.substeps)
