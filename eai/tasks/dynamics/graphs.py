"""Graphs on a ring of equally spaced points, as the nets need them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require


class Graph(NamedTuple):
    """A fixed graph.

    ``edge_index``: (source, target) of each directed edge, self-loops included, sorted by source.
    ``positions``: (sin, cos) of the nodes' angles: points on the unit circle.
    ``reach``: the largest number of cells that an edge spans along the ring.
    """

    edge_index: Int[Tensor, "2 e"]
    positions: Float[Tensor, "n 2"]
    reach: int


def circle(nx: int) -> Float[Tensor, "n 2"]:
    """The points (sin 2π i/nx, cos 2π i/nx), in float64."""
    angle = 2 * math.pi / nx * torch.arange(nx, dtype=torch.float64)
    return torch.stack([torch.sin(angle), torch.cos(angle)], dim=1)


def chords(positions: Float[Tensor, "n 2"]) -> Float[Tensor, "n n"]:
    """Euclidean distances between all pairs of points."""
    return (positions[:, None] - positions[None, :]).square().sum(2).sqrt()


def ring(nx: int, hops: int) -> Graph:
    """Every point joined with those at most ``hops`` cells away, itself included.

    Args:
        nx: number of points, at least 3.
        hops: 1 ≤ hops ≤ nx/2.
    """
    require(nx >= 3, "nx", "at least 3", nx)
    require(1 <= hops <= nx // 2, "hops", f"1 ≤ hops ≤ nx/2 = {nx // 2}", hops)
    return _graph(_hops(nx) <= hops)


def chord_radius(nx: int, radius: float) -> Graph:
    """Every point joined with those less than ``radius`` away on the unit circle, itself included (slide 2.1).

    The chord over h of nx cells is 2 sin(π h/nx). At nx = 25 the second neighbours' is 0.4974, close to the
    slides' radius of 0.5: :func:`ring` with two hops says the same graph robustly.

    Args:
        nx: number of points, at least 3.
        radius: in radii of the circle, above 0.
    """
    require(nx >= 3, "nx", "at least 3", nx)
    require(radius > 0, "radius", "above 0", radius)
    return _graph(chords(circle(nx)) < radius)


def _hops(nx: int) -> Int[Tensor, "n n"]:
    """Cells between all pairs of points, the shorter way along the ring."""
    apart = (torch.arange(nx)[:, None] - torch.arange(nx)[None, :]).abs()
    return torch.minimum(apart, nx - apart)


def _graph(joined: Tensor) -> Graph:
    nx = len(joined)
    return Graph(joined.nonzero().T.contiguous(), circle(nx), int(_hops(nx)[joined].max()))
