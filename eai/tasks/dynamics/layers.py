"""Layers of message passing on (b, n, f) with one ``edge_index`` for all samples: no block-diagonal batch is needed."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from torch_geometric.nn import GCNConv, MessagePassing
from torch_geometric.nn.aggr import Aggregation

from eai.tasks.dynamics.graphs import Graph


class RegularSum(Aggregation):
    """The sum over each node's incoming edges, on a graph with the same number at every node, sorted by target.

    It is a reshape and a sum where a general graph needs a scatter.
    """

    def forward(
        self,
        x: Tensor,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        dim: int = -2,
        max_num_elements: int | None = None,
    ) -> Tensor:
        assert dim_size is not None
        return x.unflatten(dim, (dim_size, -1)).sum(dim)


class NeighbourMean(nn.Module):
    """The mean over each node's neighbours, on a graph with the same number at every node: (n, b, f) → (n, b, f).

    On small graphs a product with the n × n matrix is quicker than gathering neighbours, and so is its gradient;
    nodes come first, so that it is a single one for all samples.
    """

    SMALL = 512  # nodes

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.degree = graph.degree
        source, target = graph.edge_index
        # Derived from the configuration, so not part of a checkpoint.
        self.register_buffer("source", source, persistent=False)
        self.register_buffer("matrix", None, persistent=False)
        if graph.nodes <= self.SMALL:
            matrix = torch.zeros(graph.nodes, graph.nodes)
            matrix[target, source] = 1 / graph.degree
            self.register_buffer("matrix", matrix, persistent=False)

    source: Tensor
    matrix: Tensor | None

    def forward(self, h: Float[Tensor, "n b f"]) -> Float[Tensor, "n b f"]:
        if self.matrix is not None:
            return torch.mm(self.matrix, h.flatten(1)).view_as(h)
        return h.index_select(0, self.source).unflatten(0, (-1, self.degree)).mean(1)


class MeanConv(GCNConv):
    """A graph convolution after :class:`NeighbourMean`: where all degrees are equal, GCNConv is W mean_j h_j + bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, add_self_loops=False, normalize=False)

    def forward(self, mean: Float[Tensor, "n b f"]) -> Float[Tensor, "n b g"]:
        return linear(mean, self.lin.weight, self.bias)


class StencilConv(MessagePassing):
    """Linear messages: Σ_j w_ij ⊙ V h_j with weight vectors given for each edge, (b, e, c), or each kind, (k, c)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(aggr=RegularSum(), node_dim=-2)
        self.mix = nn.Linear(inputs, outputs, bias=False)

    def forward(self, h: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        return self.propagate(edge_index, x=self.mix(h), weight=weight)

    def message(self, x_j: Tensor, weight: Tensor) -> Tensor:
        if weight.dim() == 3:
            return weight * x_j
        # The kinds of edges repeat at every node.
        return (x_j.unflatten(-2, (-1, len(weight))) * weight).flatten(-3, -2)


class InteractionLayer(MessagePassing):
    """h_i ← h_i + MLP(h_i, mean_j W σ(A h_i + B h_j + C e_ij)), σ = SiLU.

    The message is an MLP of both nodes and the edge. Its first layer is applied to nodes and kinds of edges before they
    meet, and its last one to their mean: the same function for a fraction of the arithmetic.
    """

    def __init__(self, width: int, edge_inputs: int) -> None:
        super().__init__(aggr=RegularSum(), node_dim=-2)
        self.target = nn.Linear(width, width)
        self.source = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(edge_inputs, width, bias=False)
        self.combine = nn.Linear(width, width)
        self.update_node = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, edge_index: Tensor, edge_features: Tensor) -> Tensor:
        nodes = h.shape[-2]
        degree = edge_index.shape[1] // nodes
        along = self.edge(edge_features)
        received = self.propagate(edge_index, target=self.target(h), source=self.source(h), along=along) / degree
        return h + self.update_node(torch.cat([h, self.combine(received)], dim=-1))

    def message(self, target_i: Tensor, source_j: Tensor, along: Tensor) -> Tensor:
        # Edges come in the order of (target, kind): the kinds repeat at every node.
        both = (target_i + source_j).unflatten(-2, (-1, len(along)))
        return silu(both + along).flatten(-3, -2)


def edge_inputs(graph: Graph) -> Float[Tensor, "k f"]:
    """asinh of displacements and lengths: steps of one cell near the node, of factors far from it."""
    return torch.asinh(graph.edge_attr)
