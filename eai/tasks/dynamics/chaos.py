"""Trajectories of Lorenz-96, the system that the cycling task assimilates into: for forecasts that are learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Tensor

from eai.systems.lorenz import Lorenz96
from eai.tasks.dynamics.random_fields import RandomFields, Sizes


class Lorenz96Trajectories(RandomFields):
    """Trajectories from random states of the climate of :class:`eai.systems.lorenz.Lorenz96`, a step an interval.

    There is no classical scheme beside it: the reference is the integrator that made the data.

    Args:
        nx: points, at least 4.
        forcing, dt, interval: see :class:`eai.systems.lorenz.Lorenz96`.
        sizes: see :class:`RandomFields`.
    """

    def __init__(
        self,
        nx: int = 40,
        forcing: float = 8.0,
        dt: float = 0.05,
        interval: float = 0.05,
        **sizes: Unpack[Sizes],
    ) -> None:
        super().__init__(**sizes)
        self.system = Lorenz96(nx, forcing, dt, interval)
        self.interval, self.shape, self.length, self.modes = interval, (nx,), float(nx), nx // 2 - 1
        self.courant = (max(1.0, 10 * interval),)  # a wave group moves a few points in a unit of time

    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n s"]]:
        first = self.system.random_states(count, generator)[:, :, None]
        return first, first[:, :, :0]

    def solve(self, u0: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"], steps: int) -> Float[Tensor, "b l n c"]:
        return self.system.trajectory(u0[:, :, 0].double(), steps + 1)[:, 1:, :, None]

    def schemes(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        return {}
