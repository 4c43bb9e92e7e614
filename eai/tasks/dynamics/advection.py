"""Random fields that are carried along: at constant speed, at a speed that varies in space, and in two dimensions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.tasks.dynamics.data import cells_per_step
from eai.tasks.dynamics.random_fields import RandomFields, Sizes, band_limited, check_ring, of_peak_one
from eai.tasks.dynamics.schemes import (
    advection_schemes,
    departure,
    lagrange,
    lagrange_weights,
    lax_wendroff,
    points_for,
    semi_lagrangian_name,
    translate,
    trigonometric,
    trigonometric_weights,
    upwind,
    with_substeps,
)

T = TypeVar("T")
# The reference at variable speed: eight-point interpolation between eight times as many points, and Newton's method,
# which doubles the digits in each iteration.
FINER, POINTS, ITERATIONS = 8, 8, 6


class Fourier(RandomFields):
    """Random band-limited fields on a ring, carried along at a constant speed: u_t + c u_x = 0, solved exactly.

    Args:
        nx: grid points, at least 3.
        modes: wavenumbers of the fields, below nx/2, all with the same variance; the mean is zero.
        speed: phase advance of wavenumber 1 in radians per step; positive to the right.
        length: of the ring, in length units; only labels the figures.
        peak: whether to scale every initial field to a largest absolute value of 1; else its expected variance is 1.
        sizes: see :class:`RandomFields`.
    """

    def __init__(
        self,
        nx: int = 25,
        modes: int = 5,
        speed: float = 0.6,
        length: float = 10.0,
        peak: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        check_ring(nx, modes, length)
        require(speed != 0, "speed", "not 0", speed)
        self.shape, self.modes, self.length, self.peak = (nx,), modes, length, peak
        self.cells = (cells_per_step(speed, nx),)
        self.courant = (abs(self.cells[0]),)

    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 0"]]:
        u = band_limited(count, self.shape[0], self.modes, generator)
        if self.peak:
            u = of_peak_one(u)
        return u[:, :, None], u.new_zeros(*u.shape, 0)

    def solve(self, u0: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"], steps: int) -> Float[Tensor, "b l n c"]:
        return translate(u0, self.shape, self.cells, steps)

    def schemes(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        return advection_schemes(self.shape, self.cells)


class VariableSpeed(RandomFields):
    """Random fields carried along a ring at a speed that varies in space: u_t + c(x) u_x = 0, c new in each trajectory.

    c(x) = mean speed · (1 + variation · g(x)/max|g|), g a random field of ``speed_modes`` wavenumbers. ``static`` is
    c in cells per step. With the travel time τ(x) = ∫ dx/c the solution is u(x, t) = u(X, 0) with τ(X) = τ(x) − t. τ is
    integrated spectrally and inverted by Newton's method, u read from its trigonometric interpolant; the error is
    below 1e-8 with the defaults.

    Args:
        nx: grid points, at least 3.
        modes: wavenumbers of the initial fields, below nx/2.
        speed: the mean speed, as the phase advance of wavenumber 1 in radians per step; positive to the right.
        variation: 0 ≤ variation < 1.
        speed_modes: wavenumbers of c, below nx/2.
        length: of the ring, in length units; only labels the figures.
        sizes: see :class:`RandomFields`.
    """

    def __init__(
        self,
        nx: int = 32,
        modes: int = 5,
        speed: float = 0.4,
        variation: float = 0.4,
        speed_modes: int = 2,
        length: float = 10.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        check_ring(nx, modes, length)
        require(
            speed_modes >= 1 and 2 * speed_modes < nx,
            "speed_modes",
            f"1 ≤ speed_modes < nx/2 = {nx / 2:g}",
            speed_modes,
        )
        require(speed != 0, "speed", "not 0", speed)
        require(0 <= variation < 1, "variation", "0 ≤ variation < 1, so that the air moves everywhere", variation)
        self.shape, self.modes, self.length = (nx,), modes, length
        self.mean_cells, self.variation, self.speed_modes = cells_per_step(speed, nx), variation, speed_modes
        self.courant = (abs(self.mean_cells) * (1 + variation),)

    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 1"]]:
        nx = self.shape[0]
        u, g = (band_limited(count, nx, modes, generator) for modes in (self.modes, self.speed_modes))
        c = self.mean_cells * (1 + self.variation * g / g.abs().amax(1, keepdim=True))
        return u[:, :, None], c[:, :, None]

    def solve(self, u0: Float[Tensor, "b n 1"], static: Float[Tensor, "b n 1"], steps: int) -> Float[Tensor, "b l n 1"]:
        fine_u, fine_c = (trigonometric(field[:, :, 0].double(), FINER) for field in (u0, static))
        travel = _TravelTime(fine_c)
        position = torch.arange(u0.shape[1], dtype=torch.float64, device=u0.device).expand(len(u0), -1)
        start, states = travel(position), []
        for step in range(1, steps + 1):
            for _ in range(ITERATIONS):
                late = travel(position) - (start - step)
                position = position - late * lagrange(fine_c, position * FINER, POINTS)
            states.append(lagrange(fine_u, position * FINER, POINTS))
        return torch.stack(states, dim=1)[..., None].to(u0.dtype)

    def schemes(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        nx = self.shape[0]

        def explicit(scheme: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
            return lambda u, static: with_substeps(scheme, u[:, :, 0], static[:, :, 0])[:, :, None]

        def semi_lagrangian(points: int) -> Callable[[Tensor, Tensor], Tensor]:
            weights = Remembered(lambda c: lagrange_weights(_by_speed(c, _departure), points, nx))
            return lambda u, static: weights(static)(u[:, :, 0])[:, :, None].to(u.dtype)

        matrix = Remembered(lambda c: _by_speed(c, lambda each: trigonometric_weights(_departure(each), nx)))
        return {
            "upwind": explicit(upwind),
            "lax_wendroff": explicit(lax_wendroff),
            **{semi_lagrangian_name(points): semi_lagrangian(points) for points in points_for(nx)},
            "semi_lagrangian_trigonometric": lambda u, static: matrix(static).to(u.dtype) @ u,
        }


def _departure(speed: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Where the air was one step ago, in cells, so exactly that the interpolation is what remains wrong."""
    return departure(speed, 4, min(8, 2 * (speed.shape[1] // 2)))


def _by_speed(static: Float[Tensor, "b n 1"], function: Callable[[Tensor], Tensor]) -> Tensor:
    """``function`` of each speed (rows, n), in float64; rows that follow each other and are equal are one."""
    speeds, row = static[:, :, 0].double().unique_consecutive(dim=0, return_inverse=True)
    return function(speeds)[row]


class Remembered(Generic[T]):
    """A function of one tensor that keeps its last result: the speed is the same in all steps of a rollout."""

    def __init__(self, function: Callable[[Tensor], T]) -> None:
        self._function = function
        self._last: tuple[Tensor, T] | None = None

    def __call__(self, tensor: Tensor) -> T:
        if self._last is None or self._last[0] is not tensor:
            self._last = tensor, self._function(tensor)
        return self._last[1]


class _TravelTime:
    """τ(x) = ∫₀ˣ dx'/c in steps, x in cells, from c at ``FINER`` points per cell: a mean slope and a periodic part."""

    def __init__(self, fine_c: Float[Tensor, "b fine"]) -> None:
        n = fine_c.shape[1]
        spectrum = torch.fft.rfft(1 / fine_c, dim=1)
        self.slope = spectrum[:, :1].real / n
        wavenumber = 2 * math.pi * FINER / n * torch.arange(n // 2 + 1, dtype=torch.float64, device=fine_c.device)
        wavenumber[0] = 1
        periodic = spectrum / (1j * wavenumber)
        periodic[:, 0] = 0
        self.periodic = torch.fft.irfft(periodic, n=n, dim=1)

    def __call__(self, position: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
        return self.slope * position + lagrange(self.periodic, position * FINER, POINTS)


class Advection2D(RandomFields):
    """Random band-limited fields on a doubly periodic grid, carried along at a constant velocity, solved exactly.

    Args:
        ny, nx: rows and columns, at least 3.
        modes: wavenumbers |k| ≤ modes along each axis, below min(ny, nx)/2, all with the same variance; zero mean.
        cells_y, cells_x: cells moved per step along each axis, not both 0.
        length: of the domain along x, in length units; only labels the figures.
        sizes: see :class:`RandomFields`.
    """

    def __init__(
        self,
        ny: int = 16,
        nx: int = 20,
        modes: int = 3,
        cells_y: float = 0.7,
        cells_x: float = 1.3,
        length: float = 10.0,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        require(ny >= 3, "ny", "at least 3", ny)
        check_ring(nx, modes, length)
        require(2 * modes < ny, "modes", f"modes < ny/2 = {ny / 2:g}, or the grid cannot hold them", modes)
        require(cells_y != 0 or cells_x != 0, "cells_x", "not 0, or cells_y not 0", cells_x)
        self.shape, self.modes, self.length = (ny, nx), modes, length
        self.cells = (cells_y, cells_x)
        self.courant = (abs(cells_y), abs(cells_x))

    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 0"]]:
        ny, nx = self.shape
        noise = torch.randn(count, ny, nx, dtype=torch.float64, generator=generator, device=generator.device)
        spectrum = torch.fft.rfft2(noise)
        ky, kx = (torch.fft.fftfreq(ny) * ny).round(), (torch.fft.rfftfreq(nx) * nx).round()
        kept = (ky.abs()[:, None] <= self.modes) & (kx <= self.modes)
        kept[0, 0] = False
        number = (2 * self.modes + 1) ** 2 - 1
        u = torch.fft.irfft2(spectrum * kept.to(spectrum.device), s=(ny, nx)) * math.sqrt(ny * nx / number)
        return u.flatten(1)[:, :, None], u.new_zeros(count, ny * nx, 0)

    def solve(self, u0: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"], steps: int) -> Float[Tensor, "b l n c"]:
        return translate(u0, self.shape, self.cells, steps)

    def schemes(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        return advection_schemes(self.shape, self.cells)
