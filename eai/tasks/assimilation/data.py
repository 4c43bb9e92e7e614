"""Background and observation pairs on a ring of n points."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.data import DataModule, Split
from eai.core.errors import require
from eai.tasks.assimilation.covariance import Covariance, grid


class Batch(NamedTuple):
    """Symbols as in the literature; b samples, n grid points, p observations.

    ``xt`` is the truth, for scoring only: no loss may look at it.
    """

    xb: Float[Tensor, "b n"]
    y: Float[Tensor, "b p"]
    obs_index: Int[Tensor, "b p"]
    obs_mask: Float[Tensor, "b p"]
    xt: Float[Tensor, "b n"]


def observe(state: Float[Tensor, "b n"], obs_index: Int[Tensor, "b p"]) -> Float[Tensor, "b p"]:
    """The observation operator H: the state's values at the observed grid points."""
    return state.gather(1, obs_index)


def innovation(batch: Batch) -> Float[Tensor, "b p"]:
    """d = y − H x_b (O−B); zero where an observation is padding."""
    return (batch.y - observe(batch.xb, batch.obs_index)) * batch.obs_mask


def on_grid(values: Float[Tensor, "b p"], obs_index: Int[Tensor, "b p"], n: int) -> Float[Tensor, "b n"]:
    """Hᵀ: the sum of the values observed at each grid point."""
    return values.new_zeros(len(values), n).scatter_add(1, obs_index, values)


def draw_positions(count: int, n: int, p: int, generator: torch.Generator) -> Int[Tensor, "b p"]:
    """``p`` distinct grid points for each sample, sorted, all sets equally likely."""
    return torch.rand(count, n, generator=generator).argsort(1)[:, :p].sort(1).values


def curves(count: int, n: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
    """Sines sin(x − φ) and parabolas 2 (x − φ)²/max − 1 of slide 2.3, φ uniform on [0, 2π), half of each."""
    phase = 2 * math.pi * torch.rand(count, 1, dtype=torch.float64, generator=generator)
    sine = torch.rand(count, 1, generator=generator) < 0.5
    return torch.where(sine, torch.sin(grid(n) - phase), _parabola(grid(n) - phase))


def _parabola(x: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    return 2 * x**2 / (x**2).amax(1, keepdim=True) - 1


class Twin(DataModule[Batch]):
    """A twin experiment, statistically consistent with the 3D-Var cost.

    x_b is a curve of slide 2.3, x_t = x_b + e with e ~ N(0, B), y = H x_t + ε with ε ~ N(0, σ_o²).

    Args:
        covariance: B, of size n.
        n: number of grid points on the ring, at least 8.
        p: number of observations, at most n.
        sigma_o: standard deviation of the observation error.
        network: ``fixed``, one random set of positions for all samples, or ``moving``, new positions
            in every sample.
        n_train, n_val, n_test: samples per split.
        batch_size, seed, fresh: see :class:`eai.core.data.DataModule`.
    """

    def __init__(
        self,
        covariance: Covariance,
        n: int = 60,
        p: int = 18,
        sigma_o: float = 0.05,
        network: Literal["fixed", "moving"] = "moving",
        n_train: int = 4000,
        n_val: int = 500,
        n_test: int = 1000,
        batch_size: int = 100,
        seed: int = 0,
        fresh: bool = False,
    ) -> None:
        super().__init__(batch_size, seed, fresh)
        require(n >= 8, "n", "at least 8", n)
        require(covariance.n == n, "covariance", f"size n = {n}", covariance.n)
        require(1 <= p <= n, "p", f"1 ≤ p ≤ n = {n}", p)
        require(sigma_o > 0, "sigma_o", "above 0", sigma_o)
        for name, size in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(size >= 1, name, "at least 1", size)
        self.covariance, self.n, self.p, self.sigma_o, self.network = covariance, n, p, sigma_o, network
        self.sizes: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}
        self._positions = draw_positions(1, n, p, torch.Generator().manual_seed(seed))

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        count = self.sizes[split]
        xb = curves(count, self.n, generator)
        xt = xb + self.covariance.sample(count, generator)
        if self.network == "fixed":
            obs_index = self._positions.expand(count, self.p)
        else:
            obs_index = draw_positions(count, self.n, self.p, generator)
        noise = torch.randn(count, self.p, dtype=torch.float64, generator=generator)
        y = observe(xt, obs_index) + self.sigma_o * noise
        return Batch(xb.float(), y.float(), obs_index, torch.ones(count, self.p), xt.float())


class Slides(DataModule[Batch]):
    """The data of slide 2.3 as printed; its three splits are the same samples, as in the slides.

    n = 60 points on [0, 2π), rounded to three decimals; truth i of 1,000 has phase 2π i/1000 and is a
    sine or a parabola by a fair draw; background 0.5 · truth; three observations at random points of
    each sixth of the grid, the same for all samples; observation noise of σ_o/2, although the loss is
    told σ_o. The background is not drawn from the prior that the cost assumes: J's statistics (χ², DFS)
    do not apply here.
    """

    def __init__(
        self,
        n: int = 60,
        n_samples: int = 1000,
        sigma_o: float = 0.05,
        background_factor: float = 0.5,
        batch_size: int = 1000,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, seed, fresh=False)
        require(n >= 60 and n % 6 == 0, "n", "a multiple of 6, at least 60", n)
        require(n_samples >= 1, "n_samples", "at least 1", n_samples)
        require(sigma_o > 0, "sigma_o", "above 0", sigma_o)
        self.n, self.p, self.sigma_o = n, 18, sigma_o
        self.n_samples, self.background_factor = n_samples, background_factor

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        generator.manual_seed(self.seed)
        x = (grid(self.n) * 1000).round() / 1000
        shifted = x - 2 * math.pi / self.n_samples * torch.arange(self.n_samples, dtype=torch.float64)[:, None]
        sine = torch.rand(self.n_samples, 1, generator=generator) < 0.5
        xt = torch.where(sine, torch.sin(shifted), _parabola(shifted))
        sixth = self.n // 6
        positions = draw_positions(6, sixth, 3, generator) + sixth * torch.arange(6)[:, None]
        obs_index = positions.flatten().expand(self.n_samples, self.p)
        noise = torch.randn(self.n_samples, self.p, dtype=torch.float64, generator=generator)
        y = observe(xt, obs_index) + self.sigma_o / 2 * noise
        mask = torch.ones(self.n_samples, self.p)
        return Batch((self.background_factor * xt).float(), y.float(), obs_index, mask, xt.float())
