"""Networks from the state at one time to the next, on one fixed graph shared by all samples.

A net of this task is any module from (u, static) to the next u; what else it may say of itself is optional, see
:mod:`eai.tasks.dynamics.interface`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from eai.core.errors import require
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.layers import InteractionLayer, MeanConv, NeighbourMean, StencilConv, edge_inputs


class GraphNet(nn.Module):
    """(u, static) → the next u, by ``layers`` of messages on ``graph``."""

    def __init__(self, graph: Graph, layers: int) -> None:
        super().__init__()
        require(layers >= 1, "layers", "at least 1", layers)
        self.graph, self.layers = graph, layers
        # Derived from the configuration, so not part of a checkpoint.
        self.register_buffer("edge_index", graph.edge_index, persistent=False)

    edge_index: Tensor

    @property
    def reach(self) -> tuple[int, ...]:
        """Cells from which a signal can arrive in one application of the net, along each axis."""
        return tuple(self.layers * cells for cells in self.graph.reach)


class Scaled(nn.Module):
    """Inputs and increments in units of the training data: a mix-in for nets that do not know the data's scales."""

    u_mean: Tensor
    u_std: Tensor
    delta_std: Tensor
    static_mean: Tensor
    static_std: Tensor
    static_features: int

    def register_scales(self, static_features: int) -> None:
        """Register the scales as buffers: zero means and unit deviations until :meth:`fit_scales`."""
        require(static_features >= 0, "static_features", "0 or more", static_features)
        self.static_features = static_features
        for name, value in (("u_mean", 0.0), ("u_std", 1.0), ("delta_std", 1.0)):
            self.register_buffer(name, torch.tensor(value))
        self.register_buffer("static_mean", torch.zeros(static_features))
        self.register_buffer("static_std", torch.ones(static_features))

    def fit_scales(self, batch: Batch) -> None:
        """Set the scales from training data; that of increments is the deviation of one-step differences."""
        self.u_mean.copy_(batch.u.mean())
        self.u_std.copy_(batch.u.std().clamp(min=1e-6))
        self.delta_std.copy_((batch.u[:, 1:] - batch.u[:, :-1]).std().clamp(min=1e-6))
        if self.static_features:
            self.static_mean.copy_(batch.static.mean((0, 1)))
            self.static_std.copy_(batch.static.std((0, 1)).clamp(min=1e-6))

    def inputs(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n f"]:
        """The state and, where there are ``static_features``, those, all with zero mean and unit deviation."""
        known = (static - self.static_mean) / self.static_std if self.static_features else static[:, :, :0]
        return torch.cat([(u - self.u_mean) / self.u_std, known], dim=2)


class GCN(GraphNet):
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
    """

    positions: Tensor

    def __init__(self, graph: Graph, width: int = 30, layers: int = 4, position: bool = True) -> None:
        super().__init__(graph, layers)
        require(width >= 1, "width", "at least 1", width)
        self.position = position
        self.mean = NeighbourMean(graph)
        positions = (torch.arange(graph.nodes) + 1)[:, None] / graph.nodes
        self.register_buffer("positions", positions, persistent=False)
        sizes = [2 if position else 1] + [width] * layers
        self.convolutions = nn.ModuleList(MeanConv(a, b) for a, b in pairwise(sizes))
        self.head = nn.Sequential(
            nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU(), nn.Linear(width, 1)
        )

    def forward(self, u: Float[Tensor, "b n 1"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n 1"]:
        h = u.transpose(0, 1)
        if self.position:
            h = torch.cat([h, self.positions[:, None].expand(-1, len(u), -1)], dim=2)
        for convolution in self.convolutions:
            h = leaky_relu(convolution(self.mean(h)))
        return self.head(h).transpose(0, 1)


class LearnedStencil(GraphNet):
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
    """

    edge_features: Tensor
    static_mean: Tensor
    static_std: Tensor

    def __init__(
        self, graph: Graph, layers: int = 2, channels: int = 8, width: int = 32, static_features: int = 0
    ) -> None:
        super().__init__(graph, layers)
        require(channels >= 1, "channels", "at least 1", channels)
        require(width >= 1, "width", "at least 1", width)
        require(static_features >= 0, "static_features", "0 or more", static_features)
        self.static_features = static_features
        self.register_buffer("edge_features", edge_inputs(graph), persistent=False)
        self.register_buffer("static_mean", torch.zeros(static_features))
        self.register_buffer("static_std", torch.ones(static_features))
        kinds = self.edge_features.shape[1]
        self.along = nn.Linear(kinds, width)
        self.weights = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, layers * channels))
        if static_features:
            self.target, self.source = (nn.Linear(static_features, width, bias=False) for _ in range(2))
        sizes = [1] + [channels] * layers
        self.convolutions = nn.ModuleList(StencilConv(a, b) for a, b in pairwise(sizes))
        self.read = nn.Linear(channels, 1, bias=False)

    def fit_scales(self, batch: Batch) -> None:
        if self.static_features:
            self.static_mean.copy_(batch.static.mean((0, 1)))
            self.static_std.copy_(batch.static.std((0, 1)).clamp(min=1e-6))

    def forward(self, u: Float[Tensor, "b n 1"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n 1"]:
        return u + self.increment(u, static)

    def increment(self, u: Float[Tensor, "b n 1"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n 1"]:
        """S u."""
        h = u
        for convolution, weight in zip(self.convolutions, self._edge_weights(static), strict=True):
            h = convolution(h, self.edge_index, weight)
        return self.read(h)

    def _edge_weights(self, static: Float[Tensor, "b n s"]) -> tuple[Tensor, ...]:
        """The weights of each layer: by kind of edge (k, channels), or (b, e, channels) with static features."""
        along = self.along(self.edge_features)
        if not self.static_features:
            return self.weights(along).chunk(self.layers, dim=-1)
        s = (static - self.static_mean) / self.static_std
        source = self.source(s).index_select(1, self.edge_index[0])
        target = self.target(s).repeat_interleave(self.graph.degree, dim=1)
        return self.weights(source + target + along.repeat(self.graph.nodes, 1)).chunk(self.layers, dim=-1)


class InteractionNetwork(GraphNet, Scaled):
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
    """

    edge_features: Tensor

    def __init__(
        self,
        graph: Graph,
        layers: int = 3,
        width: int = 32,
        static_features: int = 0,
        linear: LearnedStencil | None = None,
    ) -> None:
        super().__init__(graph, layers)
        require(width >= 1, "width", "at least 1", width)
        same = linear is None or linear.graph.shape == graph.shape
        require(same, "linear", f"a stencil on a grid of {graph.shape}", linear.graph.shape if linear else None)
        self.linear = linear
        self.register_buffer("edge_features", edge_inputs(graph), persistent=False)
        self.register_scales(static_features)
        self.encoder = nn.Sequential(nn.Linear(1 + static_features, width), nn.SiLU(), nn.Linear(width, width))
        self.processor = nn.ModuleList(InteractionLayer(width, self.edge_features.shape[1]) for _ in range(layers))
        last = nn.Linear(width, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.decoder = nn.Sequential(nn.Linear(width, width), nn.SiLU(), last)

    @property
    def reach(self) -> tuple[int, ...]:
        own = super().reach
        return own if self.linear is None else tuple(map(max, own, self.linear.reach))

    def fit_scales(self, batch: Batch) -> None:
        super().fit_scales(batch)
        if self.linear is not None:
            self.linear.fit_scales(batch)

    def forward(self, u: Float[Tensor, "b n 1"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n 1"]:
        h = self.encoder(self.inputs(u, static))
        for layer in self.processor:
            h = layer(h, self.edge_index, self.edge_features)
        after = u + self.delta_std * self.decoder(h)
        return after if self.linear is None else after + self.linear.increment(u, static)
