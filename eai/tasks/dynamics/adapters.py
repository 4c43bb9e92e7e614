"""Models of libraries as nets of this task: they predict the increment in units of the data's one-step differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.meshes import PointGraph
from eai.tasks.dynamics.scaled import Scaled


class NodeModel(Scaled):
    """u + σ_Δ · model(x, edge_index) with any model of torch_geometric.nn; x are the scaled state and static features.

    Samples become one graph of b · n nodes, whose parts are not joined. Models that weigh a node's neighbours the same
    on both sides cannot know in which direction a wave travels, unless the graph does:
    :func:`eai.tasks.dynamics.graphs.one_sided`.

    Args:
        model: (b·n, c + s) node features and the graph's edges (2, b·e) → (b·n, c).
        graph: shared by all samples.
        static_features: s, the number of static features that the data give.
        state_channels: c of the state.

    Raises:
        ValueError: on calling it, if the model cannot take so many features or gives another shape.
    """

    edge_index: Tensor

    def __init__(
        self, model: nn.Module, graph: Graph | PointGraph, static_features: int = 0, state_channels: int = 1
    ) -> None:
        super().__init__()
        self.model, self.graph = model, graph
        self.register_scales(static_features, state_channels)
        # Derived from the configuration, so not part of a checkpoint.
        self.register_buffer("edge_index", graph.edge_index, persistent=False)

    @property
    def reach(self) -> tuple[float, ...] | None:
        """From how far a signal can arrive along each axis; None if the model does not count its layers."""
        layers = getattr(self.model, "num_layers", None)
        return tuple(layers * cells for cells in self.graph.reach) if isinstance(layers, int) else None

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        count, nodes = u.shape[:2]
        first = nodes * torch.arange(count, device=u.device)
        edges = (self.edge_index[:, None] + first[:, None]).flatten(1)
        x = self.inputs(u, static).flatten(0, 1)
        increment = _called(self.model, "node", u.flatten(0, 1), x, edges)
        return u + self.delta_std * increment.view_as(u)


class GridModel(Scaled):
    """u + σ_Δ · model(image) with any image model; its channels are the scaled state and static features.

    Where the model does not depend on the place (convolutions with ``padding_mode: circular``, spectral ones without
    embedded positions), it commutes with translations of the periodic grid, as the equations do.

    Args:
        model: (b, c + s, L) → (b, c, L) on a ring, (b, c + s, H, W) → (b, c, H, W) in two dimensions.
        shape: of the grid, (L,) or (H, W).
        static_features: s, the number of static features that the data give.
        state_channels: c of the state.

    Raises:
        ValueError: on calling it, if the model cannot take such images or gives another shape.
    """

    def __init__(
        self, model: nn.Module, shape: Sequence[int], static_features: int = 0, state_channels: int = 1
    ) -> None:
        super().__init__()
        require(len(shape) in (1, 2) and min(shape) >= 1, "shape", "one or two numbers of grid points", list(shape))
        self.model, self.shape = model, tuple(shape)
        self.register_scales(static_features, state_channels)

    def forward(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        nodes = math.prod(self.shape)
        require(u.shape[1] == nodes, "shape", f"a grid of {u.shape[1]} points", self.shape)
        image = self.inputs(u, static).transpose(1, 2).unflatten(2, self.shape)
        expected = u.transpose(1, 2).unflatten(2, self.shape)
        increment = _called(self.model, "image", expected, image)
        return u + self.delta_std * increment.flatten(2).transpose(1, 2)


def _called(model: nn.Module, kind: str, expected: Tensor, x: Tensor, *more: Tensor) -> Tensor:
    """What the model gives for x, of the shape of ``expected``."""
    try:
        given = model(x, *more)
    except RuntimeError as error:
        raise ValueError(f"model: cannot take {kind}s of shape {tuple(x.shape)} ({error})") from error
    require(given.shape == expected.shape, "model", f"{kind}s of shape {tuple(expected.shape)}", tuple(given.shape))
    return given
