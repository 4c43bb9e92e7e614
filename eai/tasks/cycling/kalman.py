"""The Kalman filter, where the model is linear: the least error that an analysis in a cycle can have."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from eai.tasks.cycling.cycle import Estimate
from eai.tasks.cycling.data import Batch, Cycles, at
from eai.tasks.cycling.forecast import Exact, finished
from eai.tasks.cycling.linear import gain
from eai.tasks.cycling.probability import crps_normal

CONVERGED = 1e-12  # relative change of the covariance in one cycle, at its steady state


class Kalman:
    """x_a = x_b + K d, A = (I − K H) P, P' = M A Mᵀ + Q, with K = P Hᵀ (H P Hᵀ + R)⁻¹; float64.

    Args:
        data: its linear system and H.
        device: to compute on.
    """

    def __init__(self, data: Cycles, device: torch.device) -> None:
        self._data = data
        identity = torch.eye(data.n, dtype=torch.float64, device=device)
        self._model = data.system.step(identity).T
        self._noise = data.system.noise_covariance().to(device)

    def gain(self, batch: Batch, time: int, covariance: Float[Tensor, "*b n n"]) -> Float[Tensor, "b n p"]:
        """K at a time.

        Args:
            batch: the observations.
            time: their index.
            covariance: P, of the background.
        """
        observed = at(batch, time, batch.truth[:, 0].double())
        error = self._data.obs_error.matrix(observed, self._data.n)
        return gain(self._data.operator, covariance, observed, error)

    def after(
        self, batch: Batch, time: int, covariance: Float[Tensor, "*b n n"], k: Float[Tensor, "b n p"]
    ) -> tuple[Float[Tensor, "b n n"], Float[Tensor, "b n n"]]:
        """A, and P of the next time, for a gain; in Joseph's form, which holds for every gain.

        Args:
            batch: the observations.
            time: their index.
            covariance: P, of the background.
            k: the gain.
        """
        observed = at(batch, time, batch.truth[:, 0].double())
        h = self._data.operator.matrix(observed.xb, observed) * observed.obs_mask[:, :, None]
        error = self._data.obs_error.matrix(observed, self._data.n)
        rest = torch.eye(h.shape[2], dtype=h.dtype, device=h.device) - k @ h
        analysis = rest @ covariance @ rest.mT + k @ error @ k.mT
        return analysis, self._model @ analysis @ self._model.T + self._noise

    def steady(self, batch: Batch, most: int = 10_000) -> tuple[Float[Tensor, "1 n p"], Float[Tensor, "1 n n"]]:
        """K and P at the fixed point of the recursion, for observations that do not change.

        Args:
            batch: the observations, of which the first cycle's first are taken.
            most: cycles until it must have been reached.
        """
        one = Batch(*(field[:1] for field in batch))
        covariance = self._noise[None] + torch.eye(self._data.n, dtype=torch.float64, device=self._noise.device)
        for _ in range(most):
            k = self.gain(one, 0, covariance)
            following = self.after(one, 0, covariance, k)[1]
            change = (following - covariance).norm() / covariance.norm()
            covariance = following
            if change < CONVERGED:
                break
        return self.gain(one, 0, covariance), covariance


def kalman(data: Cycles, batch: Batch, leads: int, steady: bool = False) -> Estimate:
    """The Kalman filter from the climate's covariance, or with the gain of its steady state.

    Args:
        data: its linear system and H.
        batch: the cycles.
        leads: of the forecasts.
        steady: keep the gain of the steady state from the start.
    """
    # The covariance knows nothing of the states: one for all cycles, where their observations are the same.
    told = Batch(*(field[:1] for field in batch)) if data.uniform else batch
    filter_, model = Kalman(data, batch.y.device), Exact(data.system)
    covariance = _climate_covariance(data).to(batch.y.device)[None]
    k, error = None, None
    if steady:
        k, covariance = filter_.steady(batch)
        error = filter_.after(told, 0, covariance, k)[0]
    background, analyses, backgrounds, spread, ranked = batch.start.double(), [], [], [], []
    for time in range(batch.y.shape[1] - data.ahead):
        weights = filter_.gain(told, time, covariance) if k is None else k
        observed = at(batch, time, background)
        departure = (observed.y - data.operator(background, observed)) * observed.obs_mask
        analysis = background + (weights @ departure[:, :, None]).squeeze(2)
        if k is None:
            error, covariance = filter_.after(told, time, covariance, weights)
        assert error is not None, "of this time, or of the steady state"
        variance = error.diagonal(dim1=1, dim2=2)
        spread.append(variance.mean(1).sqrt().expand(len(batch.y)))
        ranked.append(crps_normal(analysis, variance.sqrt(), batch.truth[:, time]))
        analyses.append(analysis)
        backgrounds.append(background)
        background = model(analysis)
    made, before, known, score = (torch.stack(parts, 1).float() for parts in (analyses, backgrounds, spread, ranked))
    return finished(model, batch, made, before, leads, known, score)


def _climate_covariance(data: Cycles) -> Float[Tensor, "n n"]:
    """C of C = M C Mᵀ + Q, twice over: the cold start is a state of the climate, as the truth is, and independent."""
    identity = torch.eye(data.n, dtype=torch.float64)
    power, total = data.system.step(identity).T, data.system.noise_covariance()
    for _ in range(60):
        total = total + power @ total @ power.T
        power = power @ power
    return 2 * total
