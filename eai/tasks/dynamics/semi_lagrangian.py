"""A learned semi-Lagrangian scheme: where the air comes from, and how to interpolate there."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.nets import GraphNet
from eai.tasks.dynamics.schemes import Interpolation, lagrange_weights


class SemiLagrangianNet(GraphNet[Graph]):
    """u'_i = Σ_p L_p(x_i − δ_i) u_p + Σ_q κ_iq u_q, δ_i = c_i + f(c around i), κ_i = g(c around i), Σ_q κ_iq = 0.

    L_p are the weights of Lagrange interpolation, f and g networks of the speeds at the neighbours that the graph has;
    both start at zero, which is the scheme with straight trajectories. κ corrects the weights at the ``points`` around
    x_i − c̄, c̄ the mean speed of the training data: how smooth the fields are is learned, where Lagrange assumes
    polynomials. The scheme is linear in u, keeps constant fields, and is the same at every point of the ring.

    Args:
        graph: a ring, whose hops are the speeds that f and g see on either side.
        points: of the interpolation, an even number, at most that of the ring.
        width: of the two hidden layers of f and of g.
        static_features: 1, the speed in cells per step.
    """

    speed_mean: Tensor
    speed_std: Tensor

    def __init__(self, graph: Graph, points: int = 12, width: int = 64, static_features: int = 1) -> None:
        super().__init__(graph, 1)
        require(len(graph.shape) == 1, "graph", "a ring", f"a grid of {graph.shape}")
        require(points >= 2 and points % 2 == 0, "points", "an even number of at least 2", points)
        require(points <= graph.nodes, "points", f"at most the ring's {graph.nodes}", points)
        require(width >= 1, "width", "at least 1", width)
        require(static_features == 1, "static_features", "1, the speed", static_features)
        self.points, self.static_features, self.hops = points, static_features, graph.reach[0]
        self.register_buffer("speed_mean", torch.zeros(()))
        self.register_buffer("speed_std", torch.ones(()))
        self.displacement, self.correction = (_zero_at_first(2 * self.hops + 1, width, size) for size in (1, points))

    def fit_scales(self, batch: Batch) -> None:
        self.speed_mean.copy_(batch.static.mean())
        self.speed_std.copy_(batch.static.std().clamp(min=1e-6))

    def forward(self, u: Float[Tensor, "b n 1"], static: Float[Tensor, "b n 1"]) -> Float[Tensor, "b n 1"]:
        # Windows of one trajectory follow each other, and have the speed in common.
        speeds, row = static[:, :, 0], torch.arange(len(static), device=static.device)
        if not static.is_meta:  # no values to compare
            speeds, row = speeds.unique_consecutive(dim=0, return_inverse=True)
        interpolation, change = self._weights(speeds)
        field = u[:, :, 0]
        moved = Interpolation(interpolation.points[row], interpolation.weight[row])(field)
        nodes, points = (torch.arange(count, device=u.device) for count in (self.graph.nodes, self.points))
        first = 1 - self.points // 2 - self.speed_mean.round().long()
        near = field[:, (nodes[:, None] + first + points) % self.graph.nodes]
        return (moved + (change[row] * near).sum(2))[:, :, None]

    def _weights(self, speed: Float[Tensor, "m n"]) -> tuple[Interpolation, Float[Tensor, "m n p"]]:
        """L at the departure points, and κ."""
        around = torch.stack([speed.roll(-k, 1) for k in range(-self.hops, self.hops + 1)], dim=2)
        known = (around - self.speed_mean) / self.speed_std
        place = torch.arange(self.graph.nodes, dtype=speed.dtype, device=speed.device)
        departure = place - speed - self.displacement(known)[:, :, 0]
        change = self.correction(known)
        return lagrange_weights(departure, self.points, self.graph.nodes), change - change.mean(2, keepdim=True)


def _zero_at_first(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """An MLP of two hidden layers whose output is zero before it is trained."""
    last = nn.Linear(width, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last)
