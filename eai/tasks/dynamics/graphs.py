"""Graphs on periodic grids of one or two dimensions: which nodes exchange messages in one layer of a net.

The grids are homogeneous, so a graph is a list of *offsets*: node i receives from the nodes
at i + offset, itself included.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require

Offset = tuple[int, ...]


class Graph(NamedTuple):
    """A fixed graph on a periodic grid, the same around every node.

    ``edge_index``: (source, target) of each directed edge, self-loops included. Edges are sorted by target, and those
    of a target by the k offsets in their order, so that edge e has target e // k and offset e mod k.
    ``edge_attr``: for each of the k offsets its signed periodic displacement from the target to the source along every
    axis, and its length, in units of the grid spacing.
    ``shape``: of the grid; node numbers run fastest along the last axis.
    ``reach``: the largest number of cells, along each axis, that an edge spans.
    """

    edge_index: Int[Tensor, "2 e"]
    edge_attr: Float[Tensor, "k f"]
    shape: tuple[int, ...]
    reach: tuple[int, ...]

    @property
    def nodes(self) -> int:
        return math.prod(self.shape)

    @property
    def degree(self) -> int:
        """Edges that end at each node, the self-loop included."""
        return len(self.edge_attr)


def ring(nx: int, hops: int) -> Graph:
    """Every point joined with those at most ``hops`` cells away, itself included.

    Args:
        nx: number of points, at least 3.
        hops: 1 ≤ hops < nx/2.
    """
    _check_nx(nx)
    require(hops >= 1 and 2 * hops < nx, "hops", f"1 ≤ hops < nx/2 = {nx / 2:g}", hops)
    return _graph((nx,), [(offset,) for offset in range(-hops, hops + 1)])


def one_sided(nx: int, behind: int, ahead: int = 0) -> Graph:
    """Every point receives from ``behind`` points to its left, from ``ahead`` points to its right, and from itself.

    A model that takes all neighbours alike then knows left from right: waves that travel to the right come from behind.

    Args:
        nx: number of points, at least 3.
        behind, ahead: each 0 or more and below nx/2, not both 0.
    """
    _check_nx(nx)
    require(behind >= 0 and 2 * behind < nx, "behind", f"0 ≤ behind < nx/2 = {nx / 2:g}", behind)
    require(ahead >= 0 and 2 * ahead < nx, "ahead", f"0 ≤ ahead < nx/2 = {nx / 2:g}", ahead)
    require(behind + ahead >= 1, "behind", "at least 1, or ahead at least 1", behind)
    return _graph((nx,), [(offset,) for offset in range(-behind, ahead + 1)])


def chord_radius(nx: int, radius: float) -> Graph:
    """Every point joined with those less than ``radius`` away on the unit circle, itself included (slide 2.1).

    The chord over h of nx cells is 2 sin(π h/nx). At nx = 25 the second neighbours' is 0.4974, close to the
    slides' radius of 0.5: :func:`ring` with two hops says the same graph robustly.

    Args:
        nx: number of points, at least 3.
        radius: in radii of the circle, above 0.
    """
    _check_nx(nx)
    require(radius > 0, "radius", "above 0", radius)
    offsets = range(-((nx - 1) // 2), nx // 2 + 1)
    return _graph((nx,), [(h,) for h in offsets if 2 * math.sin(math.pi * abs(h) / nx) < radius])


def knn(shape: Sequence[int], k: int) -> Graph:
    """Every point joined with its ``k`` nearest others and itself, on a ring (one number) or a doubly periodic grid.

    Points at the same distance are taken in the order of their offsets, the first axis first: a k that cuts through
    them gives a graph that is not symmetric.

    Args:
        shape: of the grid, one or two numbers of at least 3.
        k: 1 ≤ k, with all neighbours less than half way round.
    """
    shape = _check_shape(shape)
    widest = math.isqrt(k) + 2 if len(shape) == 2 else k
    spans = [range(-min(widest, (n - 1) // 2), min(widest, (n - 1) // 2) + 1) for n in shape]
    nearest = sorted((offset for offset in product(*spans)), key=lambda offset: (math.hypot(*offset), offset))
    require(1 <= k < len(nearest), "k", f"1 ≤ k < {len(nearest)} on a grid of {' × '.join(map(str, shape))}", k)
    return _graph(shape, sorted(nearest[: k + 1]))


def multiscale(nx: int, hops: int, levels: int) -> Graph:
    """:func:`ring` with long edges: offsets of ± 2, 4, 8, … 2^levels cells beside those up to ``hops``.

    Args:
        nx: number of points, at least 3.
        hops: 1 ≤ hops < nx/2.
        levels: number of powers of two, at least 1, the longest less than half way round.
    """
    _check_nx(nx)
    require(hops >= 1 and 2 * hops < nx, "hops", f"1 ≤ hops < nx/2 = {nx / 2:g}", hops)
    most = max(level for level in range(64) if 2 * 2**level < nx)
    require(1 <= levels <= most, "levels", f"1 ≤ levels ≤ {most}, so that 2^levels < nx/2", levels)
    lengths = {*range(hops + 1), *(2**level for level in range(1, levels + 1))}
    return _graph((nx,), sorted({(sign * length,) for length in lengths for sign in (-1, 1)}))


def grid2d(ny: int, nx: int, hops: int) -> Graph:
    """Every point of a doubly periodic grid joined with the square of (2 hops + 1)² points around it.

    Args:
        ny, nx: rows and columns, at least 3.
        hops: 1 ≤ hops < min(ny, nx)/2.
    """
    shape = _check_shape((ny, nx))
    least = min(shape)
    require(hops >= 1 and 2 * hops < least, "hops", f"1 ≤ hops < min(ny, nx)/2 = {least / 2:g}", hops)
    return _graph(shape, list(product(range(-hops, hops + 1), repeat=2)))


def _graph(shape: tuple[int, ...], offsets: Sequence[Offset]) -> Graph:
    """The graph of ``offsets``; no two of them lead to the same node."""
    nodes = math.prod(shape)
    target = torch.arange(nodes)
    source = torch.zeros(nodes, len(offsets), dtype=torch.int64)
    steps = torch.tensor(offsets)
    for axis, size in enumerate(shape):
        stride = math.prod(shape[axis + 1 :])
        source += (target[:, None] // stride % size + steps[:, axis]) % size * stride
    edge_index = torch.stack([source.flatten(), target.repeat_interleave(len(offsets))])
    displacement = steps.to(torch.float32)
    edge_attr = torch.cat([displacement, displacement.square().sum(1, keepdim=True).sqrt()], dim=1)
    return Graph(edge_index, edge_attr, shape, tuple(steps.abs().amax(0).tolist()))


def _check_nx(nx: int) -> None:
    require(nx >= 3, "nx", "at least 3", nx)


def _check_shape(shape: Sequence[int]) -> tuple[int, ...]:
    fits = len(shape) in (1, 2) and min(shape) >= 3
    require(fits, "shape", "one or two numbers of grid points, each at least 3", list(shape))
    return tuple(shape)
