"""Ensemble Kalman filters, for all cycles at once.

An ensemble has N members x_k with mean x̄ and perturbations X = x_k − x̄; Y = H(x_k) − mean. Perturbations are
multiplied by ``inflation`` after each analysis, which makes up for what few members do not know.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.cycling.cycle import Estimate
from eai.tasks.cycling.data import Batch, Cycles, at
from eai.tasks.cycling.forecast import finished
from eai.tasks.cycling.linear import StaticGain
from eai.tasks.cycling.probability import crps
from eai.variational import batch as variational
from eai.variational.covariance import gaspari_cohn

# While an ensemble still learns where the truth is, few members know too little of their error.
EARLY, BEGINNING = 1.1, 60
Members = Float[Tensor, "b k n"]


class Ensemble(ABC):
    """An ensemble filter.

    Args:
        data: the cycles; their H and R.
        model: the forecast of one interval.
        climate: states of the model's climate, of which the first members are drawn.
        members: N, at least 2.
        inflation: factor of the analysis perturbations, at least 1.
        radius: of localisation, in grid points; None: without.
    """

    name: str

    def __init__(
        self,
        data: Cycles,
        model: nn.Module,
        climate: Float[Tensor, "s n"],
        members: int,
        inflation: float = 1.0,
        radius: float | None = None,
    ) -> None:
        require(members >= 2, "members", "at least 2", members)
        require(inflation >= 1, "inflation", "at least 1", inflation)
        self._data, self._model, self._climate = data, model, climate
        self.members, self.inflation, self.radius = members, inflation, radius

    @abstractmethod
    def update(self, ensemble: Members, observed: variational.Batch, generator: torch.Generator) -> Members:
        """The analysis ensemble, before inflation.

        Args:
            ensemble: of the background.
            observed: the observations; ``xb`` is the ensemble's mean.
            generator: of random numbers.
        """

    def run(self, batch: Batch, leads: int) -> Estimate:
        """The cycles, from an ensemble of random states of the climate.

        Args:
            batch: the cycles.
            leads: of the forecasts from the mean of the analyses.
        """
        analyses, backgrounds, spread, ranked = [], [], [], []
        for time, (background, mean, members) in enumerate(self.cycle(batch)):
            backgrounds.append(background)
            analyses.append(mean)
            spread.append(members.var(1).mean(1).sqrt())
            ranked.append(crps(members, batch.truth[:, time]).float())
        analysis, background, known, score = (
            torch.stack(parts, 1) for parts in (analyses, backgrounds, spread, ranked)
        )
        return finished(self._model, batch, analysis, background, leads, known, score)

    def steps(self, batch: Batch) -> int:
        """Analyses of a cycle."""
        return batch.y.shape[1] - self._data.ahead

    def cycle(self, batch: Batch) -> Iterator[tuple[Float[Tensor, "b n"], Float[Tensor, "b n"], Members]]:
        """Of one time after another the mean of the background, that of the analysis, and its members after inflation.

        Args:
            batch: the cycles.
        """
        data, device, count = self._data, batch.y.device, len(batch.start)
        generator = torch.Generator(device).manual_seed(data.seed)
        drawn = torch.randint(len(self._climate), (count, self.members), generator=generator, device=device)
        ensemble = self._climate.to(device)[drawn].float()
        for time in range(self.steps(batch)):
            background = ensemble.mean(1)
            observed = at(batch, time, background)
            analysed = (self.update if time else self._begin)(ensemble, observed, generator)
            # An ensemble that has left all bounds is lost, but must not stop the others.
            analysed = analysed.nan_to_num(0.0, 0.0, 0.0).clamp(-data.system.bound, data.system.bound)
            mean = analysed.mean(1)
            inflation = max(self.inflation, EARLY) if time < BEGINNING else self.inflation
            members = mean[:, None] + inflation * (analysed - mean[:, None])
            yield background, mean, members
            ensemble = self._model(members.flatten(0, 1)).view(ensemble.shape)
            if data.system.stochastic:
                ensemble = ensemble + data.system.noise(count * self.members, generator).float().view(ensemble.shape)

    def _begin(self, ensemble: Members, observed: variational.Batch, generator: torch.Generator) -> Members:
        """The first analysis: the members know nothing yet, and the climate's covariance takes the place of theirs."""
        static = StaticGain(self._data, self._climate.to(ensemble.device).T.cov().float())
        count, k, n = ensemble.shape
        each = variational.Batch(*(field.repeat_interleave(k, 0) for field in observed))
        noise = torch.randn(each.y.shape, generator=generator, device=each.y.device)
        perturbed = each.y + noise * self._data.obs_error.std(each).float()
        return static(each._replace(xb=ensemble.flatten(0, 1), y=perturbed)).view(count, k, n)

    def observe(self, ensemble: Members, observed: variational.Batch) -> Float[Tensor, "b k p"]:
        """H of every member, zero where an observation takes no part.

        Args:
            ensemble: (b, k, n).
            observed: the observations.
        """
        count, members = ensemble.shape[:2]
        each = variational.Batch(*(field.repeat_interleave(members, 0) for field in observed))
        states = ensemble.flatten(0, 1)
        return (self._data.operator(states, each) * each.obs_mask).view(count, members, -1)

    def whitened(
        self, ensemble: Members, observed: variational.Batch
    ) -> tuple[Members, Float[Tensor, "b k p"], Float[Tensor, "b p"]]:
        """X, R^(−½) Y / √(N − 1) and R^(−½) d, for uncorrelated errors.

        Args:
            ensemble: (b, k, n).
            observed: the observations.
        """
        seen = self.observe(ensemble, observed)
        sigma, mean = self._data.obs_error.std(observed).to(seen.dtype), seen.mean(1)
        departure = (observed.y - mean) * observed.obs_mask / sigma
        scaled = (seen - mean[:, None]) / sigma[:, None] / math.sqrt(self.members - 1)
        return ensemble - ensemble.mean(1, keepdim=True), scaled, departure


