"""Classical numerical schemes on periodic grids: references without training.

Fields (b, n, c) live on grids of one or two dimensions, n = Π shape; lengths are in cells and times in steps, so that a
speed is a number of cells per step. Explicit schemes take as many sub-steps as they need to be stable.
Sources: LeVeque, Finite Volume Methods for Hyperbolic Problems (2002); Durran, Numerical Methods for Fluid Dynamics
(2010).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

Scheme = Callable[[Tensor, Tensor], Tensor]
Field = Float[Tensor, "b n"]
POINTS = (2, 4, 6, 8, 12)  # of semi-Lagrangian interpolation


def translate(
    u0: Float[Tensor, "b n c"], shape: tuple[int, ...], cells: tuple[float, ...], steps: int
) -> Float[Tensor, "b l n c"]:
    """The exact solution of u_t + c·∇u = 0 after 1 … ``steps`` steps: the phase of wavenumber k turns by k · cells.

    It moves the trigonometric interpolant of any field; the highest mode of an even number of points, whose phase
    the grid cannot tell, keeps the real part of its turn.
    """
    field = u0.double().transpose(1, 2).unflatten(2, shape)
    axes = tuple(range(2, 2 + len(shape)))
    spectrum = torch.fft.rfftn(field, dim=axes)
    lead = torch.arange(1, steps + 1, dtype=torch.float64, device=u0.device)
    turn = torch.ones(1, dtype=torch.complex128, device=u0.device)
    for axis, (size, distance) in enumerate(zip(shape, cells, strict=True)):
        frequency = torch.fft.rfftfreq if axis == len(shape) - 1 else torch.fft.fftfreq
        k = frequency(size, dtype=torch.float64, device=u0.device)
        phase = torch.exp(-2j * math.pi * distance * lead[:, None] * k)
        if size % 2 == 0:
            phase[:, size // 2] = phase[:, size // 2].real.to(phase.dtype)
        turn = turn[..., None] * phase.view(steps, *(1,) * axis, -1)
    moved = torch.fft.irfftn(spectrum[:, None] * turn[:, None], s=shape, dim=tuple(axis + 1 for axis in axes))
    return moved.flatten(3).transpose(2, 3).to(u0.dtype)


def upwind(u: Field, speed: Field) -> Field:
    """First-order upwind step of u_t + c u_x = 0, |c| ≤ 1 cell: u_i − c⁺(u_i − u_{i−1}) − c⁻(u_{i+1} − u_i).

    Monotone and diffusive; exact for c = 1; conservative where c is constant.
    """
    behind, ahead = u.roll(1, dims=1), u.roll(-1, dims=1)
    return u - speed.clamp(min=0) * (u - behind) - speed.clamp(max=0) * (ahead - u)


def lax_wendroff(u: Field, speed: Field) -> Field:
    """Second-order step of u_t + c u_x = 0, |c| ≤ 1 cell: u − c u_x + ½ c (c u_x)_x with central differences."""
    forward = u.roll(-1, dims=1) - u
    backward = forward.roll(1, dims=1)
    between = (speed + speed.roll(-1, dims=1)) / 2
    curvature = between * forward - between.roll(1, dims=1) * backward
    return u - speed * (forward + backward) / 2 + speed / 2 * curvature


class Interpolation(NamedTuple):
    """Where values between grid points come from: Σ_p weight · u[points]."""

    points: Int[Tensor, "b m p"]
    weight: Float[Tensor, "b m p"]

    def __call__(self, u: Field) -> Float[Tensor, "b m"]:
        b, m, p = self.points.shape
        return (u.gather(1, self.points.view(b, m * p)).view(b, m, p) * self.weight).sum(2)


def lagrange_weights(position: Float[Tensor, "b m"], points: int, size: int) -> Interpolation:
    """Lagrange interpolation at positions (in cells, any number) of a ring of ``size``, ``points`` an even number."""
    base = position.floor()
    fraction = position - base
    nodes = range(1 - points // 2, points // 2 + 1)
    weights = []
    for node in nodes:
        weight = torch.ones_like(fraction)
        for other in nodes:
            if other != node:
                weight = weight * ((fraction - other) / (node - other))
        weights.append(weight)
    around = base.long()[..., None] + torch.tensor(nodes, device=position.device)
    return Interpolation(around % size, torch.stack(weights, dim=-1))


def lagrange(u: Field, position: Float[Tensor, "b m"], points: int) -> Float[Tensor, "b m"]:
    """Values of u at positions (in cells, any real number) by Lagrange interpolation, ``points`` an even number."""
    return lagrange_weights(position, points, u.shape[1])(u)


def trigonometric_weights(position: Float[Tensor, "b m"], size: int) -> Float[Tensor, "b m n"]:
    """The matrix that takes u on a ring of ``size`` to its trigonometric interpolant at positions in cells.

    D(x) = (1 + 2 Σ_k cos kx)/n over the wavenumbers 0 < k < n/2, with the highest mode of an even n once.
    """
    apart = (
        2 * math.pi / size * (position[..., None] - torch.arange(size, dtype=position.dtype, device=position.device))
    )
    k = torch.arange(1, (size + 1) // 2, dtype=position.dtype, device=position.device)
    kernel = 1 + 2 * (apart[..., None] * k).cos().sum(-1)
    if size % 2 == 0:
        kernel = kernel + (apart * (size // 2)).cos()
    return kernel / size


def trigonometric(u: Field, factor: int) -> Float[Tensor, "b fine"]:
    """The trigonometric interpolant of u on a grid ``factor`` ≥ 2 times as fine."""
    n = u.shape[1]
    spectrum = torch.fft.rfft(u, dim=1)
    if n % 2 == 0:
        spectrum[:, -1] = spectrum[:, -1] / 2  # its other half is the negative frequency, that the fine grid has too
    return torch.fft.irfft(spectrum, n=n * factor, dim=1) * factor


def departure(speed: Field, substeps: int, points: int) -> Field:
    """Where the air at each grid point was one step ago, in cells: dX/ds = −c(X), by Runge-Kutta 4 in sub-steps."""
    position = torch.arange(speed.shape[1], dtype=speed.dtype, device=speed.device).expand_as(speed)
    h = 1 / substeps
    for _ in range(substeps):
        k1 = lagrange(speed, position, points)
        k2 = lagrange(speed, position - h / 2 * k1, points)
        k3 = lagrange(speed, position - h / 2 * k2, points)
        k4 = lagrange(speed, position - h * k3, points)
        position = position - h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return position


def substeps_for(speed: Field) -> int:
    """Sub-steps after which no signal moves more than one cell."""
    return max(1, math.ceil(speed.abs().max().item() - 1e-9))


def with_substeps(scheme: Callable[[Tensor, Tensor], Tensor], u: Field, speed: Field) -> Field:
    """One step of an explicit scheme in as few sub-steps as keep |c| ≤ 1 cell."""
    substeps = substeps_for(speed)
    for _ in range(substeps):
        u = scheme(u, speed / substeps)
    return u


def along_axes(
    u: Float[Tensor, "b n c"], shape: tuple[int, ...], step: Callable[[Tensor, int], Tensor]
) -> Float[Tensor, "b n c"]:
    """``step(lines, axis)`` along one axis after the other (dimensional splitting); lines are (rows, points)."""
    b, _, c = u.shape
    field = u.transpose(1, 2).reshape(b * c, *shape)
    for axis in range(len(shape)):
        lines = field.movedim(axis + 1, -1)
        field = step(lines.flatten(0, -2), axis).view(lines.shape).movedim(-1, axis + 1)
    return field.reshape(b, c, -1).transpose(1, 2)


def advection_schemes(shape: tuple[int, ...], cells: tuple[float, ...]) -> Mapping[str, Scheme]:
    """Schemes for a constant speed of ``cells`` per step along each axis."""

    def explicit(scheme: Callable[[Tensor, Tensor], Tensor]) -> Scheme:
        def along(u: Tensor, axis: int) -> Tensor:
            return with_substeps(scheme, u, torch.full_like(u, cells[axis]))

        return lambda u, static: along_axes(u, shape, along)

    def semi_lagrangian(points: int) -> Scheme:
        # At constant speed the weights are the same at every point: a fixed stencil along each axis.
        stencils = []
        for size, distance in zip(shape, cells, strict=True):
            one = lagrange_weights(torch.tensor([[-distance]], dtype=torch.float64), points, size)
            stencils.append(list(zip(one.points.flatten().tolist(), one.weight.flatten().tolist(), strict=True)))

        def along(u: Tensor, axis: int) -> Tensor:
            moved = torch.zeros_like(u)
            for offset, weight in stencils[axis]:
                moved = moved.add(u.roll(-offset, dims=1), alpha=weight)
            return moved

        return lambda u, static: along_axes(u, shape, along)

    return {
        "upwind": explicit(upwind),
        "lax_wendroff": explicit(lax_wendroff),
        **{semi_lagrangian_name(points): semi_lagrangian(points) for points in points_for(min(shape))},
    }


def points_for(size: int) -> list[int]:
    """Numbers of points that semi-Lagrangian schemes interpolate between, as many as a ring of ``size`` has."""
    return [points for points in POINTS if points <= size]


def semi_lagrangian_name(points: int) -> str:
    """As in scores: ``…_linear``, ``…_cubic``, then by the number of points."""
    return f"semi_lagrangian_{ {2: 'linear', 4: 'cubic'}.get(points, points) }"
