"""Graphs of any points, on a line, in a plane, in a periodic box or on the unit sphere, and the icosahedral mesh."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.tasks.dynamics.sphere_geometry import angle, towards, unit, voronoi_areas

Points = Float[Tensor, "n d"] | Sequence[Sequence[float]]
ROWS = 256  # of the matrix of distances, at once
TIE = 1e-9  # distances that differ by less, relatively, are the same


class PointGraph(NamedTuple):
    """A graph of points that lie anywhere; for each edge there is one back, and no edge from a node to itself.

    ``edge_index``: (source, target) of each directed edge, sorted by target, those of a target by source.
    ``reverse``: the number of the edge back, so that ``edge_index[:, reverse]`` is ``edge_index`` with rows exchanged.
    ``edge_attr``: the displacement from the target to the source along every axis, and its length, in mean edge
    lengths. On the sphere: the great circle's direction at the target (east, north) times its length, and its length.
    Whatever else is known of an edge may follow, as ``graph._replace(edge_attr=…)``.
    ``positions``: of the nodes, in float64; on the sphere unit vectors (x, y, z), z to the north pole.
    ``area``: weights of the nodes in means over the domain, with mean 1.
    ``spacing``: the mean edge length, in the units of the positions; on the sphere in radians.
    ``sphere``: whether the points lie on the unit sphere.
    """

    edge_index: Int[Tensor, "2 e"]
    reverse: Int[Tensor, " e"]
    edge_attr: Float[Tensor, "e f"]
    positions: Float[Tensor, "n d"]
    area: Float[Tensor, " n"]
    spacing: float
    sphere: bool = False

    @property
    def nodes(self) -> int:
        return len(self.positions)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the state: the number of nodes."""
        return (self.nodes,)

    @property
    def axes(self) -> int:
        """Columns of ``edge_attr`` before the length."""
        return 2 if self.sphere else self.positions.shape[1]

    @property
    def reach(self) -> tuple[float]:
        """How far away every node has a neighbour, or further, in the units of the positions."""
        length = self.edge_attr[:, self.axes]
        longest = length.new_zeros(self.nodes).scatter_reduce(0, self.edge_index[1], length, "amax")
        return (self.spacing * longest.min().item(),)


def knn_points(positions: Points, k: int, periodic: Sequence[float] | None = None, sphere: bool = False) -> PointGraph:
    """Two points are joined if one of them is among the ``k`` nearest of the other.

    Points as far away as the k-th, but for rounding, count too. All nodes have the weight 1; where they represent
    different areas, give these as ``graph._replace(area=…)``.

    Args:
        positions: of at least two different points, (n, d); a configuration gives a list of lists.
        k: 1 ≤ k < n.
        periodic: lengths of a periodic box along every axis; the nearest image of a point counts.
        sphere: whether the points lie on the unit sphere, d = 3; lengths are then those of great circles.
    """
    positions = _checked(positions, periodic, sphere)
    require(1 <= k < len(positions), "k", f"1 ≤ k < {len(positions)}, the number of points", k)
    pairs = _pairs(positions, periodic, lambda apart: apart.kthvalue(k, dim=1, keepdim=True).values * (1 + TIE))
    return _graph(pairs, positions, periodic, sphere)


def radius_points(
    positions: Points, radius: float, periodic: Sequence[float] | None = None, sphere: bool = False
) -> PointGraph:
    """Two points are joined if they are at most ``radius`` apart; every point must have such a neighbour.

    Args:
        positions: of at least two different points, (n, d); a configuration gives a list of lists.
        radius: above 0, in the units of the positions; on the sphere in radians, below π.
        periodic, sphere: see :func:`knn_points`, also for the weights.
    """
    positions = _checked(positions, periodic, sphere)
    require(radius > 0, "radius", "above 0", radius)
    require(not sphere or radius < math.pi, "radius", "below π on the sphere", radius)
    longest = 2 * math.sin(radius / 2) if sphere else radius
    pairs = _pairs(positions, periodic, lambda apart: torch.tensor(longest * (1 + TIE), dtype=apart.dtype))
    joined = len(pairs[1].unique())
    require(joined == len(positions), "radius", "so large that every point has a neighbour", radius)
    return _graph(pairs, positions, periodic, sphere)


def icosphere(level: int) -> PointGraph:
    """The vertices and edges of an icosahedron, each triangle divided into four ``level`` times, on the unit sphere.

    It has 10 · 4^level + 2 nodes, 12 of them with five neighbours and the others with six, and 60 · 4^level directed
    edges. A face of the icosahedron is centred on each pole, so that no node lies there. ``area`` is that of the
    Voronoi cells. The first nodes are those of the level below.

    Args:
        level: 0 or more.
    """
    positions, faces = _subdivided(level)
    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).T
    graph = _graph(sides, positions, None, sphere=True)
    area = voronoi_areas(positions, faces)
    return graph._replace(area=area / area.mean())


