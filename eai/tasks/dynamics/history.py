"""Forecasts from several states: the newest one and some before it, as further channels of the state."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.graphs import Graph
from eai.tasks.dynamics.meshes import PointGraph


def with_history(u: Float[Tensor, "b t n c"], history: int) -> Float[Tensor, "b l n d"]:
    """Every state with those before it: channels of u_t, of u_{t−1}, … of u_{t−history}.

    Args:
        u: trajectories of more states than ``history``.
        history: states before each, 0 or more.

    Returns:
        The t − history states that have so many before them, d = c · (history + 1).
    """
    return u.unfold(1, history + 1, 1).flip(-1).transpose(-1, -2).flatten(3)


def newest(u: Float[Tensor, "*b n d"], history: int) -> Float[Tensor, "*b n c"]:
    """The channels of u_t in a state :func:`with_history`."""
    return u[..., : u.shape[-1] // (history + 1)]


def recent_mean(u: Float[Tensor, "*b n d"], history: int) -> Float[Tensor, "*b n c"]:
    """The mean of u_t and the states before it, in a state :func:`with_history`."""
    return u.unflatten(-1, (history + 1, -1)).mean(-2)


def of_newest(batch: Batch, history: int) -> Batch:
    """The batch without the states before the newest one of every time."""
    return batch._replace(u=newest(batch.u, history))


def advanced(after: Float[Tensor, "b n c"], u: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
    """The state :func:`with_history` one step later: ``after`` is the newest, the oldest is dropped."""
    return torch.cat([after, u[..., : u.shape[-1] - after.shape[-1]]], dim=-1)


class FromHistory(nn.Module):
    """ū + net(u_t − ū, …, u_{t−h} − ū), of which the newest state is kept; ū is the mean of these h + 1 states.

    The net sees how the states differ from their mean, never the mean: a forecast from states that are warmer by any
    field, which does not change in time, is warmer by that field. So it holds in a climate that training never saw.

    Args:
        net: of states with (h + 1) · c channels.
        history: h, as that of the data, at least 1.
    """

    def __init__(self, net: nn.Module, history: int) -> None:
        super().__init__()
        require(history >= 1, "history", "at least 1", history)
        self.net, self.history = net, history

    @property
    def graph(self) -> Graph | PointGraph | None:
        graph = getattr(self.net, "graph", None)
        return graph if isinstance(graph, Graph | PointGraph) else None

    @property
    def reach(self) -> tuple[float, ...] | None:
        return getattr(self.net, "reach", None)

    @property
    def static_features(self) -> int | None:
        return getattr(self.net, "static_features", None)

    @property
    def state_channels(self) -> int | None:
        return getattr(self.net, "state_channels", None)

    def fit_scales(self, batch: Batch) -> None:
        fit = getattr(self.net, "fit_scales", None)
        if callable(fit):
            fit(batch._replace(u=batch.u - self._mean(batch.u)))

    def forward(self, u: Float[Tensor, "b n d"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n d"]:
        channels = u.shape[-1]
        fits = channels % (self.history + 1) == 0
        require(fits, "history", f"that of the data, whose states have {channels} channels", self.history)
        mean = self._mean(u)
        after = newest(self.net(u - mean, static) + mean, self.history)
        return advanced(after, u)

    def _mean(self, u: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n d"]:
        return torch.cat([recent_mean(u, self.history)] * (self.history + 1), dim=-1)
