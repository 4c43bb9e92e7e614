"""Networks from the state at one time to the next, on one fixed graph shared by all samples.

A net of this task is any module from (u, static) to the next u; what else it may say of itself is optional, see
:mod:`eai.tasks.dynamics.interface`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from eai.core.errors import require
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.layers import Edges, InteractionLayer, MeanConv, NeighbourMean, StencilConv, table_of
from eai.tasks.dynamics.meshes import PointGraph
from eai.tasks.dynamics.scaled import Scaled

AnyGraph = TypeVar("AnyGraph", Graph, PointGraph, Graph | PointGraph)


class GraphNet(nn.Module, Generic[AnyGraph]):
    """(u, static) → the next u, by ``layers`` of messages on ``graph``."""

    def __init__(self, graph: AnyGraph, layers: int) -> None:
        super().__init__()
        require(layers >= 1, "layers", "at least 1", layers)
        self.graph: AnyGraph = graph
        self.layers = layers

    @property
    def reach(self) -> tuple[float, ...]:
        """How far away a signal may begin that arrives in one application of the net, in cells along each axis."""
        return tuple(self.layers * cells for cells in self.graph.reach)


class MessageNet(GraphNet[Graph | PointGraph]):
    """A :class:`GraphNet` whose nodes may have any number of neighbours."""

    edge_index: Tensor
    edge_features: Tensor
    share: Tensor | None

    def __init__(self, graph: Graph | PointGraph, layers: int) -> None:
        super().__init__(graph, layers)
        # Derived from the configuration, so not part of a checkpoint.
        for name, part in table_of(graph)._asdict().items():
            self.register_buffer(name, part, persistent=False)

    @property
    def edges(self) -> Edges:
        """The table of the graph's edges."""
        return Edges(self.edge_index, self.edge_features, self.share)


class GCN(GraphNet[Graph]):
    """The net of slide 2.1: graph convolutions, then two hidden and one linear layer at each node.

    Inputs of node i are u_i and, with ``position``, (i+1)/n. Leaky ReLU follows all layers but the last.
    4,771 parameters as in the slides. A graph convolution averages a node's neighbours with weights
    1/√(d_i d_j), the same from the left as from the right: without ``position`` the net commutes with
    reflections of the ring and cannot know in which direction a wave travels. It does not see ``static``.

    Args:
        graph: shared by all samples; all its nodes have equally many neighbours d, so that the weights are all 1/d.
        width: of all hidden layers; the slides take 2 · nt = 30.
        layers: number of graph convolutions.
        position: whether the nodes know where they are.
        state_channels: c of the state.
    """

    positions: Tensor

    def __init__(
        self,
        graph: Graph | PointGraph,
        width: int = 30,
        layers: int = 4,
        position: bool = True,
        state_channels: int = 1,
    ) -> None:
        if not isinstance(graph, Graph):
            raise ValueError("graph: expected one whose nodes all have equally many neighbours, got one of points")
        super().__init__(graph, layers)
        require(width >= 1, "width", "at least 1", width)
        require(state_channels >= 1, "state_channels", "at least 1", state_channels)
        self.position, self.state_channels = position, state_channels
        self.mean = NeighbourMean(graph)
        positions = (torch.arange(graph.nodes) + 1)[:, None] / graph.nodes
        self.register_buffer("positions", positions, persistent=False)
        sizes = [state_channels + position] + [width] * layers
        self.convolutions = nn.ModuleList(MeanConv(a, b) for a, b in pairwise(sizes))
        self.head = nn.Sequential(
            nn.Linear(width, width),
            nn.LeakyReLU(),
            nn.Linear(width, width),
            nn.LeakyReLU(),
            nn.Linear(width, state_channels),
        )

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        h = u.transpose(0, 1)
        if self.position:
            h = torch.cat([h, self.positions[:, None].expand(-1, len(u), -1)], dim=2)
        for convolution in self.convolutions:
            h = leaky_relu(convolution(self.mean(h)))
        return self.head(h).transpose(0, 1)


