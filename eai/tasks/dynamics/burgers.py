"""The viscous Burgers equation on a coarse grid: steep fronts that the grid does not resolve."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.tasks.dynamics import equations
from eai.tasks.dynamics.random_fields import RandomFields, Sizes, band_limited, check_ring, of_peak_one
from eai.tasks.dynamics.schemes import Field, lagrange, points_for, semi_lagrangian_name

FINER = 16  # points of the reference per grid point


def pseudo_spectral(
    u0: Field, cells: float, diffusion: float, steps: int, finer: int = FINER
) -> Float[Tensor, "b l n"]:
    """u_t + (u²/2)_x = ν u_xx after 1 … ``steps`` steps, in sub-steps of half a fine cell where |u| is 1.

    Args:
        u0: initial fields.
        cells: grid cells that u = 1 moves per step.
        diffusion: ν in grid cells² per step.
        steps: number of steps.
        finer: points per grid point, see :func:`eai.tasks.dynamics.equations.pseudo_spectral`.
    """
    equation = equations.Equation(convection=cells, diffusion=diffusion)
    return equations.pseudo_spectral(u0, equation, steps, finer, substeps=math.ceil(2 * cells * finer))


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
        sizes: see :class:`RandomFields`.
    """

    def __init__(
        self,
        nx: int = 32,
        modes: int = 3,
        cells: float = 1.0,
        diffusion: float = 0.15,
        length: float = 10.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        check_ring(nx, modes, length)
        require(cells > 0, "cells", "above 0", cells)
        require(diffusion > 0, "diffusion", "above 0", diffusion)
        self.shape, self.modes, self.length = (nx,), modes, length
        self.cells, self.diffusion, self.courant = cells, diffusion, (cells,)

    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 0"]]:
        u = band_limited(count, self.shape[0], self.modes, generator)
        u = of_peak_one(u)
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
