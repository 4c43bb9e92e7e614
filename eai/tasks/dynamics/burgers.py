"""The viscous Burgers equation on a coarse grid: steep fronts that the grid does not resolve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.tasks.dynamics.advection import band_limited, check_modes
from eai.tasks.dynamics.data import RandomFields
from eai.tasks.dynamics.schemes import Field, lagrange, points_for, semi_lagrangian_name, trigonometric

FINER = 16  # points of the reference per grid point


def pseudo_spectral(
    u0: Field, cells: float, diffusion: float, steps: int, finer: int = FINER
) -> Float[Tensor, "b l n"]:
    """u_t + (u²/2)_x = ν u_xx after 1 … ``steps`` steps, by a pseudo-spectral method in float64.

    The trigonometric interpolant of u0 on ``finer`` times as many points; products on half as many points more, so that
    nothing is aliased; the viscous term exactly by an integrating factor; Runge-Kutta 4 with sub-steps of half a fine
    cell. On 16 times as many points it is the reference, on the grid's own the strongest scheme of this resolution.

    Args:
        u0: initial fields, |u| ≤ 1.
        cells: grid cells that u = 1 moves per step.
        diffusion: ν in grid cells² per step.
        steps: number of steps.
        finer: points per grid point.
    """
    coarse = u0.shape[1]
    n = coarse * finer
    padded = 2 * math.ceil(3 * n / 4)
    substeps = math.ceil(2 * cells * finer)
    k = torch.fft.rfftfreq(n, 1 / n, dtype=torch.float64, device=u0.device)
    # One step and one grid cell are the units; mode k has the wavenumber 2π k/coarse there.
    wavenumber = 2 * math.pi / coarse * k
    half = torch.exp(-diffusion * wavenumber**2 / (2 * substeps))
    # The grid cannot tell the phase of the highest mode of an even number of points: it has no slope.
    slope = -0.5j * cells / substeps * wavenumber * (2 * k < n) * (padded / n)

    def tendency(modes: Tensor) -> Tensor:
        square = torch.fft.irfft(modes, n=padded, dim=1).square()
        return slope * torch.fft.rfft(square, dim=1)[:, : n // 2 + 1]

    u = u0.double()
    modes, states = torch.fft.rfft(trigonometric(u, finer) if finer > 1 else u, dim=1), []
    for _ in range(steps):
        for _ in range(substeps):
            a = tendency(modes)
            b = tendency(half * (modes + a / 2))
            c = tendency(half * modes + b / 2)
            d = tendency(half * (half * modes + c))
            modes = half * (half * (modes + a / 6) + (b + c) / 3) + d / 6
        states.append(torch.fft.irfft(modes, n=n, dim=1)[:, ::finer])
    return torch.stack(states, dim=1)


class Burgers(RandomFields):
    """Random fields that steepen into fronts: u_t + (u²/2)_x = ν u_xx on a ring, sampled at every 16th point.

    The initial fields are band-limited with a largest absolute value of 1, which the solution never exceeds. With the
    defaults a front is about one grid cell wide: resolved by the reference, not by the grid.

    Args:
        nx: grid points, at least 3.
        modes: wavenumbers of the initial fields, below nx/2.
        cells: cells that u = 1 moves per step, above 0.
        diffusion: ν in cells² per step, above 0; a front from u = 1 to −1 is about 4 ν/cells cells wide.
        length: of the ring, in length units; only labels the figures.
        n_train, n_val, n_test, nt, nt_test, batch_size, seed, fresh, device: see :class:`RandomFields`.
    """

    def __init__(
        self,
        nx: int = 32,
        modes: int = 3,
        cells: float = 1.0,
        diffusion: float = 0.15,
        length: float = 10.0,
        n_train: int = 256,
        n_val: int = 32,
        n_test: int = 64,
        nt: int = 8,
        nt_test: int = 29,
        batch_size: int = 16,
        seed: int = 0,
        fresh: bool = False,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        super().__init__(n_train, n_val, n_test, nt, nt_test, batch_size, seed, fresh, device)
        require(nx >= 3, "nx", "at least 3", nx)
        check_modes(modes, nx)
        require(cells > 0, "cells", "above 0", cells)
        require(diffusion > 0, "diffusion", "above 0", diffusion)
        require(length > 0, "length", "above 0", length)
        self.shape, self.modes, self.length = (nx,), modes, length
        self.cells, self.diffusion, self.courant = cells, diffusion, (cells,)

    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 0"]]:
        u = band_limited(count, self.shape[0], self.modes, generator)
        u = u / u.abs().amax(1, keepdim=True)
        return u[:, :, None], u.new_zeros(*u.shape, 0)

    def solve(self, u0: Float[Tensor, "b n 1"], static: Float[Tensor, "b n s"], steps: int) -> Float[Tensor, "b l n 1"]:
        return pseudo_spectral(u0[:, :, 0], self.cells, self.diffusion, steps)[..., None].to(u0.dtype)

    def schemes(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        def step(scheme: Callable[[Tensor, float, float], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda u, static: scheme(u[:, :, 0], self.cells, self.diffusion)[:, :, None]

        return {
            "upwind": step(engquist_osher),
            "lax_wendroff": step(richtmyer),
            "weno5": step(weno5),
            **{
                semi_lagrangian_name(points): step(partial(semi_lagrangian, points=points))
                for points in points_for(self.shape[0])
            },
            "spectral": step(lambda u, cells, nu: pseudo_spectral(u, cells, nu, 1, finer=1)[:, 0].to(u.dtype)),
        }


def diffuse(u: Field, diffusion: float) -> Field:
    """One step of u_t = ν u_xx with central differences, in sub-steps with ν ≤ ¼."""
    substeps = math.ceil(4 * diffusion - 1e-9)
    for _ in range(substeps):
        u = u + diffusion / substeps * (u.roll(1, dims=1) - 2 * u + u.roll(-1, dims=1))
    return u


def _explicit_substeps(u: Field, cells: float, diffusion: float) -> int:
    """Sub-steps with at most half a cell and ν ≤ ¼ each; |u| may exceed 1 where a scheme overshoots."""
    fastest = cells * u.abs().nan_to_num(0, 1, 1).clamp(max=4).max().item()
    return max(1, math.ceil(2 * fastest - 1e-9), math.ceil(4 * diffusion - 1e-9))


def engquist_osher(u: Field, cells: float, diffusion: float) -> Field:
    """First-order upwind fluxes ½ max(u_i, 0)² + ½ min(u_{i+1}, 0)², and central diffusion. Conservative."""
    substeps = _explicit_substeps(u, cells, diffusion)
    for _ in range(substeps):
        right = 0.5 * u.clamp(min=0).square() + 0.5 * u.roll(-1, dims=1).clamp(max=0).square()
        second = u.roll(1, dims=1) - 2 * u + u.roll(-1, dims=1)
        u = u - cells / substeps * (right - right.roll(1, dims=1)) + diffusion / substeps * second
    return u


def richtmyer(u: Field, cells: float, diffusion: float) -> Field:
    """The two-step Lax-Wendroff scheme of Richtmyer, and central diffusion. Second order and conservative."""
    substeps = _explicit_substeps(u, cells, diffusion)
    for _ in range(substeps):
        flux, ahead = u.square() / 2, u.roll(-1, dims=1)
        middle = (u + ahead) / 2 - cells / substeps / 2 * (flux.roll(-1, dims=1) - flux)
        right = middle.square() / 2
        second = u.roll(1, dims=1) - 2 * u + ahead
        u = u - cells / substeps * (right - right.roll(1, dims=1)) + diffusion / substeps * second
    return u


def semi_lagrangian(u: Field, cells: float, diffusion: float, points: int) -> Field:
    """u at the point it came from, X = x − cells · u(X) by fixed-point iteration, amid two halves of the diffusion."""
    u = diffuse(u, diffusion / 2)
    grid = torch.arange(u.shape[1], dtype=u.dtype, device=u.device).expand_as(u)
    shift = cells * u
    for _ in range(5):
        shift = cells * lagrange(u, grid - shift, points)
    return diffuse(lagrange(u, grid - shift, points), diffusion / 2)


def weno5(u: Field, cells: float, diffusion: float) -> Field:
    """Fifth-order WENO (Jiang and Shu 1996): Lax-Friedrichs splitting, SSP Runge-Kutta 3; central diffusion."""
    substeps = _explicit_substeps(u, cells, diffusion)
    speed, viscous = cells / substeps, diffusion / substeps

    def tendency(v: Field) -> Field:
        fastest = v.abs().amax(1, keepdim=True)
        right_going, left_going = (v.square() / 2 + fastest * v) / 2, (v.square() / 2 - fastest * v) / 2
        flux = _upwind_face(right_going) + _upwind_face(left_going.flip(1)).flip(1).roll(-1, dims=1)
        second = v.roll(1, dims=1) - 2 * v + v.roll(-1, dims=1)
        return viscous * second - speed * (flux - flux.roll(1, dims=1))

    for _ in range(substeps):
        first = u + tendency(u)
        second = 0.75 * u + 0.25 * (first + tendency(first))
        u = u / 3 + 2 / 3 * (second + tendency(second))
    return u


def _upwind_face(f: Field) -> Field:
    """The flux at face i + ½, from the left: three parabolas, weighted by their smoothness."""
    a, b, c, d, e = (f.roll(shift, dims=1) for shift in (2, 1, 0, -1, -2))
    parabolas = (
        (2 * a - 7 * b + 11 * c) / 6,
        (-b + 5 * c + 2 * d) / 6,
        (2 * c + 5 * d - e) / 6,
    )
    roughness = (
        13 / 12 * (a - 2 * b + c).square() + (a - 4 * b + 3 * c).square() / 4,
        13 / 12 * (b - 2 * c + d).square() + (b - d).square() / 4,
        13 / 12 * (c - 2 * d + e).square() + (3 * c - 4 * d + e).square() / 4,
    )
    weights = [share / (1e-6 + rough).square() for share, rough in zip((0.1, 0.6, 0.3), roughness, strict=True)]
    total = weights[0] + weights[1] + weights[2]
    return (weights[0] * parabolas[0] + weights[1] * parabolas[1] + weights[2] * parabolas[2]) / total
