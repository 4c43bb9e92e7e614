"""Geometry of the unit sphere: directions, angles, areas, and the triangle that a point lies in.

Points are unit vectors (x, y, z), z to the north pole; angles and lengths are in radians, areas in steradians.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.tasks.dynamics.schemes import Interpolation

CHUNK = 2**22  # distances at once


def unit(vectors: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Each vector divided by its length."""
    return vectors / vectors.norm(dim=-1, keepdim=True)


def angle(a: Float[Tensor, "*b 3"], b: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """The great-circle length from a to b: atan2(|a × b|, a · b), accurate for all angles."""
    return torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1))


def east_north(points: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 2 3"]:
    """The unit vectors to the east and to the north; at a pole those of longitude 0."""
    x, y, z = points.unbind(-1)
    longitude = torch.atan2(y, x)
    sine, cosine = longitude.sin(), longitude.cos()
    east = torch.stack([-sine, cosine, torch.zeros_like(x)], dim=-1)
    north = torch.stack([-z * cosine, -z * sine, torch.hypot(x, y)], dim=-1)
    return torch.stack([east, north], dim=-2)


def towards(start: Float[Tensor, "e 3"], end: Float[Tensor, "e 3"]) -> Float[Tensor, "e 2"]:
    """The great circle from start to end: its direction at the start (east, north) times its length."""
    direction = end - (end * start).sum(-1, keepdim=True) * start
    components = (east_north(start) @ direction[..., None])[..., 0]
    return components * (angle(start, end) / direction.norm(dim=-1))[..., None]


def spherical_area(a: Float[Tensor, "*b 3"], b: Float[Tensor, "*b 3"], c: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """Area of the spherical triangle abc, negative if clockwise seen from outside.

    tan(area/2) = a · (b × c)/(1 + a · b + b · c + c · a). Source: van Oosterom and Strackee, IEEE Trans. Biomed. Eng.
    30 (1983).
    """
    volume = (a * torch.linalg.cross(b, c)).sum(-1)
    return 2 * torch.atan2(volume, 1 + (a * b).sum(-1) + (b * c).sum(-1) + (c * a).sum(-1))


def circumcentres(positions: Float[Tensor, "n 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """The points that are as far from all three corners of a triangle: (b − a) × (c − a), normalised."""
    a, b, c = positions[faces].unbind(1)
    return unit(torch.linalg.cross(b - a, c - a))


def voronoi_areas(positions: Float[Tensor, "n 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, " n"]:
    """Areas of the nodes' Voronoi cells, 4π together.

    A cell is made of two triangles in each face around its node: node, middle of an edge, circumcentre.

    Args:
        positions: of the nodes.
        faces: of their Delaunay triangulation, counter-clockwise seen from outside.
    """
    area = positions.new_zeros(len(positions))
    centre = circumcentres(positions, faces)
    for corner in range(3):
        here, ahead, behind = (positions[faces[:, (corner + turn) % 3]] for turn in range(3))
        parts = spherical_area(here, unit(here + ahead), centre) + spherical_area(here, centre, unit(here + behind))
        area.index_add_(0, faces[:, corner], parts)
    return area


class Triangulation:
    """Acute triangles that cover the sphere, so that a point's nearest node is a corner of the triangle it lies in.

    Args:
        positions: of the nodes, in float64.
        faces: the corners of each triangle, counter-clockwise seen from outside.
    """

    def __init__(self, positions: Float[Tensor, "n 3"], faces: Int[Tensor, "f 3"]) -> None:
        self.positions, self.faces = positions, faces
        count = faces.flatten().bincount(minlength=len(positions))
        face_by_node = faces.flatten().argsort(stable=True) // 3
        # Where a node has fewer faces than another, some are named twice.
        turn = torch.arange(int(count.max())) % count[:, None]
        self._around = face_by_node[(count.cumsum(0) - count)[:, None] + turn]
        self._inverse = torch.linalg.inv(positions[faces].transpose(1, 2))

    def nearest(self, points: Float[Tensor, "b m 3"]) -> Int[Tensor, "b m"]:
        """The number of the node nearest to each point."""
        nodes = self.positions.to(points).T
        chunks = points.flatten(0, 1).split(max(1, CHUNK // len(self.positions)))
        return torch.cat([(chunk @ nodes).argmax(1) for chunk in chunks]).view(points.shape[:2])

    def barycentric(self, points: Float[Tensor, "b m 3"]) -> Interpolation:
        """Linear interpolation in the plane triangle that the radius of each point passes through.

        point ∝ Σ_p weight_p · corner_p, weights ≥ 0, Σ_p weight_p = 1.
        """
        inverse, around, faces = (part.to(points.device) for part in (self._inverse, self._around, self.faces))
        candidates = around[self.nearest(points)].flatten(0, 1)
        corners, weights = [], []
        for chunk, face in zip(points.flatten(0, 1).split(CHUNK // 64), candidates.split(CHUNK // 64), strict=True):
            coordinates = (inverse[face] @ chunk[:, None, :, None].to(inverse.dtype))[..., 0]
            best = coordinates.amin(2).argmax(1, keepdim=True)
            weight = coordinates.take_along_dim(best[..., None], 1)[:, 0].clamp(min=0)
            corners.append(faces[face.gather(1, best)[:, 0]])
            weights.append(weight / weight.sum(1, keepdim=True))
        shape = (*points.shape[:2], 3)
        return Interpolation(torch.cat(corners).view(shape), torch.cat(weights).view(shape))
