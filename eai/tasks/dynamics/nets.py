"""Networks from the state at one time to the next, on one fixed graph shared by all samples."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu
from torch_geometric.nn import GCNConv
from torch_geometric.nn.conv.gcn_conv import gcn_norm

from eai.core.errors import require
from eai.tasks.dynamics.graphs import Graph


class GCN(nn.Module):
    """The net of slide 2.1: graph convolutions, then two hidden and one linear layer at each node.

    Inputs of node i are u_i and, with ``position``, (i+1)/n. Leaky ReLU follows all layers but the last.
    4,771 parameters as in the slides. A graph convolution averages a node's neighbours with weights
    1/√(d_i d_j), the same from the left as from the right: without ``position`` the net commutes with
    reflections of the ring and cannot know in which direction a wave travels.

    Args:
        graph: shared by all samples; its normalisation is computed here, once.
        width: of all hidden layers; the slides take 2 · nt = 30.
        layers: number of graph convolutions.
        position: whether the nodes know where they are.
    """

    edge_index: Tensor
    edge_weight: Tensor
    positions: Tensor

    def __init__(self, graph: Graph, width: int = 30, layers: int = 4, position: bool = True) -> None:
        super().__init__()
        require(width >= 1, "width", "at least 1", width)
        require(layers >= 1, "layers", "at least 1", layers)
        self.nx, self.layers, self.graph, self.position = len(graph.positions), layers, graph, position
        # The graph has its self-loops already.
        edge_index, edge_weight = gcn_norm(graph.edge_index, num_nodes=self.nx, add_self_loops=False)
        # Derived from the configuration, so not part of a checkpoint.
        self.register_buffer("edge_index", edge_index, persistent=False)
        self.register_buffer("edge_weight", edge_weight, persistent=False)
        self.register_buffer("positions", (torch.arange(self.nx) + 1)[:, None] / self.nx, persistent=False)
        sizes = [2 if position else 1] + [width] * layers
        self.convolutions = nn.ModuleList(
            GCNConv(a, b, add_self_loops=False, normalize=False) for a, b in pairwise(sizes)
        )
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, 1)
        )

    @property
    def reach(self) -> int:
        """Cells from which a signal can arrive in one application of the net."""
        return self.layers * self.graph.reach

    def forward(self, u: Float[Tensor, "b n 1"]) -> Float[Tensor, "b n 1"]:
        h = torch.cat([u, self.positions.expand(len(u), -1, -1)], dim=2) if self.position else u
        for convolution in self.convolutions:
            h = leaky_relu(convolution(h, self.edge_index, self.edge_weight))
        return self.head(h)
