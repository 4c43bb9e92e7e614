"""Classical schemes for a scalar that a steady wind carries over the sphere: references without training.

Fields are (b, n, 1), static features (b, n, s) with the wind to the east and to the north first, in mean edge lengths
per step. Geometry and weights are float64, fields keep their type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.tasks.dynamics.advection import Remembered
from eai.tasks.dynamics.meshes import PointGraph
from eai.tasks.dynamics.schemes import Interpolation, Scheme
from eai.tasks.dynamics.sphere_flows import back
from eai.tasks.dynamics.sphere_geometry import Triangulation, angle, circumcentres, east_north, unit, voronoi_areas

Field = Float[Tensor, "b n"]
Winds = Float[Tensor, "b n 3"]
TOLERANCE, ITERATIONS = 1e-12, 10_000  # of conjugate gradients: the residual in parts of the right-hand side


def sphere_schemes(mesh: PointGraph, faces: Int[Tensor, "f 3"]) -> Mapping[str, Scheme]:
    """``upwind``, ``semi_lagrangian_nearest`` and ``semi_lagrangian_linear`` on a mesh of the sphere.

    Args:
        mesh: the nodes and edges of acute triangles, such as :func:`eai.tasks.dynamics.meshes.icosphere`.
        faces: these triangles, counter-clockwise seen from outside.
    """
    triangles, cells = Triangulation(mesh.positions, faces), Cells(mesh, faces)

    def origins(winds: Winds) -> Winds:
        """Where the air at the nodes was one step ago: Runge–Kutta 4 in the wind between the nodes."""
        nodes = mesh.positions.to(winds.device).expand(len(winds), -1, -1)
        return back(nodes, lambda x: _between(winds, triangles.barycentric(x)), 1.0)

    def nearest(winds: Winds) -> Interpolation:
        points = triangles.nearest(origins(winds))[..., None]
        return Interpolation(points, torch.ones_like(points, dtype=winds.dtype))

    return {
        "upwind": _scheme(mesh, cells.fluxes, cells.upwind),
        "semi_lagrangian_nearest": _scheme(mesh, nearest, _read),
        "semi_lagrangian_linear": _scheme(mesh, lambda winds: triangles.barycentric(origins(winds)), _read),
    }


def _scheme(mesh: PointGraph, prepare: Callable[[Tensor], tuple], step: Callable[[Field, tuple], Field]) -> Scheme:
    """A scheme whose coefficients, ``prepare(winds)``, are found once for winds that follow each other and are equal.

    ``prepare`` gives a NamedTuple of tensors with one row for each wind, in radians per step.
    """

    def by_wind(static: Float[Tensor, "b n s"]) -> tuple:
        components, row = static[:, :, :2].double().unique_consecutive(dim=0, return_inverse=True)
        winds = (mesh.spacing * components[..., None] * east_north(mesh.positions.to(static.device))).sum(2)
        coefficients = prepare(winds)
        return type(coefficients)(*(part[row] for part in coefficients))

    known = Remembered(by_wind)
    return lambda u, static: step(u[:, :, 0], known(static))[:, :, None].to(u.dtype)


def _read(u: Field, interpolation: tuple) -> Field:
    return Interpolation(*interpolation)(u)


def _between(winds: Winds, interpolation: Interpolation) -> Winds:
    """The wind at points between the nodes."""
    return torch.stack([interpolation(component) for component in winds.unbind(2)], dim=2)


class Fluxes(NamedTuple):
    """What the wind carries across each side of a cell, and in how many sub-steps that is stable.

    ``flux``: from the source of an edge to its target, in steradians per step; the edge back has −flux.
    ``substeps``: so many that no cell loses more than it holds in one of them.
    """

    flux: Float[Tensor, "b e"]
    substeps: Int[Tensor, " b"]


class Cells:
    """Finite volumes: the Voronoi cell of every node, with a side across every edge of the mesh.

    Args:
        mesh: of the sphere.
        faces: its triangles.
    """

    def __init__(self, mesh: PointGraph, faces: Int[Tensor, "f 3"]) -> None:
        n = mesh.nodes
        self.area = voronoi_areas(mesh.positions, faces)
        self.source, self.target = mesh.edge_index
        start, end = mesh.positions[self.source], mesh.positions[self.target]
        self.ahead = unit(end - start)
        # An edge has the face to its left where it appears as a side, and that of the edge back to its right.
        sides = torch.stack([faces, faces.roll(-1, dims=1)], dim=2).flatten(0, 1)
        code = self.target * n + self.source
        left = torch.empty_like(self.source)
        left[torch.searchsorted(code, sides[:, 1] * n + sides[:, 0])] = torch.arange(len(sides)) // 3
        centre = circumcentres(mesh.positions, faces)
        self.side = angle(centre[left], centre[left[mesh.reverse]])
        self.distance = angle(start, end)

    def fluxes(self, winds: Winds) -> Fluxes:
        """Fluxes of the mean wind of both nodes across the middle of their side, made free of divergence.

        F_e = ½(v_s + v_t) · (x_t − x_s)/|x_t − x_s| · side_e. As much as flows into a cell flows out of it after the
        least change Σ_e distance_e/side_e (F'_e − F_e)², which is F'_e = F_e − side_e/distance_e (φ_t − φ_s) with
        a discrete Poisson equation for φ. So constant fields stay constant.
        """
        source, target, ahead, side, distance, area = self._on(winds.device)
        flux = ((winds[:, source] + winds[:, target]) / 2 * ahead).sum(2) * side
        conductance = side / distance

        def inflow(f: Tensor) -> Tensor:
            return f.new_zeros(len(f), len(area)).index_add_(1, target, f)

        def gradient(phi: Tensor) -> Tensor:
            return conductance * (phi[:, target] - phi[:, source])

        flux = flux - gradient(_conjugate_gradients(lambda phi: inflow(gradient(phi)), inflow(flux)))
        emptied = inflow(-flux.clamp(max=0)) / area
        return Fluxes(flux, (emptied.amax(1) - 1e-9).ceil().clamp(min=1).long())

    def upwind(self, u: Field, fluxes: tuple) -> Field:
        """First-order upwind step: u'_t = u_t + 1/area_t · Σ_e [F⁺_e u_s + F⁻_e u_t] over the edges e = (s, t) to t.

        It conserves Σ area · u, and every new value lies between those around it. Source: LeVeque, Finite Volume
        Methods for Hyperbolic Problems (2002), §4.
        """
        flux, substeps = fluxes
        source, target, _, _, _, area = self._on(u.device)
        for done in range(int(substeps.max())):
            now = (flux * ((done < substeps) / substeps)[:, None]).to(u.dtype)
            carried = now.clamp(min=0) * u[:, source] + now.clamp(max=0) * u[:, target]
            u = u + torch.zeros_like(u).index_add_(1, target, carried) / area.to(u.dtype)
        return u

    def _on(self, device: torch.device) -> list[Tensor]:
        parts = (self.source, self.target, self.ahead, self.side, self.distance, self.area)
        return [part.to(device) for part in parts]


def _conjugate_gradients(matrix: Callable[[Tensor], Tensor], right: Field) -> Field:
    """Solve matrix(x) = right for each row; the matrix takes constants to 0, is symmetric, and positive otherwise."""
    tiny = torch.finfo(right.dtype).tiny
    right = right - right.mean(1, keepdim=True)  # what rounding has left of a constant would never go
    x, rest, way = torch.zeros_like(right), right, right
    size = rest.square().sum(1, keepdim=True)
    enough = TOLERANCE**2 * size
    for _ in range(ITERATIONS):
        if bool((size <= enough).all()):
            break
        image = matrix(way)
        length = size / (way * image).sum(1, keepdim=True).clamp(min=tiny)
        x, rest = x + length * way, rest - length * image
        before, size = size, rest.square().sum(1, keepdim=True)
        way = rest + size / before.clamp(min=tiny) * way
    return x
