"""The common interface of all data of the dynamics task, and the wave of slide 2.1."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import SPLITS, DataModule, Split
from eai.core.learn.export import Variable, named
from eai.tasks.dynamics.anomalies import Anomalies
from eai.tasks.dynamics.schemes import advection_schemes, translate


class Batch(NamedTuple):
    """b trajectories of t states on n nodes in c channels; ``u[:, 0]`` is the input of a rollout.

    ``static`` holds features of the nodes that do not change in time, such as the local speed; s may be 0.
    ``forcing`` holds what is known in advance of every time, the same at all nodes, such as the season; f may be 0.
    ``time`` is that of each state, in steps; nets do not see it.
    """

    u: Float[Tensor, "b t n c"]
    static: Float[Tensor, "b n s"]
    forcing: Float[Tensor, "b t f"]
    time: Float[Tensor, "b t"]

    def features(self) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
        """Mean and standard deviation of every static feature and, after them, of every forcing."""
        of = [each.flatten(0, 1) for each in (self.static, self.forcing) if each.shape[2]]
        if not of:
            return self.u.new_zeros(0), self.u.new_zeros(0)
        return torch.cat([each.mean(0) for each in of]), torch.cat([each.std(0) for each in of])


def unforced(u: Float[Tensor, "b t n c"], static: Float[Tensor, "b n s"]) -> Batch:
    """Make a batch of trajectories that nothing drives from outside; their time counts from 0.

    Args:
        u: trajectories.
        static: features of the nodes.
    """
    time = torch.arange(u.shape[1], dtype=u.dtype, device=u.device).expand(len(u), -1)
    return Batch(u, static, u.new_zeros(*u.shape[:2], 0), time)


def nothing_static(u: Float[Tensor, "b t n c"]) -> Batch:
    """Make a batch of trajectories without static features and without forcing."""
    return unforced(u, u.new_zeros(u.shape[0], u.shape[2], 0))


class Surface(NamedTuple):
    """A triangulation of the unit sphere.

    ``positions``: of the nodes, unit vectors. ``faces``: corners, counter-clockwise seen from outside.
    """

    positions: Float[Tensor, "n 3"]
    faces: Int[Tensor, "f 3"]


class Trajectories(DataModule[Batch]):
    """Trajectories of a field on a grid, on the nodes of a surface or on any points of the Earth.

    Attributes:
        positions: of the nodes on the unit sphere, (n, 3); None: a periodic grid.
        surface: a triangulation of them, where there is one.
        shape: of the grid; (n,) on points.
        courant: cells that a signal moves per step along each axis, at most; empty: not known.
        spacing: of the cells, in the units in which graphs say their reach: 1 on a grid, radians on the sphere.
        modes: wavenumbers of the initial fields, at most; the scores per mode go up to it. 0: not known.
        horizon: steps of a training trajectory.
        history: earlier states that are further channels of every state, see :mod:`eai.tasks.dynamics.history`.
        anomalies: what ``u`` are, where they are of fields in units; None: dimensionless states.
    """

    positions: Float[Tensor, "n 3"] | None = None
    surface: Surface | None = None
    shape: tuple[int, ...]
    courant: tuple[float, ...] = ()
    spacing: float = 1.0
    modes: int = 0
    horizon: int
    anomalies: Anomalies | None = None
    history: int = 0

    def fitting(self) -> Batch:
        """The training data that scales and baselines are fitted on: all of them, unless they are too large."""
        return self.batch("train")

    @property
    def space(self) -> tuple[str, ...]:
        """Names of the axes of ``shape``."""
        return ("node",) if self.positions is not None else ("y", "x")[-len(self.shape) :]

    @abstractmethod
    def coordinates(self) -> Mapping[str, Variable]:
        """Where the nodes are."""


class Solved(Trajectories):
    """Trajectories of an equation with a known reference solution.

    Attributes:
        length: of the domain along the last axis, in length units.
    """

    length: float

    @abstractmethod
    def solve(self, u0: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"], steps: int) -> Float[Tensor, "b l n c"]:
        """The reference solution after 1, 2, … ``steps`` steps, from any state."""

    def reference(self, batch: Batch) -> tuple[Float[Tensor, "b l n c"], Float[Tensor, "b l n c"]]:
        """The reference solution of ``u[:, 1:]``: each from the true state before it, and all from ``u[:, 0]``.

        Args:
            batch: trajectories.
        """
        before = batch.u[:, :-1]
        static = batch.static[:, None].expand(-1, before.shape[1], -1, -1).flatten(0, 1)
        each = self.solve(before.flatten(0, 1), static, 1)[:, 0].unflatten(0, before.shape[:2])
        return each, self.solve(batch.u[:, 0], batch.static, before.shape[1])

    @abstractmethod
    def schemes(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        """Classical schemes for this equation at this resolution: steps from (u, static) to the next u."""

    def coordinates(self) -> Mapping[str, Variable]:
        if self.positions is not None:
            x, y, z = self.positions.double().T
            degrees = {"latitude": z.clamp(-1, 1).asin().rad2deg(), "longitude": torch.atan2(y, x).rad2deg()}
            return {
                name: named(self.space, values, name, f"degrees_{way}", standard_name=name)
                for (name, values), way in zip(degrees.items(), ("north", "east"), strict=True)
            }
        spacing, axes = self.length / self.shape[-1], "YX"[-len(self.shape) :]
        return {
            name: named((name,), spacing * torch.arange(size, dtype=torch.float64), f"position along {name}", axis=axis)
            for name, size, axis in zip(self.space, self.shape, axes, strict=True)
        }

    @property
    def x(self) -> Float[Tensor, " n"]:
        """The grid points along the last axis, in length units."""
        return torch.arange(self.shape[-1], dtype=torch.float64) * (self.length / self.shape[-1])


class SingleWave(Solved):
    """The wave of slide 2.1: u(x, t) = sin(2π x/length − speed · t) at x = i · length/nx and t = 0 … nt−1.

    A training sample is a pair of successive states. Validation and test serve their whole period as one
    trajectory, so that its one-step pairs and a free rollout are scored on the same states. There is no noise
    and no random number: every seed gives the same data, and ``seed`` only orders the training pairs.

    Args:
        length: of the ring, in the slides' length units.
        nx: grid points, at least 3; the end point is the first one again.
        nt: number of states, at least 3.
        speed: phase advance in radians per step, 0 < |speed| ≤ π; positive to the right.
        split: ``same``, all three splits are the nt−1 pairs of the whole period (the slides' first step);
            ``time``, the first round(0.8 nt) pairs train, of the later ones the first half validates and the rest
            tests. Neighbouring periods share a state, the last target of one and the first input of the next; the
            slides lose a pair there.
        batch_size, seed, passes: see :class:`eai.core.learn.data.DataModule`.
    """

    def __init__(
        self,
        length: float = 10.0,
        nx: int = 25,
        nt: int = 15,
        speed: float = 0.6,
        split: Literal["same", "time"] = "same",
        batch_size: int = 14,
        seed: int = 0,
        passes: int = 1,
    ) -> None:
        super().__init__(batch_size, seed, fresh=False, passes=passes)
        require(length > 0, "length", "above 0", length)
        require(nx >= 3, "nx", "at least 3", nx)
        require(nt >= 3, "nt", "at least 3", nt)
        require(0 < abs(speed) <= math.pi, "speed", "0 < |speed| ≤ π radians per step", speed)
        require(split in ("same", "time"), "split", "same or time", split)
        require(split == "same" or nt >= 5, "nt", "5 or more, so that split=time has pairs for each split", nt)
        self.length, self.nx, self.nt, self.speed = length, nx, nt, speed
        self.shape, self.modes, self.horizon = (nx,), 1, 1
        self.courant = (abs(self.cells),)
        whole = slice(0, nt)
        self._periods: dict[Split, slice] = dict.fromkeys(SPLITS, whole)
        if split == "time":
            val = min(round(0.8 * nt), nt - 3)
            test = val + (nt - 1 - val) // 2
            self._periods = {"train": slice(0, val + 1), "val": slice(val, test + 1), "test": slice(test, nt)}

    @property
    def cells(self) -> float:
        """Cells that the wave moves per step, positive to the right."""
        return cells_per_step(self.speed, self.nx)

    def trajectory(self) -> Float[Tensor, "t n 1"]:
        """All states of the period, in float64."""
        t = torch.arange(self.nt, dtype=torch.float64)
        return torch.sin(2 * math.pi / self.length * self.x - self.speed * t[:, None])[:, :, None]

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        u = self.trajectory()[self._periods[split]].float()
        return nothing_static(torch.stack([u[:-1], u[1:]], dim=1) if split == "train" else u[None])

    def solve(self, u0: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"], steps: int) -> Float[Tensor, "b l n c"]:
        return translate(u0, self.shape, (self.cells,), steps)

    def schemes(self) -> Mapping[str, Callable[[Tensor, Tensor], Tensor]]:
        return advection_schemes(self.shape, (self.cells,))


def cells_per_step(speed: float, nx: int) -> float:
    """Cells that mode 1 moves when its phase advances by ``speed`` radians."""
    # Rounded, so that a whole number stays one.
    return round(speed * nx / (2 * math.pi), 12)
