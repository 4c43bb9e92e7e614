"""Background and observation pairs on a ring or a plane."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import DataModule, Split
from eai.variational.batch import Batch
from eai.variational.covariance import slides_grid
from eai.variational.covariance_base import Covariance
from eai.variational.eigenbasis import Fourier
from eai.variational.grid import Grid, angles, as_grid
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import ObservationOperator
from eai.variational.power_law import power_law_spectrum


class Prior(ABC):
    """The distribution of backgrounds."""

    @abstractmethod
    def draw(self, count: int, n: int | Grid, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """``count`` states, float64.

        Args:
            count: number of samples.
            n: number of points of a ring, or a grid.
            generator: of random numbers.
        """


class Curves(Prior):
    """Sines sin(x − φ) and parabolas 2 (x − φ)²/max − 1 of slide 2.3, φ uniform on [0, 2π), half of each; on a ring."""

    def draw(self, count: int, n: int | Grid, generator: torch.Generator) -> Float[Tensor, "b n"]:
        require(as_grid(n).d == 1, "prior", "RandomFields on a plane", "Curves")
        device = generator.device
        phase = 2 * math.pi * torch.rand(count, 1, dtype=torch.float64, generator=generator, device=device)
        sine = torch.rand(count, 1, generator=generator, device=device) < 0.5
        x = angles(as_grid(n).n).to(device) - phase
        return torch.where(sine, torch.sin(x), parabola(x))


class RandomFields(Prior):
    """Gaussian fields whose variance falls off as (1 + (k/k0)²)^(−slope/2) with the wavenumber k.

    On a bounded axis they are a part of fields of twice its extent.

    Args:
        variance: of each point.
        k0, slope: see :class:`eai.variational.power_law.PowerLawCovariance`.
    """

    def __init__(self, variance: float = 1.0, k0: float = 2.0, slope: float = 6.0) -> None:
        require(variance > 0, "variance", "above 0", variance)
        require(k0 > 0, "k0", "above 0", k0)
        require(slope >= 0, "slope", "0 or more", slope)
        self.variance, self.k0, self.slope = variance, k0, slope

    def draw(self, count: int, n: int | Grid, generator: torch.Generator) -> Float[Tensor, "b n"]:
        # Draw without a Covariance: for large n the matrix is numerically singular, which only its inverse would need.
        device, grid = generator.device, as_grid(n)
        domain = grid.doubled()
        white = torch.randn(count, domain.n, dtype=torch.float64, generator=generator, device=device)
        spectrum, waves = power_law_spectrum(domain, self.variance, self.k0, self.slope), Fourier(domain.shape)
        return grid.part_of_doubled(waves.back(waves(white) * spectrum.to(device).sqrt()))


def parabola(x: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    return 2 * x**2 / (x**2).amax(1, keepdim=True) - 1


class Twin(DataModule[Batch]):
    """A twin experiment, statistically consistent with the 3D-Var cost unless a truth of its own is given.

    x_b is drawn from the prior, x_t = x_b + e with e ~ N(bias, B), y = H(x_t) + ε with ε ~ N(0, R).

    Args:
        covariance: B that the cost assumes, on the grid ``n``.
        operator: H.
        obs_error: R that the cost assumes; its σ are those that batches tell (``obs_sigma``).
        network: positions of the observations.
        prior: distribution of the backgrounds.
        n: number of points of a ring, or a grid; at least 8 points.
        n_train, n_val, n_test: samples per split.
        true_covariance: B that e is drawn from; None: the assumed one.
        true_obs_error: R that ε is drawn from; None: the assumed one.
        bias: mean of the background's error e, the same at every point, in units of the state.
        batch_size, seed, fresh, device: see :class:`eai.core.learn.data.DataModule`.
    """

    def __init__(
        self,
        covariance: Covariance,
        operator: ObservationOperator,
        obs_error: ObservationError,
        network: ObservationNetwork,
        prior: Prior,
        n: int | Grid = 60,
        n_train: int = 4000,
        n_val: int = 500,
        n_test: int = 1000,
        batch_size: int = 100,
        seed: int = 0,
        fresh: bool = False,
        device: Literal["cpu", "cuda"] = "cpu",
        true_covariance: Covariance | None = None,
        true_obs_error: ObservationError | None = None,
        bias: float = 0.0,
    ) -> None:
        super().__init__(batch_size, seed, fresh, device)
        self.grid = as_grid(n)
        require(self.grid.n >= 8, "n", "at least 8", n)
        for name, one in (("covariance", covariance), ("true_covariance", true_covariance or covariance)):
            require(one.grid == self.grid, name, f"size n = {n}", one.grid)
        for name, size in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(size >= 1, name, "at least 1", size)
        network.check(self.grid, operator)
        self.covariance, self.operator, self.obs_error = covariance.to(device), operator.to(device), obs_error
        self.true_covariance = self.covariance if true_covariance is None else true_covariance.to(device)
        self.true_obs_error = obs_error if true_obs_error is None else true_obs_error
        self.bias = bias
        self.misspecified = true_covariance is not None or true_obs_error is not None or bias != 0
        self.network, self.prior, self.n = network, prior, self.grid.n
        self.sizes: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        count, p, grid = self.sizes[split], self.network.slots, self.grid
        xb = self.prior.draw(count, grid, generator)
        xt = xb + self.bias + self.true_covariance.sample(count, generator)
        index, fraction, mask, withheld = self.network.draw_all(count, grid, self.seed, generator)
        sigma = self.network.draw_sigma(self.obs_error, count, generator)
        own = self.true_obs_error is not self.obs_error
        true_sigma = self.true_obs_error.draw_sigma(count, p, generator) if own else sigma
        batch = Batch(xb, torch.zeros_like(mask), index, fraction, sigma, mask, withheld, xt, true_sigma)
        y = self.operator(xt, batch) + self.true_obs_error.draw(in_truth(batch), grid, generator)
        return batch._replace(xb=xb.float(), y=y.float(), xt=xt.float())


def in_truth(batch: Batch, bias: float = 0.0) -> Batch:
    """The batch as one who knows the truth is told it: σ is the true one, the background has no bias."""
    return batch._replace(obs_sigma=batch.obs_sigma_true, xb=batch.xb + bias)


def grid_of(data: DataModule[Batch]) -> Grid:
    """The grid of the states; a ring, of data that have but ``n``.

    Args:
        data: of the run.

    Raises:
        ValueError: they have neither.
    """
    grid = getattr(data, "grid", getattr(data, "n", None))
    if grid is None:
        raise ValueError(f"data: expected data with states on a grid, got {type(data).__name__}")
    return as_grid(grid)


class Slides(DataModule[Batch]):
    """The data of slide 2.3; its three splits are the same samples, as in the slides.

    n points on [0, 2π), rounded to three decimals; 1,000 truths have the phases 2π i/1000, in random order, and are
    sines or parabolas by a fair draw. Parabolas are scaled to [−1, 1] by 2x − 1, as in the authors' notebook; the slide
    prints that scaling for sines as well, which it would carry to [−3, 1]. Background 0.5 · truth; three observations
    at random points of each sixth of the grid, the same for all samples; observation noise of σ_o/2, although the loss
    is told σ_o. The background is not drawn from the prior that the cost assumes: J's statistics (χ², DFS) do not
    apply here.

    Args:
        n: points of the ring, a multiple of 6, at least 18.
        n_samples: of every split.
        sigma_o: σ_o, the standard deviation of observation errors that the loss is told.
        background_factor: factor from truth to background.
        batch_size, seed, passes: see :class:`eai.core.learn.data.DataModule`.
    """

    def __init__(
        self,
        n: int = 60,
        n_samples: int = 1000,
        sigma_o: float = 0.05,
        background_factor: float = 0.5,
        batch_size: int = 1000,
        seed: int = 0,
        passes: int = 1,
    ) -> None:
        super().__init__(batch_size, seed, fresh=False, passes=passes)
        require(n >= 18 and n % 6 == 0, "n", "a multiple of 6, at least 18", n)
        require(n_samples >= 1, "n_samples", "at least 1", n_samples)
        require(sigma_o > 0, "sigma_o", "above 0", sigma_o)
        self.n, self.p, self.sigma_o = n, 18, sigma_o
        self.n_samples, self.background_factor = n_samples, background_factor

    @property
    def evaluation_batch_size(self) -> int:
        """That of training: the slides' loss depends on it."""
        return self.batch_size

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        generator.manual_seed(self.seed)
        count, p = self.n_samples, self.p
        shifted = slides_grid(self.n) - 2 * math.pi / count * torch.arange(count, dtype=torch.float64)[:, None]
        sine = torch.rand(count, 1, generator=generator) < 0.5
        xt = torch.where(sine, torch.sin(shifted), parabola(shifted))
        sixth = self.n // 6
        positions = torch.rand(6, sixth, generator=generator).argsort(1)[:, :3].sort(1).values
        index = (positions + sixth * torch.arange(6)[:, None]).flatten().expand(count, p)
        noise = torch.randn(count, p, dtype=torch.float64, generator=generator)
        y = xt.gather(1, index) + self.sigma_o / 2 * noise
        sigma, ones, zeros = torch.full((count, p), self.sigma_o), torch.ones(count, p), torch.zeros(count, p)
        xb, true_sigma = self.background_factor * xt, sigma / 2
        batch = Batch(xb.float(), y.float(), index, zeros[..., None], sigma, ones, zeros, xt.float(), true_sigma)
        shuffled = torch.randperm(count, generator=generator)
        return Batch(*(field[shuffled] for field in batch))
