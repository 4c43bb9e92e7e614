"""A step whose energy cannot grow, whatever its weights are."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.graphs import Graph, Offset
from eai.tasks.dynamics.layers import Neighbours
from eai.tasks.dynamics.meshes import PointGraph
from eai.tasks.dynamics.nets import GraphNet
from eai.tasks.dynamics.scaled import Scaled, read_single_channel

FASTEST = 1.0  # growth, in one step by a factor of e
CALM = 6.0  # untrained edges diffuse softplus(−6) = 0.0025 of a difference
ORDER, RADIUS = 8, 0.8  # of the Taylor series, and the largest norm it is used at: its amplitudes are right to 1e-6


class LinearGenerator(nn.Module):
    """The multiplier exp(i Σ_o a_o sin(κ·o) − Σ_q |Σ_o q_o (e^{iκ·o} − 1)|²) of each wavenumber κ and channel.

    It is the exponential of a stencil with antisymmetric weights a, which moves waves and keeps their amplitudes, minus
    the square of filters q that do not see the mean, which damps them. Exact on a periodic grid, by Fourier transform.

    Args:
        shape: of the grid.
        offsets: of the stencil, one of each pair ±o.
        filters: number of damping filters.
        growing: further filters whose square is added: what they see may grow.
        channels: of the state, each with weights of its own.
    """

    phase: Tensor

    def __init__(
        self, shape: tuple[int, ...], offsets: list[Offset], filters: int, growing: int = 0, channels: int = 1
    ) -> None:
        super().__init__()
        self.shape = shape
        self.turning = nn.Parameter(torch.zeros(channels, len(offsets)))
        self.damping = nn.Parameter(torch.zeros(channels, filters, 2 * len(offsets)))
        self.growing = nn.Parameter(torch.zeros(channels, growing, 2 * len(offsets))) if growing else None
        read_single_channel(self, {"turning": 2, "damping": 3, "growing": 3})
        for filters_ in (self.damping, self.growing):
            if filters_ is not None:
                nn.init.normal_(filters_, std=1e-2)
        # Derived from the configuration, so not part of a checkpoint.
        self.register_buffer("phase", _phases(shape, offsets), persistent=False)

    def symbol(self, room: Float[Tensor, " b"] | None = None) -> Complex[Tensor, "*b c k"]:
        """The generator's value at each wavenumber of each channel.

        Args:
            room: for growth, between 0 and 1 of each sample; None: no growth.
        """
        # Transforms need single precision at least.
        wide = torch.promote_types(self.turning.dtype, torch.float32)
        phase = self.phase.to(wide)
        both = torch.cat([phase, -phase])
        differences = torch.polar(torch.ones_like(both), both) - 1
        damped = (self.damping.to(differences.dtype) @ differences).abs().square().sum(1)
        turned = self.turning.to(wide) @ phase.sin()
        if room is not None and self.growing is not None:
            grown = (self.growing.to(differences.dtype) @ differences).abs().square().sum(1)
            damped = (damped - room[:, None, None] * grown).clamp(min=-FASTEST)
        return torch.complex(-damped, turned.expand_as(damped))

    def forward(self, u: Float[Tensor, "b n c"], steps: float, room: Tensor | None = None) -> Float[Tensor, "b n c"]:
        """u after ``steps`` steps, or a part of one.

        Args:
            u: the state.
            steps: any number from 0.
            room: see :meth:`symbol`.
        """
        axes = tuple(range(2, 2 + len(self.shape)))
        field = u.to(torch.promote_types(u.dtype, torch.float32)).transpose(1, 2).unflatten(2, self.shape)
        spectrum = torch.fft.rfftn(field, dim=axes)
        factor = torch.exp(steps * self.symbol(room)).unflatten(-1, spectrum.shape[2:])
        moved = torch.fft.irfftn(spectrum * factor, s=self.shape, dim=axes)
        return moved.flatten(2).transpose(1, 2).to(u.dtype)


class ContractionNet(GraphNet[Graph], Scaled):
    """u′ = exp(½L) exp(S(u) − D(u)) exp(½L) u, with ‖u′‖ ≤ ‖u‖ for all weights and all u.

    L is a :class:`LinearGenerator`. S(u) has antisymmetric weights s_ij = −s_ji on the edges of the graph, which
    exchange energy between nodes and keep its sum, as (u u_x + (u²)_x)/3 does; D(u) = Σ_j d_ij (u_i − u_j) with
    d_ij = d_ji ≥ 0 diffuses. With c channels s_ij is a c × c matrix, s_ij = −s_jiᵀ, so that channels exchange energy
    too; ‖u‖² is the sum over nodes and channels, in their own units. Both come from messages between the nodes and are
    bounded, and the exponential is a Taylor series in as many sub-steps as its error of 1e-6 needs. What the series
    leaves over is scaled off, so that a rollout of any length stays within its first energy; without damping and
    diffusion the energy is constant.

    With ``growth`` waves may also gain energy, as in the equation of Kuramoto and Sivashinsky, but the less the nearer
    the energy is to 1.5 times the largest of the training data, and none beyond it: so is every rollout bounded.

    Sources: antisymmetric weights: Haber and Ruthotto 2018; unitary graph convolutions: Kiani et al. 2024; dissipative
    exponential steps: SGNO (arXiv 2602.18801).

    Args:
        graph: a periodic grid's, with an edge back for each edge.
        width: of the messages' hidden layers.
        layers: of messages before the weights of the edges; 0: L alone.
        filters: of L's damping.
        growth: whether waves may gain energy.
        conserve_mean: whether the mean of u stays as it is.
        bound: of Σ_j |s_ij| and Σ_j d_ij, in cells per step that a signal moves.
        static_features: the number of static features that the data give.
        state_channels: c of the state.
    """

    energy_limit: Tensor

    def __init__(
        self,
        graph: Graph | PointGraph,
        width: int = 32,
        layers: int = 2,
        filters: int = 2,
        growth: bool = False,
        conserve_mean: bool = False,
        bound: float = 4.0,
        static_features: int = 0,
        state_channels: int = 1,
    ) -> None:
        if not isinstance(graph, Graph):
            raise ValueError("graph: expected that of a periodic grid, got one of points (for which: PointContraction)")
        require(layers >= 0, "layers", "0 or more", layers)
        super().__init__(graph, max(layers, 1))
        require(width >= 1, "width", "at least 1", width)
        require(filters >= 1, "filters", "at least 1", filters)
        require(bound > 0, "bound", "above 0", bound)
        self.depth, self.growth, self.conserve_mean, self.bound = layers, growth, conserve_mean, bound
        offsets = [tuple(int(v) for v in row[:-1]) for row in graph.edge_attr]
        opposite = [tuple(-v for v in offset) for offset in offsets]
        require(set(opposite) <= set(offsets), "graph", "an edge back for each edge", offsets)
        half = [offset for offset in offsets if offset > tuple(0 for _ in offset)]
        self.register_scales(static_features, state_channels)
        self.linear = LinearGenerator(graph.shape, half, filters, filters if growth else 0, state_channels)
        self.register_buffer("energy_limit", torch.tensor(math.inf if growth else 0.0))
        self.neighbours = Neighbours(graph)
        # The place, among the edges that end at a node, of the offset back.
        self.back = [offsets.index(offset) for offset in opposite]
        if layers:
            k = len(offsets)
            self.encoder = nn.Linear(state_channels + static_features, width)
            self.convolutions = nn.ModuleList(nn.Linear(k * width, width) for _ in range(layers))
            self.sizes = [k * state_channels**2, k * state_channels]  # of s and d
            self.weigh = nn.Linear(width, sum(self.sizes))
            nn.init.zeros_(self.weigh.weight)
            nn.init.zeros_(self.weigh.bias)

    @property
    def reach(self) -> tuple[float, ...]:
        """L reaches everywhere."""
        return tuple(size for size in self.graph.shape)

    def fit_scales(self, batch: Batch) -> None:
        super().fit_scales(batch)
        if self.growth:
            self.energy_limit.copy_(1.5 * batch.u.square().mean((2, 3)).max())

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        energy = u.square().mean((1, 2))
        room = (1 - energy / self.energy_limit).clamp(min=0) if self.growth else None
        after = self.linear(u, 0.5 if self.depth else 1.0, room)
        if self.depth:
            after = self._exchange(after, *self.edge_weights(after, static))
            after = self.linear(after, 0.5, room)
        if self.conserve_mean:
            after = after - after.mean(1, keepdim=True) + u.mean(1, keepdim=True)
        limit = torch.maximum(energy, self.energy_limit) if self.growth else energy
        return bounded(after, after.square().mean((1, 2)), limit)

    def edge_weights(
        self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]
    ) -> tuple[Float[Tensor, "b n k c c"], Float[Tensor, "b n k c"]]:
        """s and d of the edges that end at each node.

        Args:
            u: the state.
            static: features of the nodes.
        """
        h, c = self.encoder(self.inputs(u, static)), self.state_channels
        for convolution in self.convolutions:
            h = h + nn.functional.silu(convolution(self.neighbours(h).flatten(2)))
        exchange, diffusion = (part.unflatten(2, (len(self.back), -1)) for part in self.weigh(h).split(self.sizes, 2))
        exchange = exchange.unflatten(3, (c, c))
        most = self.bound / (len(self.back) * c)
        exchanged = most * torch.tanh((exchange - self._other(exchange).mT) / most)
        diffused = nn.functional.softplus(diffusion + self._other(diffusion) - CALM)
        return exchanged, most * torch.tanh(diffused / most)

    def _other(self, raw: Float[Tensor, "b n k ..."]) -> Float[Tensor, "b n k ..."]:
        """What the node at the other end says of the same edge: its own edge, in the opposite direction."""
        return torch.stack([self.neighbours.one(raw[:, :, place], at) for at, place in enumerate(self.back)], 2)

    def _exchange(
        self, u: Float[Tensor, "b n c"], exchanged: Float[Tensor, "b n k c c"], diffused: Float[Tensor, "b n k c"]
    ) -> Float[Tensor, "b n c"]:
        """exp(S − D) u."""
        weights, total = exchanged + torch.diag_embed(diffused), diffused.sum(2)

        def generator(v: Tensor) -> Tensor:
            return (weights * self.neighbours(v)[..., None, :]).sum((2, 4)) - total * v

        return exponential(generator, (exchanged.abs().sum((2, 4)) + 2 * total).max(), u)


def exponential(generator: Callable[[Tensor], Tensor], norm: Float[Tensor, ""], u: Tensor) -> Tensor:
    """exp(G) u by Taylor's series, in as many sub-steps as leave its amplitudes right to 1e-6.

    Args:
        generator: G, a linear function.
        norm: of G, at least.
        u: what it is applied to.
    """
    longest = 0.0 if norm.is_meta else norm.item()
    substeps = max(1, math.ceil(longest / RADIUS)) if math.isfinite(longest) else 1
    for _ in range(substeps):
        term = u
        for power in range(1, ORDER + 1):
            term = generator(term) / (substeps * power)
            u = u + term
    return u


def bounded(
    after: Float[Tensor, "b n c"], energy: Float[Tensor, " b"], limit: Float[Tensor, " b"]
) -> Float[Tensor, "b n c"]:
    """``after``, scaled down where its energy is above the limit.

    Args:
        after: the states.
        energy: of them.
        limit: of their energy.
    """
    gained = energy / limit.clamp(min=torch.finfo(after.dtype).tiny)
    return after * gained.clamp(min=1).rsqrt()[:, None, None]


def _phases(shape: tuple[int, ...], offsets: list[Offset]) -> Float[Tensor, "o k"]:
    """κ·o of each offset at each wavenumber of a real transform, in radians; float64."""
    last = len(shape) - 1
    waves = [
        2 * math.pi * (torch.fft.rfftfreq if axis == last else torch.fft.fftfreq)(size, dtype=torch.float64)
        for axis, size in enumerate(shape)
    ]
    grid = torch.stack(torch.meshgrid(*waves, indexing="ij")).flatten(1)
    return torch.tensor(offsets, dtype=torch.float64) @ grid
