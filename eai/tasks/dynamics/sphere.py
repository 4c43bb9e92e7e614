"""A scalar carried by a steady wind on the sphere, solved exactly on the nodes of the icosahedral mesh."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal, Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import Split
from eai.tasks.dynamics.data import Batch, Surface, unforced
from eai.tasks.dynamics.meshes import icosphere, icosphere_faces
from eai.tasks.dynamics.random_fields import RandomFields, Sizes
from eai.tasks.dynamics.schemes import Scheme
from eai.tasks.dynamics.sphere_flows import SmoothField, Wind, random_directions, random_smooth_fields
from eai.tasks.dynamics.sphere_geometry import east_north
from eai.tasks.dynamics.sphere_schemes import sphere_schemes

ROTATION = 0.3  # share of the solid-body rotation in the largest wind of a deformation
POINTS = 2**13  # in one pass of the reference: as many as the processor keeps near


class Sphere(RandomFields):
    """Random smooth fields carried along on the unit sphere: u_t + v · ∇u = 0, v(x) steady and without divergence.

    The fields are hills and low harmonics, see :class:`eai.tasks.dynamics.sphere_flows.SmoothField`, scaled to a
    largest absolute value of 1 at the nodes. v is new in each trajectory, see
    :class:`eai.tasks.dynamics.sphere_flows.Wind`. The solution is u(x, t) = u(X, 0), X the place where the air was
    at time 0: in closed form for rotation, by Runge–Kutta 4 for deformation, with an error of u below 1e-8; u(X, 0) is
    the analytic field, never interpolated. ``static`` is v at the nodes, to the east and to the north, in mean edge
    lengths per step, and the sine of latitude.

    Args:
        level: of the mesh, 1 or more: 10 · 4^level + 2 nodes, see :func:`eai.tasks.dynamics.meshes.icosphere`.
        flow: ``rotation``, of a solid body about a random axis; ``deformation``, two opposite vortices at random poles,
            and rotation about another axis with 0.3 of the largest wind.
        wind: the largest, in mean edge lengths per step, above 0; in a deformation a bound.
        hills: in each field, 0 or more.
        width: standard deviation of the narrowest hill, in radians, at least the mean edge length; the widest are twice
            as wide.
        degree: of the harmonics, 0 (none) or more, at most π/mean edge length; not 0 without hills.
        bells: whether hills are cosine bells, which end at a circle, instead of Gaussian.
        sizes: see :class:`RandomFields`.
    """

    def __init__(
        self,
        level: int = 3,
        flow: Literal["rotation", "deformation"] = "rotation",
        wind: float = 1.0,
        hills: int = 3,
        width: float = 0.35,
        degree: int = 3,
        bells: bool = False,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        require(level >= 1, "level", "1 or more", level)
        require(flow in ("rotation", "deformation"), "flow", "rotation or deformation", flow)
        require(wind > 0, "wind", "above 0", wind)
        require(hills >= 0, "hills", "0 or more", hills)
        self.mesh, self.faces = icosphere(level), icosphere_faces(level)
        spacing = self.mesh.spacing
        require(width >= spacing, "width", f"at least the mesh's mean edge length, {spacing:.3g} radians", width)
        most = math.floor(math.pi / spacing)
        require(0 <= degree <= most, "degree", f"0 ≤ degree ≤ {most}, or the mesh cannot hold the harmonics", degree)
        require(hills + degree >= 1, "degree", "1 or more where there are no hills", degree)
        self.flow, self.wind, self.hills, self.width, self.bells = flow, wind, hills, width, bells
        self.shape, self.modes, self.length = (self.mesh.nodes,), degree, 2 * math.pi
        self.courant, self.spacing = (wind,), spacing
        self.positions, self.surface = self.mesh.positions, Surface(self.mesh.positions, self.faces)

    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n 1"], Float[Tensor, "b n 3"]]:
        wind, field = self.draw(count, generator)
        return self._states(wind, field, 0)[:, 0], self._static(wind)

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        wind, field = self.draw(self.sizes[split], generator)
        steps = (self.nt if split == "train" else self.nt_test) - 1
        return unforced(self._states(wind, field, steps).float(), self._static(wind).float())

    def solve(self, u0: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"], steps: int) -> Float[Tensor, "b l n c"]:
        raise NotImplementedError(
            "the solution on the sphere is known for the analytic fields that generate draws, not for values at nodes"
        )

    def reference(self, batch: Batch) -> tuple[Float[Tensor, "b l n c"], Float[Tensor, "b l n c"]]:
        """The trajectories themselves, which are the exact solution."""
        return batch.u[:, 1:], batch.u[:, 1:]

    def schemes(self) -> Mapping[str, Scheme]:
        return sphere_schemes(self.mesh, self.faces)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Wind, SmoothField]:
        """Winds and initial fields of ``count`` trajectories, on the generator's device."""
        field = random_smooth_fields(count, self.hills, self.width, self.modes, generator, self.bells)
        peak = field(self._nodes(count, generator.device)).abs().amax(1, keepdim=True)
        axis, pole = (random_directions(count, generator=generator) for _ in range(2))
        largest = self.wind * self.mesh.spacing
        rotation = largest if self.flow == "rotation" else ROTATION * largest
        return Wind(axis, pole, rotation, largest - rotation), field._replace(scale=1 / peak)

    def _states(self, wind: Wind, field: SmoothField, steps: int) -> Float[Tensor, "b t n 1"]:
        """u at the times 0 … steps, in float64, a few trajectories after the other."""
        states = []
        for rows in torch.arange(len(wind.axis)).split(max(1, POINTS // self.mesh.nodes)):
            some_wind = wind._replace(axis=wind.axis[rows], pole=wind.pole[rows])
            some_fields = field.of(rows)
            x = self._nodes(len(rows), wind.axis.device)
            u = [some_fields(x)]
            for _ in range(steps):
                x = some_wind.origin(x)
                u.append(some_fields(x))
            states.append(torch.stack(u, dim=1))
        return torch.cat(states)[..., None]

    def _static(self, wind: Wind) -> Float[Tensor, "b n 3"]:
        x = self._nodes(len(wind.axis), wind.axis.device)
        components = (east_north(x) @ wind.velocity(x)[..., None])[..., 0]
        return torch.cat([components / self.mesh.spacing, x[..., 2:]], dim=2)

    def _nodes(self, count: int, device: torch.device) -> Float[Tensor, "b n 3"]:
        return self.mesh.positions.to(device).expand(count, -1, -1)
