"""Trajectories from random initial fields: what all such data sets share."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Literal, TypedDict

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import Split
from eai.tasks.dynamics.data import Batch, Solved, unforced
from eai.tasks.dynamics.schemes import Field


class Sizes(TypedDict, total=False):
    """What every data set of random fields is given beside its own arguments; see :class:`RandomFields`."""

    n_train: int
    n_val: int
    n_test: int
    nt: int
    nt_test: int
    batch_size: int
    seed: int
    fresh: bool
    device: Literal["cpu", "cuda"]


class RandomFields(Solved):
    """Trajectories from random initial fields, the three splits from three seeds.

    Args:
        n_train, n_val, n_test: trajectories per split.
        nt: states of a training trajectory, at least 2.
        nt_test: states of a validation or test trajectory, at least 2: the horizon of the scores.
        batch_size, seed, device: see :class:`eai.core.learn.data.DataModule`.
        fresh: new training trajectories in every epoch.
    """

    def __init__(
        self,
        n_train: int = 512,
        n_val: int = 64,
        n_test: int = 128,
        nt: int = 5,
        nt_test: int = 21,
        batch_size: int = 16,
        seed: int = 0,
        fresh: bool = False,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        super().__init__(batch_size, seed, fresh, device)
        for name, size in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(size >= 1, name, "at least 1", size)
        require(nt >= 2, "nt", "at least 2 states", nt)
        require(nt_test >= 2, "nt_test", "at least 2 states", nt_test)
        self.sizes: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}
        self.nt, self.nt_test, self.horizon = nt, nt_test, nt - 1

    @abstractmethod
    def initial(self, count: int, generator: torch.Generator) -> tuple[Float[Tensor, "b n c"], Float[Tensor, "b n s"]]:
        """Draw initial states and static features, in float64."""

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        u0, static = self.initial(self.sizes[split], generator)
        steps = (self.nt if split == "train" else self.nt_test) - 1
        u = torch.cat([u0[:, None], self.solve(u0, static, steps)], dim=1)
        return unforced(u.float(), static.float())


def band_limited(count: int, nx: int, modes: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
    """Σ_k (a_k cos kx + b_k sin kx)/√modes for k = 1 … modes, a and b ~ N(0, 1): zero mean, unit variance; float64."""
    spectrum = torch.zeros(count, nx // 2 + 1, dtype=torch.complex128, device=generator.device)
    parts = torch.randn(2, count, modes, dtype=torch.float64, generator=generator, device=generator.device)
    spectrum[:, 1 : modes + 1] = torch.complex(parts[0], parts[1]) / (2 * math.sqrt(modes))
    return torch.fft.irfft(spectrum, n=nx, dim=1, norm="forward")


def of_peak_one(u: Field) -> Field:
    """Each field divided by its largest absolute value."""
    return u / u.abs().amax(1, keepdim=True)


def check_ring(nx: int, modes: int, length: float) -> None:
    """Refuse a ring that cannot hold the fields.

    Args:
        nx: grid points.
        modes: wavenumbers of the fields.
        length: of the ring.
    """
    require(nx >= 3, "nx", "at least 3", nx)
    require(
        modes >= 1 and 2 * modes < nx, "modes", f"1 ≤ modes < nx/2 = {nx / 2:g}, or the grid cannot hold them", modes
    )
    require(length > 0, "length", "above 0", length)