class PerturbedObservations(Ensemble):
    """The stochastic EnKF (Burgers et al. 1998): each member is analysed with observations perturbed by its own ε."""

    name = "enkf"

    def update(self, ensemble: Members, observed: variational.Batch, generator: torch.Generator) -> Members:
        around, scaled, _ = self.whitened(ensemble, observed)
        seen, sigma = self.observe(ensemble, observed), self._data.obs_error.std(observed).to(ensemble.dtype)
        noise = torch.randn(seen.shape, generator=generator, device=seen.device)
        noise = noise - noise.mean(1, keepdim=True)
        departure = (observed.y[:, None] - seen) * observed.obs_mask[:, None] / sigma[:, None] + (
            noise * observed.obs_mask[:, None]
        )
        # K = X Sᵀ (S Sᵀ + I)⁻¹ R^(−½), S = R^(−½) Y / √(N − 1).
        innovation = scaled.mT @ scaled + torch.eye(seen.shape[2], device=seen.device)
        weights = torch.linalg.solve(innovation, departure.mT)
        across = around.mT @ scaled / math.sqrt(self.members - 1)
        return ensemble + (across @ weights).mT


class EnsembleTransform(Ensemble):
    """The deterministic square-root filter (ETKF, Bishop et al. 2001; Hunt et al. 2007), symmetric, randomly rotated.

    In the space of the members: A = (I + S Sᵀ)⁻¹, x̄_a = x̄ + Xᵀ A S d / √(N − 1), X_a = A^(½) X. A random rotation that
    leaves the mean alone (Sakov and Oke 2008) keeps the members from clustering.
    """

    name = "enkf_sqrt"

    def update(self, ensemble: Members, observed: variational.Batch, generator: torch.Generator) -> Members:
        around, scaled, departure = self.whitened(ensemble, observed)
        values, vectors = _eigen(scaled @ scaled.mT)
        projected = vectors.mT @ (scaled @ departure[:, :, None])
        weights = vectors @ (projected / (1 + values)[:, :, None]) / math.sqrt(self.members - 1)
        root = (vectors * (1 + values).rsqrt()[:, None]) @ vectors.mT
        turned = self._rotation(generator, ensemble) @ root
        mean = ensemble.mean(1, keepdim=True) + weights.mT @ around
        return mean + turned @ around

    def _rotation(self, generator: torch.Generator, like: Tensor) -> Float[Tensor, "k k"]:
        """A random orthogonal matrix that leaves vectors of ones as they are."""
        k = self.members
        random = torch.randn(k - 1, k - 1, generator=generator, device=like.device)
        inner = torch.eye(k, device=like.device)
        inner[1:, 1:] = torch.linalg.qr(random).Q
        basis = torch.eye(k, device=like.device)
        basis[:, 0] = 1
        basis = torch.linalg.qr(basis).Q
        return basis @ inner @ basis.T


class LocalTransform(Ensemble):
    """The local ensemble transform Kalman filter (Hunt et al. 2007): an ETKF of its own at each grid point.

    At a distance of r points an observation counts as much as Gaspari and Cohn's correlation of half-width ``radius``
    says, and not at all beyond twice that.
    """

    name = "letkf"

    def update(self, ensemble: Members, observed: variational.Batch, generator: torch.Generator) -> Members:
        assert self.radius is not None
        around, scaled, departure = self.whitened(ensemble, observed)
        n, place = ensemble.shape[2], observed.obs_index + observed.obs_fraction[..., 0]
        apart = (torch.arange(n, device=place.device)[:, None] - place[:, None]).abs()
        apart = torch.minimum(apart, n - apart)
        near = gaspari_cohn(apart, 2 * self.radius).to(scaled.dtype)  # (b, n, p)
        count, k, p = scaled.shape
        pairs = (scaled[:, :, None] * scaled[:, None]).reshape(count, k * k, p)
        values, vectors = _eigen((near @ pairs.mT).view(count, n, k, k))
        pull = near @ (scaled * departure[:, None]).mT  # (b, n, k)
        projected = vectors.mT @ pull[:, :, :, None]
        weights = vectors @ (projected / (1 + values)[..., None]) / math.sqrt(self.members - 1)
        root = (vectors * (1 + values).rsqrt()[:, :, None]) @ vectors.mT
        # Row k of the transform gives member k: its perturbation is Σ_j (w_j + T_kj) X_j, at each point.
        transform = root + weights.mT
        return ensemble.mean(1, keepdim=True) + torch.einsum("bnkj,bjn->bkn", transform, around)


def _eigen(matrix: Float[Tensor, "*b k k"]) -> tuple[Float[Tensor, "*b k"], Float[Tensor, "*b k k"]]:
    """Eigenvalues, of which none is negative, and eigenvectors of S Sᵀ."""
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp(min=0), vectors
