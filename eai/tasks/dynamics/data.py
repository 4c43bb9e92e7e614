"""Trajectories of waves that travel round a ring."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.data import DataModule, Split
from eai.core.errors import require


class Batch(NamedTuple):
    """b trajectories of t states on n nodes in c channels; ``u[:, 0]`` is the input of a rollout."""

    u: Float[Tensor, "b t n c"]


class SingleWave(DataModule[Batch]):
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
            ``time``, the first round(0.8 nt) pairs train and validate, those after them test. The state between
            is the last target of the one and the first input of the other; the slides lose a pair there.
        batch_size, seed: see :class:`eai.core.data.DataModule`.
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
    ) -> None:
        super().__init__(batch_size, seed, fresh=False)
        require(length > 0, "length", "above 0", length)
        require(nx >= 3, "nx", "at least 3", nx)
        require(nt >= 3, "nt", "at least 3", nt)
        require(0 < abs(speed) <= math.pi, "speed", "0 < |speed| ≤ π radians per step", speed)
        require(split in ("same", "time"), "split", "same or time", split)
        last = nt - 1 if split == "same" else round(0.8 * nt)
        first = 0 if split == "same" else last
        require(split == "same" or last < nt - 1, "nt", "8 or more, so that split=time leaves a pair to test", nt)
        self.length, self.nx, self.nt, self.speed = length, nx, nt, speed
        self._periods: dict[Split, slice] = {
            "train": slice(0, last + 1),
            "val": slice(0, last + 1),
            "test": slice(first, nt),
        }

    @property
    def x(self) -> Float[Tensor, " n"]:
        """The grid points, in length units."""
        return torch.arange(self.nx, dtype=torch.float64) * (self.length / self.nx)

    @property
    def cells(self) -> float:
        """Cells that the wave moves per step, positive to the right."""
        # Rounded, so that a whole number stays one.
        return round(self.speed * self.nx / (2 * math.pi), 9)

    @property
    def courant(self) -> float:
        """The Courant number |speed| · nx / 2π: cells per step in either direction."""
        return abs(self.cells)

    def trajectory(self) -> Float[Tensor, "t n 1"]:
        """All states of the period, in float64."""
        t = torch.arange(self.nt, dtype=torch.float64)
        return torch.sin(2 * math.pi / self.length * self.x - self.speed * t[:, None])[:, :, None]

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        u = self.trajectory()[self._periods[split]].float()
        return Batch(torch.stack([u[:-1], u[1:]], dim=1) if split == "train" else u[None])

    def step(self, u: Float[Tensor, "b n c"]) -> Float[Tensor, "b n c"]:
        """One time step of the exact solution of u_t + c u_x = 0, for any field: mode k turns by k · speed."""
        modes = torch.fft.rfft(u.double(), dim=1)
        k = torch.arange(modes.shape[1], dtype=torch.float64, device=u.device)
        turned = modes * torch.exp(-1j * k * self.speed)[:, None]
        return torch.fft.irfft(turned, n=u.shape[1], dim=1).to(u.dtype)
