"""Layers of message passing on (b, n, f) with one ``edge_index`` for all samples: no block-diagonal batch is needed.

Edges are sorted by target and as many at every node, k: messages are (b, n, k, f), and adding up those that a node
receives is a sum over k, several times as quick as a scatter. Where nodes have fewer neighbours the table is filled up,
see :class:`Edges`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear, silu
from torch_geometric.nn import Linear

from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.meshes import PointGraph


class Edges(NamedTuple):
    """The edges of a graph as a table with k places for each of n nodes, sorted by target.

    ``edge_index``: (source, target); a node with fewer than k neighbours fills its places with itself.
    ``edge_features``: asinh of what is known of the edges: steps of one cell near the node, of factors far from it.
    One row for each place where all nodes have the same, else one for each edge.
    ``share``: of each message in the mean over a node's neighbours, 0 where the place is filled up; None: all places
    are taken.
    """

    edge_index: Int[Tensor, "2 e"]
    edge_features: Float[Tensor, "m f"]
    share: Float[Tensor, "n k"] | None


def table_of(graph: Graph | PointGraph) -> Edges:
    """The table of a graph's edges."""
    features = torch.asinh(graph.edge_attr)
    if isinstance(graph, Graph):
        return Edges(graph.edge_index, features, None)
    source, target = graph.edge_index
    degrees = torch.bincount(target, minlength=graph.nodes)
    k = int(degrees.max())
    if bool((degrees == k).all()):
        return Edges(graph.edge_index, features, None)
    # Edges are sorted by target, so that the first ones of a node stand in a row.
    first = degrees.cumsum(0) - degrees
    place = target * k + torch.arange(len(target)) - first[target]
    sources = torch.arange(graph.nodes).repeat_interleave(k)
    targets = sources.clone()
    sources[place] = source
    known = features.new_zeros(len(sources), features.shape[1])
    known[place] = features
    share = torch.zeros(len(sources))
    share[place] = 1 / degrees[target].float()
    return Edges(torch.stack([sources, targets]), known, share.view(graph.nodes, k))


class Neighbours(nn.Module):
    """The values at each node's k neighbours, (b, n, f) → (b, n, k, f), in the order of the graph's offsets.

    On a ring they are pieces of the field itself: on a CPU several times as quick as gathering them by number, and so
    is the gradient.

    Args:
        graph: a periodic grid's.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.degree, self.ring, self.margin = graph.degree, len(graph.shape) == 1, max(graph.reach)
        self.steps = [int(step) for step in graph.edge_attr[:, 0]] if self.ring else []
        # Derived from the configuration, so not part of a checkpoint.
        self.register_buffer("source", graph.edge_index[0].view(graph.nodes, -1), persistent=False)

    source: Tensor

    def forward(self, h: Float[Tensor, "b n f"]) -> Float[Tensor, "b n k f"]:
        if not self.ring:
            return h.index_select(1, self.source.flatten()).unflatten(1, (-1, self.degree))
        n, m = h.shape[1], self.margin
        wide = torch.cat([h[:, n - m :], h, h[:, :m]], 1)
        return torch.stack([wide[:, m + step : m + step + n] for step in self.steps], 2)

    def one(self, h: Float[Tensor, "b n ..."], place: int) -> Float[Tensor, "b n ..."]:
        """The values at one of the neighbours.

        Args:
            h: at all nodes.
            place: of the neighbour among the k.
        """
        return h.roll(-self.steps[place], 1) if self.ring else h.index_select(1, self.source[:, place])


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


class MeanConv(nn.Module):
    """A graph convolution after :class:`NeighbourMean`: where all degrees are equal, GCNConv is W mean_j h_j + bias.

    Args:
        inputs: features of a node before.
        outputs: features after.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.lin = Linear(inputs, outputs, bias=False, weight_initializer="glorot")
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, mean: Float[Tensor, "n b f"]) -> Float[Tensor, "n b g"]:
        return linear(mean, self.lin.weight, self.bias)


class StencilConv(nn.Module):
    """Linear messages: Σ_j w_ij ⊙ V h_j with weight vectors given for each edge, (b, e, c), or each kind, (k, c).

    Args:
        inputs: features of a node before.
        outputs: c, features after.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Linear(inputs, outputs, bias=False)

    def forward(self, h: Tensor, edge_index: Tensor, weight: Tensor) -> Tensor:
        nodes = h.shape[-2]
        sent = self.mix(h).index_select(-2, edge_index[0]).unflatten(-2, (nodes, -1))
        # The kinds of edges repeat at every node.
        return (sent * (weight.unflatten(-2, (nodes, -1)) if weight.dim() == 3 else weight)).sum(-2)


class InteractionLayer(nn.Module):
    """h_i ← h_i + MLP(h_i, mean_j W σ(A h_i + B h_j + C e_ij)), σ = SiLU.

    The message is an MLP of both nodes and the edge. Its first layer is applied to nodes and kinds of edges before they
    meet, and its last one to their mean: the same function for a fraction of the arithmetic.

    Args:
        width: features of a node.
        edge_inputs: features of an edge.
    """

    def __init__(self, width: int, edge_inputs: int) -> None:
        super().__init__()
        self.target = nn.Linear(width, width)
        self.source = nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(edge_inputs, width, bias=False)
        self.combine = nn.Linear(width, width)
        self.update_node = nn.Sequential(nn.Linear(2 * width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, h: Tensor, edges: Edges) -> Tensor:
        sent = self.source(h).index_select(-2, edges.edge_index[0]).unflatten(-2, (h.shape[-2], -1))
        known = self.edge(edges.edge_features)
        if len(known) > sent.shape[-2]:  # of each edge
            known = known.view(sent.shape[-3:])
        messages = silu(self.target(h).unsqueeze(-2) + sent + known)
        received = messages.mean(-2) if edges.share is None else (messages * edges.share.unsqueeze(-1)).sum(-2)
        return h + self.update_node(torch.cat([h, self.combine(received)], dim=-1))
