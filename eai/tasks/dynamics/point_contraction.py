"""The step whose energy cannot grow, on a graph of any points."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import silu, softplus

from eai.core.errors import require
from eai.tasks.dynamics.contraction import CALM, bounded, exponential
from eai.tasks.dynamics.meshes import PointGraph
from eai.tasks.dynamics.nets import Scaled


class PointContraction(Scaled):
    """a u′ = a exp(a⁻¹ (S − D)) u with ‖u′‖ ≤ ‖u‖ in the norm Σ_i a_i u_i², for all weights; a are the nodes' areas.

    S has weights s_ij = −s_ji on the edges, D = Σ_j d_ij (u_i − u_j) with d_ij = d_ji ≥ 0. Both are an MLP of what is
    known of an edge and its two nodes; with ``layers`` also messages of the state u. With a ``vector``, as a wind, an
    edge knows its length and the vector's components along and across it at both ends: the step then commutes with
    rotations of the sphere and the plane, and so does transport. Without, it knows its displacement. Nodes may have any
    number of neighbours and be numbered in any order.
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
    """

    source: Tensor
    target: Tensor
    reverse: Tensor
    edge_attr: Tensor
    area: Tensor

    def __init__(
        self,
        graph: PointGraph,
        width: int = 32,
        layers: int = 0,
        static_features: int = 0,
        vector: list[int] | None = None,
        scalars: list[int] | None = None,
        conserve_mass: bool = False,
        bound: float = 4.0,
    ) -> None:
        super().__init__()
        axes = graph.edge_attr.shape[1] - 1
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
        self.most = bound * graph.nodes / len(graph.reverse)  # of one edge
        self.register_scales(static_features)
        # Derived from the configuration, so not part of a checkpoint.
        parts = {"source": graph.edge_index[0], "target": graph.edge_index[1], "reverse": graph.reverse}
        for name, part in {**parts, "edge_attr": graph.edge_attr, "area": graph.area.float()}.items():
            self.register_buffer(name, part, persistent=False)
        known = len(self.scalars) + (1 if layers else 0)
        features = 5 if vector else axes + 1
        self.encoder = nn.Linear(known, width) if known else None
        self.messages = nn.ModuleList(_Message(width, features) for _ in range(layers))
        self.here, self.there = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.edge = nn.Linear(features, width)
        self.hidden, self.weigh = nn.Linear(width, width), nn.Linear(width, 2)
        nn.init.zeros_(self.weigh.weight)
        nn.init.zeros_(self.weigh.bias)

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        exchanged, diffused = self.edge_weights(u, static)
        area, nodes = self.area.to(u.dtype)[:, None], u.shape[1]
        weights = (exchanged + diffused)[..., None]
        total = self._at_nodes(diffused[..., None], nodes)

        def generator(v: Tensor) -> Tensor:
            return (self._at_nodes(weights * v[:, self.source], nodes) - total * v) / area

        size = self._at_nodes(exchanged.abs()[..., None], nodes) + 2 * total
        after = exponential(generator, (size / area).max(), u)
        if self.conserve_mass:
            after = after - (area * (after - u)).mean(1, keepdim=True)
        energy, energy_after = ((area * v.square()).mean((1, 2)) for v in (u, after))
        return bounded(after, energy_after, energy)

    def edge_weights(
        self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]
    ) -> tuple[Float[Tensor, "b e"], Float[Tensor, "b e"]]:
        """s and d of each edge.

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
        back = raw[:, self.reverse]
        exchanged, diffused = raw[..., 0] - back[..., 0], softplus(raw[..., 1] + back[..., 1] - CALM)
        return self.most * torch.tanh(exchanged / self.most), self.most * torch.tanh(diffused / self.most)

    def _of_edges(self, static: Float[Tensor, "b n s"]) -> Float[Tensor, "b e f"]:
        """What is known of each edge."""
        attr = self.edge_attr.to(static.dtype)
        if not self.vector:
            return attr.expand(len(static), -1, -1)
        # The direction to the source at the target, and to the target at the source, turned by half a circle.
        here, there = (way[:, :-1] / way[:, -1:] for way in (attr, -attr[self.reverse]))
        vector = static[:, :, self.vector]
        known = [attr[None, :, -1].expand(len(static), -1)]
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
