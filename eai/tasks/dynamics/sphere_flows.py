"""Winds on the unit sphere, where the air they carry comes from, and smooth fields known at every point.

Each of b trajectories has a wind and a field of its own. Points are unit vectors (x, y, z); lengths are in radians and
times in steps. All is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.tasks.dynamics.sphere_geometry import unit

Points = Float[Tensor, "b m 3"]
STEEPNESS = 1.5  # ρ₀ of the vortices; their source has 3, too sharp for meshes of a few hundred nodes
SUBSTEPS = 50  # of the reference, per radian that the air can turn in a step


class Wind(NamedTuple):
    """A steady wind without divergence: v(x) = rotation · axis × x + vortex · g(pole · x) · pole × x.

    The first term is solid-body rotation about any axis (Williamson et al., J. Comput. Phys. 102 (1992), test 1, for
    any angle α). The second is a pair of vortices at ± pole that turn opposite ways to those who look down on
    them (Nair, Côté and Staniforth, Q. J. R. Meteorol. Soc. 125 (1999); Nair and Machenhauer, Mon. Wea. Rev. 130
    (2002)): the speed is (3√3/2) sech²ρ tanh ρ, at most 1, at ρ = ρ₀ · sin(angle from the pole), here with
    ρ₀ = 1.5, and g = ρ₀ · speed/ρ.

    ``axis``, ``pole``: unit vectors.
    ``rotation``, ``vortex``: the largest speed of either term, in radians per step.
    """

    axis: Float[Tensor, "b 3"]
    pole: Float[Tensor, "b 3"]
    rotation: float
    vortex: float

    @property
    def fastest_turn(self) -> float:
        """Radians per step that the air turns about anything, at most."""
        return self.rotation + self.vortex * STEEPNESS * 1.5 * math.sqrt(3)

    def velocity(self, x: Points) -> Points:
        """The wind at x, in radians per step."""
        spin = self.rotation * self.axis[:, None]
        if self.vortex:
            rho = STEEPNESS * (1 - (x @ self.pole[:, :, None]).square()).clamp(min=1e-30).sqrt()
            tanh = rho.tanh()
            g = 1.5 * math.sqrt(3) * STEEPNESS * (1 - tanh.square()) * tanh / rho
            spin = spin + self.vortex * g * self.pole[:, None]
        return torch.linalg.cross(spin.expand_as(x), x)

    def origin(self, x: Points, substeps: int | None = None) -> Points:
        """Where the air at x was one step ago.

        In closed form for rotation alone; else by Runge–Kutta 4, by default with so many sub-steps that the error
        after tens of radians is below 1e-8.
        """
        if not self.vortex:
            return turned(x, self.axis, -self.rotation)
        substeps = substeps or max(4, math.ceil(self.fastest_turn * SUBSTEPS))
        for _ in range(substeps):
            x = back(x, self.velocity, 1 / substeps)
        return x


def turned(x: Points, axis: Float[Tensor, "b 3"], angle: float) -> Points:
    """x turned about the axis: cos x + sin axis × x + (1 − cos)(axis · x) axis (Rodrigues)."""
    about = axis[:, None].expand_as(x)
    along = (about * x).sum(-1, keepdim=True) * about
    return math.cos(angle) * x + math.sin(angle) * torch.linalg.cross(about, x) + (1 - math.cos(angle)) * along


def back(x: Points, wind: Callable[[Tensor], Tensor], h: float) -> Points:
    """A Runge–Kutta 4 step of dX/ds = −wind(X) over a time h, ended on the sphere."""
    k1 = wind(x)
    k2 = wind(x - h / 2 * k1)
    k3 = wind(x - h / 2 * k2)
    k4 = wind(x - h * k3)
    return unit(x - h / 6 * (k1 + 2 * k2 + 2 * k3 + k4))


class SmoothField(NamedTuple):
    """u(x) = scale · [Σ_h height_h h(r_h) + Σ_l Σ_j amplitude_lj P_l(x · axis_lj)], r_h the angle from centre_h to x.

    Hills are of Gaussian shape, h(r) = exp((cos r − 1)/width_h²), or the cosine bells of Williamson et al. (1992, test
    1), h(r) = ½ (1 + cos(π r/R)) for r < R and 0 beyond, with R such that both are ½ at the same r. Harmonics of degree
    l = 1, 2, … are 2l + 1 zonal ones about axes of their own; P_l is the Legendre polynomial.

    ``centre``, ``axis``: unit vectors. ``axis`` and ``amplitude`` hold the degrees one after the other, and each
    degree in the number of its axes.
    ``width``: the standard deviation of a Gaussian hill, in radians.
    ``scale``: of the whole field.
    ``bells``: whether hills are cosine bells.
    """

    centre: Float[Tensor, "b h 3"]
    height: Float[Tensor, "b h"]
    width: Float[Tensor, "b h"]
    axis: Float[Tensor, "b a 3"]
    amplitude: Float[Tensor, "b a"]
    scale: Float[Tensor, "b 1"]
    bells: bool = False

    def of(self, rows: Int[Tensor, " r"]) -> SmoothField:
        """Some of the b fields."""
        parts = (self.centre, self.height, self.width, self.axis, self.amplitude, self.scale)
        return SmoothField._make([*(part[rows] for part in parts), self.bells])

    def __call__(self, x: Points) -> Float[Tensor, "b m"]:
        """The field at x."""
        away, widths = 1 - x @ self.centre.mT, self.width[:, None].square()
        if self.bells:
            radius = 2 * (1 - math.log(2) * widths).clamp(min=-1).acos()
            share = ((1 - away).clamp(-1, 1).acos() / radius).clamp(max=1)
            hills = 0.5 * (1 + (math.pi * share).cos())
        else:
            hills = (-away / widths).exp()
        u = (hills @ self.height[:, :, None])[:, :, 0]
        first, degree = 0, 1
        while first < self.axis.shape[1]:
            part = slice(first, first + 2 * degree + 1)
            zonal = legendre(degree, x @ self.axis[:, part].mT)
            u = u + (zonal @ self.amplitude[:, part, None])[:, :, 0]
            first, degree = part.stop, degree + 1
        return self.scale * u


def legendre(degree: int, z: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    """P_l(z) by (l + 1) P_{l+1} = (2l + 1) z P_l − l P_{l−1}; P_0 = 1, P_1 = z; degree 0 or more."""
    before, now = torch.zeros_like(z), torch.ones_like(z)
    for order in range(degree):
        before, now = now, ((2 * order + 1) * z * now - order * before) / (order + 1)
    return now


def random_directions(*shape: int, generator: torch.Generator) -> Float[Tensor, "*b 3"]:
    """Unit vectors, each direction as likely as any other."""
    return unit(torch.randn(*shape, 3, dtype=torch.float64, generator=generator, device=generator.device))


def random_smooth_fields(
    count: int, hills: int, width: float, degree: int, generator: torch.Generator, bells: bool = False
) -> SmoothField:
    """Fields with random places, heights ~ N(0, 1), widths and harmonics; the harmonics together have unit variance.

    Args:
        count: of fields.
        hills: in each field, 0 or more.
        width: of the narrowest hill, in radians; the others are up to twice as wide.
        degree: of the harmonics, at most; 0 for none.
        generator: of the random numbers.
        bells: see :class:`SmoothField`.
    """
    axes = (degree + 1) ** 2 - 1

    def normal(numbers: int) -> Float[Tensor, "b a"]:
        return torch.randn(count, numbers, dtype=torch.float64, generator=generator, device=generator.device)

    wider = torch.rand(count, hills, dtype=torch.float64, generator=generator, device=generator.device)
    return SmoothField(
        centre=random_directions(count, hills, generator=generator),
        height=normal(hills),
        width=width * (1 + wider),
        axis=random_directions(count, axes, generator=generator),
        # The mean square of P_l is 1/(2l + 1), and there are 2l + 1 of them.
        amplitude=normal(axes) / math.sqrt(max(1, degree)),
        scale=wider.new_ones(count, 1),
        bells=bells,
    )
