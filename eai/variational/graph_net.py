"""A graph network whose edges join observations to grid points, and grid points to each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.grid import Grid
from eai.variational.nets import dtype_of, observation_density, seen_innovations, uniform_increment

UNITS = 60  # of angle in a turn, for the lengths of edges
UNIT_DENSITY = 100.0  # one observation of σ = 0.1 per unit of angle: near zero for the logarithm that the net sees
LEAST_DENSITY = 1e-3  # of that unit: a logarithm exists without observations too


class _Messages(nn.Module):
    """Σ over incoming edges of MLP(sender, receiver, edge), added to the receiver through another MLP."""

    def __init__(self, sender: int, receiver: int, edge: int, width: int) -> None:
        super().__init__()
        self.along = nn.Sequential(nn.Linear(sender + receiver + edge, width), nn.SiLU(), nn.Linear(width, width))
        self.update_node = nn.Sequential(nn.Linear(receiver + width, width), nn.SiLU(), nn.Linear(width, receiver))

    def forward(self, nodes: tuple[Tensor, Tensor], edge_index: Tensor, edge: Tensor) -> Tensor:
        senders, receivers = nodes
        source, target = edge_index
        x_i, x_j = receivers.index_select(-2, target), senders.index_select(-2, source)
        # Share the edge features of a static graph among all samples.
        shared = edge.expand(*x_j.shape[:-1], edge.shape[-1])
        sent = self.along(torch.cat([x_i, x_j, shared], -1))
        received = sent.new_zeros(*receivers.shape[:-1], sent.shape[-1]).index_add(-2, target, sent)
        return receivers + self.update_node(torch.cat([receivers, received], -1))


class ObservationGraphNet(nn.Module):
    """x_a = x_b + u + f: messages from observations to the grid points near them, then along the axes.

    The position of an observation enters as its signed distance from each grid point along each axis (radians, an axis
    being 2π), so that it need not be on the grid. No message passes the edge of a bounded domain. u is the increment
    for evenly spread observations (see ``uniform_increment``).

    Args:
        cost: J.
        width: of node and message features.
        layers: of messages between grid points.
        reach: grid points to either side of an observation, along each axis, that receive its message; of 60 on it.
        hops: distances of the edges between grid points along each axis, in points of 60 on it.
    """

    def __init__(
        self,
        cost: VariationalCost,
        width: int = 32,
        layers: int = 3,
        reach: int = 2,
        hops: Sequence[int] = (1, 2, 4, 8),
    ) -> None:
        super().__init__()
        require(width >= 1, "width", "at least 1", width)
        require(layers >= 1, "layers", "at least 1", layers)
        require(reach >= 1, "reach", "at least 1", reach)
        require(len(hops) >= 1 and min(hops) >= 1, "hops", "distances of at least 1", hops)
        require(max(hops) < UNITS, "hops", f"below {UNITS}", hops)
        self.cost, grid = cost, cost.covariance.grid
        self.span = [max(1, round(reach * size / UNITS)) for size in grid.shape]
        self.encode = nn.Linear(2, width)
        self.from_observations = _Messages(2, width, grid.d, width)
        self.along_ring = nn.ModuleList(_Messages(width, width, grid.d, width) for _ in range(layers))
        self.read = nn.Linear(width, 1)
        nn.init.zeros_(self.read.weight)
        nn.init.zeros_(self.read.bias)
        steps = []
        for axis, size in enumerate(grid.shape):
            cells = sorted({max(1, round(hop * size / UNITS)) for hop in hops})
            steps += [[sign * cell if k == axis else 0 for k in range(grid.d)] for cell in cells for sign in (-1, 1)]
        offsets, points = torch.tensor(steps), torch.arange(grid.n)
        sender, inside = grid.moved(points, offsets)
        receiver = points[:, None].expand_as(sender)
        distance = (offsets * _turn(grid)).float().expand(grid.n, -1, -1)
        self.register_buffer("ring", torch.stack([sender[inside], receiver[inside]]), persistent=False)
        self.register_buffer("ring_distance", distance[inside], persistent=False)

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        b, n = batch.xb.shape
        uniform, dtype = uniform_increment(self.cost, batch), dtype_of(self)
        # Per part of the domain, not per grid point: the same observations mean the same on any grid.
        density = observation_density(*self.cost.near(batch)) * (n / UNITS**self.cost.covariance.grid.d) / UNIT_DENSITY
        density = torch.log(density.clamp(min=LEAST_DENSITY)).expand(b, n)
        nodes = self.encode(torch.stack([uniform, density], 2).to(dtype))
        edges, distance = self._observation_edges(batch)
        seen = torch.stack(seen_innovations(self.cost, batch), -1).to(dtype)
        pair = seen.flatten(0, 1), nodes.flatten(0, 1)
        nodes = self.from_observations(pair, edges, distance.to(dtype)).view(b, n, -1)
        for layer in self.along_ring:
            nodes = layer((nodes, nodes), self.ring, self.ring_distance)
        return batch.xb + uniform + self.read(nodes)[:, :, 0]

    def _observation_edges(self, batch: Batch) -> tuple[Int[Tensor, "2 e"], Float[Tensor, "e d"]]:
        """Edges from each assimilated observation of each sample to the grid points near it, numbered b · n + i."""
        grid, device = self.cost.covariance.grid, batch.xb.device
        near = torch.cartesian_prod(*[torch.arange(-span, span + 2, device=device) for span in self.span])
        offsets = near.view(-1, grid.d)
        sample = torch.arange(len(batch.xb), device=device)[:, None, None]
        point, inside = grid.moved(batch.obs_index, offsets)
        receiver = point + sample * grid.n
        sender = torch.arange(batch.y.numel(), device=device).view(len(batch.xb), -1, 1).expand_as(receiver)
        distance = (offsets - batch.obs_fraction.double()[:, :, None]) * _turn(grid).to(device)
        used = (batch.obs_mask[:, :, None] > 0) & inside
        return torch.stack([sender[used], receiver[used]]), distance[used]


def _turn(grid: Grid) -> Float[Tensor, " d"]:
    """Radians from a grid point to the next along each axis, an axis being 2π."""
    return torch.tensor([2 * math.pi / size for size in grid.shape], dtype=torch.float64)
