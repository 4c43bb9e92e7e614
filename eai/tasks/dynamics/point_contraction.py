"""The step whose energy cannot grow, on a graph of any points."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from eai.core.errors import require
from eai.tasks.dynamics.contraction import CALM, bounded, exponential
from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.meshes import PointGraph
from eai.tasks.dynamics.scaled import Scaled


class PointContraction(Scaled):
    """a u′ = a exp(a⁻¹ (S − D)) u with ‖u′‖ ≤ ‖u‖ in the norm Σ_i a_i u_i², for all weights; a are the nodes' areas.

    S has weights s_ij = −s_ji on the edges, D = Σ_j d_ij (u_i − u_j) with d_ij = d_ji ≥ 0. Both are an MLP of what is
    known of an edge and its two nodes; with ``layers`` also messages of the state u. With c channels s_ij is a c × c
    matrix, s_ij = −s_jiᵀ, and there is an s_ii too. With a ``vector``, as a wind, an edge knows its length and the
    vector's components along and across it at both ends: the step then commutes with rotations of the sphere and the
    plane, and so does transport. Without, it knows its displacement. Nodes may have any number of neighbours and be
    numbered in any order.
    Sources: see :class:`eai.tasks.dynamics.contraction.ContractionNet`.

    Args:
        graph: of points, with an edge back for each edge.
        width: of the hidden layers.
        layers: of messages of the state; 0: the step is linear in u.
        static_features: the number of static features that the data give.
        vector: which two of them are a tangent vector (east and north, or x and y); null for none.
        scalars: which of the others the net sees; null for all.
        conserve_mass: whether Σ_i a_i u_i stays as it is.
        bound: of Σ_j |s_ij| and Σ_j d_ij at a node with as many neighbours as on average.
        state_channels: c of the state, scalars.
    """

    source: Tensor
    target: Tensor
    reverse: Tensor
    edge_attr: Tensor
    area: Tensor

    def __init__(
        self,
        graph: Graph | PointGraph,
        width: int = 32,
        layers: int = 0,
        static_features: int = 0,
        vector: list[int] | None = None,
        scalars: list[int] | None = None,
        conserve_mass: bool = False,
        bound: float = 4.0,
        state_channels: int = 1,
    ) -> None:
        super().__init__()
        if not isinstance(graph, PointGraph):
            raise ValueError("graph: expected one of points, got that of a periodic grid (for which: ContractionNet)")
        axes, c = graph.axes, state_channels
        require(width >= 1, "width", "at least 1", width)
        require(layers >= 0, "layers", "0 or more", layers)
        places = range(static_features)
        fits = vector is None or (len(vector) == axes == 2 and set(vector) <= set(places))
        require(fits, "vector", f"null, or the places of two of the {static_features} static features", vector)
        self.scalars = [place for place in places if place not in (vector or ())] if scalars is None else list(scalars)
        require(
            set(self.scalars) <= set(places), "scalars", f"places of the {static_features} static features", scalars
        )
        self.graph, self.shape, self.vector, self.conserve_mass = graph, (graph.nodes,), vector, conserve_mass
        require(bound > 0, "bound", "above 0", bound)
        self.register_scales(static_features, state_channels)
        self.most = bound * graph.nodes / (len(graph.reverse) * c)  # of one edge
        # Derived from the configuration, so not part of a checkpoint.
        parts = {"source": graph.edge_index[0], "target": graph.edge_index[1], "reverse": graph.reverse}
        for name, part in {**parts, "edge_attr": graph.edge_attr, "area": graph.area.float()}.items():
            self.register_buffer(name, part, persistent=False)
        known = len(self.scalars) + (c if layers else 0)
        # A vector's two components at both ends stand in place of the displacement.
        features = graph.edge_attr.shape[1] + (4 - axes if vector else 0)
        self.encoder = nn.Linear(known, width) if known else None
        self.messages = nn.ModuleList(_Message(width, features) for _ in range(layers))
        self.here, self.there = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(features, width)
        self.hidden, self.weigh = nn.Linear(width, width), nn.Linear(width, c * c + c)
        self.mix = nn.Linear(width, c * c) if c > 1 else None
        for last in (self.weigh, self.mix):
            if last is not None:
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        exchanged, diffused, turned = self.edge_weights(u, static)
        area, nodes = self.area.to(u.dtype)[:, None], u.shape[1]
        weights = exchanged + torch.diag_embed(diffused)
        total = self._at_nodes(diffused, nodes)

        def generator(v: Tensor) -> Tensor:
            received = self._at_nodes((weights * v[:, self.source, None]).sum(3), nodes) - total * v
            return (received if turned is None else received + (turned @ v[..., None])[..., 0]) / area

        size = self._at_nodes(exchanged.abs().sum(3), nodes) + 2 * total
        size = size if turned is None else size + turned.abs().sum(3)
        after = exponential(generator, (size / area).max(), u)
        if self.conserve_mass:
            after = after - (area * (after - u)).mean(1, keepdim=True)
        energy, energy_after = ((area * v.square()).mean((1, 2)) for v in (u, after))
        return bounded(after, energy_after, energy)

    def edge_weights(
        self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]
    ) -> tuple[Float[Tensor, "b e c c"], Float[Tensor, "b e c"], Float[Tensor, "b n c c"] | None]:
        """s and d of each edge, and s_ii of each node where there are several channels.

        Args:
            u: the state.
            static: features of the nodes.
        """
        known, inputs, c = self._of_edges(static), self.inputs(u, static), u.shape[2]
        # Linear in u where nothing else is asked for.
        parts = [inputs[:, :, :c]] if len(self.messages) else []
        inputs = torch.cat([*parts, inputs[:, :, c:][:, :, self.scalars]], 2)
        h = self.encoder(inputs) if self.encoder else u.new_zeros(*u.shape[:2], self.hidden.in_features)
        for message in self.messages:
            h = message(h, known, self.source, self.target)
        both = self.here(h)[:, self.target] + self.there(h)[:, self.source] + self.edge(known)
        raw = self.weigh(silu(self.hidden(silu(both))))
        exchange, diffusion = raw[:, :, : c * c].unflatten(2, (c, c)), raw[:, :, c * c :]
        diffused = softplus(diffusion + diffusion[:, self.reverse] - CALM)
        turn = None if self.mix is None else self.mix(h).unflatten(2, (c, c))
        return (
            self._bounded(exchange - exchange[:, self.reverse].mT),
            self._bounded(diffused),
            None if turn is None else self._bounded(turn - turn.mT),
        )

    def _bounded(self, weight: Tensor) -> Tensor:
        return self.most * torch.tanh(weight / self.most)

    def _of_edges(self, static: Float[Tensor, "b n s"]) -> Float[Tensor, "b e f"]:
        """What is known of each edge."""
        attr = self.edge_attr.to(static.dtype)
        if not self.vector:
            return attr.expand(len(static), -1, -1)
        # The direction to the source at the target, and to the target at the source, turned by half a circle.
        here, there = (way[:, :2] / way[:, 2:3] for way in (attr, -attr[self.reverse]))
        vector = static[:, :, self.vector]
        known = [column.expand(len(static), -1) for column in attr[:, 2:].T]
        for values, way in ((vector[:, self.target], here), (vector[:, self.source], there)):
            along = (values * way).sum(2)
            across = values[..., 1] * way[:, 0] - values[..., 0] * way[:, 1]
            known += [along, across]
        return torch.stack(known, 2)

    def _at_nodes(self, edges: Float[Tensor, "b e f"], nodes: int) -> Float[Tensor, "b n f"]:
        """The sum over the edges that end at each node."""
        return edges.new_zeros(len(edges), nodes, edges.shape[2]).index_add(1, self.target, edges)


class _Message(nn.Module):
    """h_i ← h_i + W σ(A h_i + mean_j σ(B h_j + C e_ij))."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.here, self.there = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge, self.out = nn.Linear(features, width), nn.Linear(width, width)

    def forward(self, h: Tensor, known: Tensor, source: Tensor, target: Tensor) -> Tensor:
        sent = silu(self.there(h)[:, source] + self.edge(known))
        count = torch.bincount(target, minlength=h.shape[1]).clamp(min=1)[:, None]
        received = torch.zeros_like(h).index_add(1, target, sent) / count
        return h + self.out(silu(self.here(h) + received))