class LearnedStencil(MessageNet):
    """u + S u, where S is linear in u: layers of linear messages, weighted by an MLP of the features of the edges.

    h ← Σ_j w(e_ij, s_i, s_j) ⊙ V h_j in every layer, then a linear map of the nodes' ``channels`` to the increment.
    e is the displacement and length of the edge, s the static features of its nodes. Where nothing is static the same
    few weights hold at every node: a finite-difference stencil (as in Bar-Sinai et al. 2019).

    Args:
        graph: shared by all samples.
        layers: of linear messages.
        channels: of the hidden state.
        width: of the MLP's two hidden layers.
        static_features: the number of static features that the data give.
        state_channels: c of the state.
    """

    static_mean: Tensor
    static_std: Tensor

    def __init__(
        self,
        graph: Graph | PointGraph,
        layers: int = 2,
        channels: int = 8,
        width: int = 32,
        static_features: int = 0,
        state_channels: int = 1,
    ) -> None:
        super().__init__(graph, layers)
        require(channels >= 1, "channels", "at least 1", channels)
        require(width >= 1, "width", "at least 1", width)
        require(static_features >= 0, "static_features", "0 or more", static_features)
        require(state_channels >= 1, "state_channels", "at least 1", state_channels)
        self.static_features, self.state_channels = static_features, state_channels
        self.register_buffer("static_mean", torch.zeros(static_features))
        self.register_buffer("static_std", torch.ones(static_features))
        kinds = self.edge_features.shape[1]
        self.along = nn.Linear(kinds, width)
        self.weights = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, layers * channels))
        if static_features:
            self.target, self.source = (nn.Linear(static_features, width, bias=False) for _ in range(2))
        sizes = [state_channels] + [channels] * layers
        self.convolutions = nn.ModuleList(StencilConv(a, b) for a, b in pairwise(sizes))
        self.read = nn.Linear(channels, state_channels, bias=False)

    def fit_scales(self, batch: Batch) -> None:
        if self.static_features:
            mean, std = batch.features()
            self.static_mean.copy_(mean)
            self.static_std.copy_(std.clamp(min=1e-6))

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        return u + self.increment(u, static)

    def increment(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        """S u."""
        h = u
        for convolution, weight in zip(self.convolutions, self._edge_weights(static), strict=True):
            h = convolution(h, self.edge_index, weight)
        return self.read(h)

    def _edge_weights(self, static: Float[Tensor, "b n s"]) -> tuple[Tensor, ...]:
        """The weights of each layer, (k, channels), or (b, e, channels) where they differ between nodes."""
        before = self.along(self.edge_features)
        alike = self.share is None and len(self.edge_features) < self.edge_index.shape[1]
        degree = self.edge_index.shape[1] // self.graph.nodes
        if self.static_features:
            s = (static - self.static_mean) / self.static_std
            source = self.source(s).index_select(1, self.edge_index[0])
            target = self.target(s).repeat_interleave(degree, dim=1)
            before = source + target + (before.repeat(self.graph.nodes, 1) if alike else before)
        elif not alike:
            before = before[None]
        weights = self.weights(before)
        if self.share is not None:
            weights = weights * (self.share.flatten()[:, None] > 0)
        return weights.chunk(self.layers, dim=-1)


class InteractionNetwork(MessageNet, Scaled):
    """Encode, process, decode: u + σ_Δ · decoder(messages(encoder(u/σ_u, s))), as slide 2.1 describes graph networks.

    The increment is scaled by σ_Δ, the standard deviation of one-step differences in the training data, and starts at
    zero. With ``linear``, the increment of a :class:`LearnedStencil` is added: transport is linear in u, to a precision
    that no MLP reaches; the messages then learn what is not linear.
    (Battaglia et al. 2016; Sanchez-Gonzalez et al. 2020.)

    Args:
        graph: shared by all samples.
        layers: of messages.
        width: of all hidden layers.
        static_features: s, the number of static features that the data give.
        linear: a stencil beside the messages, on a graph of the same shape; null for none.
        state_channels: c of the state.
    """

    def __init__(
        self,
        graph: Graph | PointGraph,
        layers: int = 3,
        width: int = 32,
        static_features: int = 0,
        linear: LearnedStencil | None = None,
        state_channels: int = 1,
    ) -> None:
        super().__init__(graph, layers)
        require(width >= 1, "width", "at least 1", width)
        same = linear is None or linear.graph.shape == graph.shape
        require(same, "linear", f"a stencil on a grid of {graph.shape}", linear.graph.shape if linear else None)
        self.linear = linear
        self.register_scales(static_features, state_channels)
        first = nn.Linear(state_channels + static_features, width)
        self.encoder = nn.Sequential(first, nn.SiLU(), nn.Linear(width, width))
        self.processor = nn.ModuleList(InteractionLayer(width, self.edge_features.shape[1]) for _ in range(layers))
        last = nn.Linear(width, state_channels)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)

    @property
    def reach(self) -> tuple[float, ...]:
        own = super().reach
        return own if self.linear is None else tuple(map(max, own, self.linear.reach))

    def fit_scales(self, batch: Batch) -> None:
        super().fit_scales(batch)
        if self.linear is not None:
            self.linear.fit_scales(batch)

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        h = self.encoder(self.inputs(u, static))
        for layer in self.processor:
            h = layer(h, self.edges)
        after = u + self.delta_std * self.decoder(h)
        return after if self.linear is None else after + self.linear.increment(u, static)