def icosphere_neighbours(level: int, rings: int = 2) -> PointGraph:
    """:func:`icosphere` with edges to all nodes that are at most ``rings`` of its edges away.

    Args:
        level: 0 or more.
        rings: 1 or more, fewer than lead to the antipode.
    """
    mesh = icosphere(level)
    require(1 <= rings <= 2**level, "rings", f"1 ≤ rings ≤ {2**level}", rings)
    source, target = mesh.edge_index
    pairs, n = mesh.edge_index, mesh.nodes
    first, count = torch.searchsorted(target, torch.arange(n)), torch.bincount(target, minlength=n)
    for _ in range(rings - 1):
        # From the source of a pair one edge further.
        turn = torch.arange(int(count.max())) % count[:, None]
        near = source[first[:, None] + turn]
        further = torch.stack([near[pairs[0]].flatten(), pairs[1].repeat_interleave(near.shape[1])])
        code = (torch.cat([pairs, further], 1) * torch.tensor([[1], [n]])).sum(0).unique()
        pairs = torch.stack([code % n, code // n])
        pairs = pairs[:, pairs[0] != pairs[1]]
    return _graph(pairs, mesh.positions, None, sphere=True)._replace(area=mesh.area)


def icosphere_faces(level: int) -> Int[Tensor, "f 3"]:
    """The 20 · 4^level triangles of :func:`icosphere`: their corners, counter-clockwise seen from outside.

    Args:
        level: 0 or more.
    """
    return _subdivided(level)[1]


def _subdivided(level: int) -> tuple[Float[Tensor, "n 3"], Int[Tensor, "f 3"]]:
    require(level >= 0, "level", "0 or more", level)
    positions, faces = _icosahedron()
    for _ in range(level):
        n = len(positions)
        sides = torch.stack([faces, faces.roll(-1, dims=1)], dim=2).sort(dim=2).values
        code, number = (sides[..., 0] * n + sides[..., 1]).unique(return_inverse=True)
        positions = torch.cat([positions, unit(positions[code // n] + positions[code % n])])
        ab, bc, ca = (n + number).unbind(1)
        a, b, c = faces.unbind(1)
        parts = [(a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca)]
        faces = torch.cat([torch.stack(part, dim=1) for part in parts])
    return positions, faces


def _icosahedron() -> tuple[Float[Tensor, "12 3"], Int[Tensor, "20 3"]]:
    """Corners (0, ±1, ±golden ratio) and their cyclic permutations, turned so that a face is centred on each pole."""
    golden = (1 + math.sqrt(5)) / 2
    first = torch.tensor([(0, y, z) for y, z in product((-1, 1), (-golden, golden))], dtype=torch.float64)
    positions = unit(torch.cat([first.roll(turn, dims=1) for turn in range(3)]))
    adjacent = (positions @ positions.T - 1 / math.sqrt(5)).abs() < 1e-9
    faces = []
    for a, b, c in combinations(range(12), 3):
        if adjacent[a, b] and adjacent[b, c] and adjacent[c, a]:
            faces.append((a, b, c) if torch.linalg.det(positions[[a, b, c]]) > 0 else (a, c, b))
    corner = positions[faces[0][0]]
    up = unit(positions[list(faces[0])].sum(0))
    ahead = unit(corner - (corner @ up) * up)
    axes = torch.stack([ahead, torch.linalg.cross(up, ahead), up])
    return positions @ axes.T, torch.tensor(faces)


def _checked(positions: Points, periodic: Sequence[float] | None, sphere: bool) -> Float[Tensor, "n d"]:
    """The positions in float64, on the sphere exactly of length 1."""
    positions = torch.as_tensor(positions, dtype=torch.float64)
    require(positions.ndim == 2, "positions", "points of as many coordinates each, (n, d)", tuple(positions.shape))
    require(len(positions) >= 2, "positions", "at least 2 points", len(positions))
    if periodic is not None:
        fits = len(periodic) == positions.shape[1] and min(periodic) > 0
        require(fits, "periodic", f"{positions.shape[1]} lengths above 0, one for each axis", list(periodic))
    if not sphere:
        return positions
    require(periodic is None, "periodic", "None on the sphere", periodic)
    require(positions.shape[1] == 3, "positions", "three coordinates on the sphere", positions.shape[1])
    off = (positions.norm(dim=1) - 1).abs().max().item()
    require(off < 1e-5, "positions", "unit vectors on the sphere", f"a length that differs from 1 by {off:.2g}")
    return unit(positions)


def _pairs(
    positions: Float[Tensor, "n d"], periodic: Sequence[float] | None, reach: Callable[[Tensor], Tensor]
) -> Int[Tensor, "2 e"]:
    """(source, target) wherever they are at most ``reach(distances of the target)`` apart; on the sphere by chords."""
    pairs = []
    for rows in torch.arange(len(positions)).split(ROWS):
        apart = _displacement(positions[rows, None], positions, periodic).norm(dim=2)
        apart[torch.arange(len(rows)), rows] = math.inf
        require(apart.min().item() > 0, "positions", "different points", "two at the same place")
        target, source = (apart <= reach(apart)).nonzero(as_tuple=True)
        pairs.append(torch.stack([source, rows[target]]))
    return torch.cat(pairs, dim=1)


def _displacement(start: Tensor, end: Tensor, periodic: Sequence[float] | None) -> Tensor:
    """From ``start`` to the nearest image of ``end``."""
    way = end - start
    if periodic is None:
        return way
    box = torch.tensor(list(periodic), dtype=way.dtype)
    return way - box * (way / box).round()


def _graph(
    pairs: Int[Tensor, "2 m"], positions: Float[Tensor, "n d"], periodic: Sequence[float] | None, sphere: bool
) -> PointGraph:
    """The graph of the edges in ``pairs`` and those back, with equal weights."""
    n = len(positions)
    code = torch.cat([pairs[1] * n + pairs[0], pairs[0] * n + pairs[1]]).unique()
    source, target = code % n, code // n
    reverse = torch.searchsorted(code, source * n + target)
    start, end = positions[target], positions[source]
    if sphere:
        way, length = towards(start, end), angle(start, end)
        longest = length.max().item()
        require(longest < math.pi - TIE, "positions", "neighbours that are not antipodes", f"a distance of {longest:g}")
    else:
        way = _displacement(start, end, periodic)
        length = way.norm(dim=1)
    spacing = length.mean()
    edge_attr = (torch.cat([way, length[:, None]], dim=1) / spacing).float()
    return PointGraph(
        torch.stack([source, target]), reverse, edge_attr, positions, positions.new_ones(n), spacing.item(), sphere
    )
