"""The reference filters against textbook formulas."""

from __future__ import annotations

import math

import pytest
import torch

from eai.systems.ring import Ring
from eai.tasks.cycling.cycle import cycle
from eai.tasks.cycling.data import at
from eai.tasks.cycling.ensemble import Ensemble, EnsembleTransform, LocalTransform, PerturbedObservations
from eai.tasks.cycling.forecast import Exact
from eai.tasks.cycling.kalman import Kalman, kalman
from eai.tasks.cycling.linear import StaticGain
from eai.tasks.cycling.losses import Innovation
from eai.tasks.cycling.references import References
from eai.variational.networks import ObservationNetwork, RegularNetwork, ShareNetwork
from eai.variational.observation_error import ObservationError
from tests.tasks.cycling.cases import N, cycles, lorenz

EYE = torch.eye(N, dtype=torch.float64)
NETWORKS = [RegularNetwork(N, 3), ShareNetwork(N, 0.5), ObservationNetwork(p=7, p_min=2)]


@pytest.mark.parametrize("network", NETWORKS, ids=["fixed", "moving", "varying number"])
def test_kalman_filter_is_the_textbook_recursion(network: ObservationNetwork) -> None:
    data = cycles(network=network, obs_error=ObservationError(0.3, sigma_max=0.6), steps_test=12)
    batch = data.batch("test")
    estimate = kalman(data, batch, leads=0)
    m, q = data.system.step(EYE).T, data.system.noise_covariance()
    for b in range(2):
        climate = torch.fft.irfft(Ring(N).spectrum[:, None] * torch.fft.rfft(EYE, dim=0), n=N, dim=0)
        x, p = batch.start[b].double(), 2 * climate
        for t in range(12):
            used = batch.obs_mask[b, t] > 0
            h = EYE[batch.obs_index[b, t][used]]
            r = torch.diag(batch.obs_sigma[b, t][used].double() ** 2)
            k = p @ h.T @ torch.linalg.inv(h @ p @ h.T + r)
            x = x + k @ (batch.y[b, t][used].double() - h @ x)
            p = (EYE - k @ h) @ p
            torch.testing.assert_close(estimate.analysis[b, t], x.float(), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(estimate.spread[b, t], (p.trace() / N).sqrt().float(), rtol=1e-3, atol=1e-4)
            x, p = m @ x, m @ p @ m.T + q


@pytest.mark.parametrize("kind", [PerturbedObservations, EnsembleTransform, LocalTransform])
def test_update_of_a_large_ensemble_is_that_of_kalman(kind: type[Ensemble], generator: torch.Generator) -> None:
    data = cycles(network=RegularNetwork(N, 2), obs_error=ObservationError(0.4))
    members = {PerturbedObservations: 4000}.get(kind, 300)
    batch = data.batch("test", 1)
    ensemble = data.system.random_states(members, generator).float()[None]
    # A radius beyond the ring: nothing is localised.
    method = kind(data, Exact(data.system), ensemble[0], members, radius=1e6 if kind is LocalTransform else None)
    observed = at(batch, 0, ensemble.mean(1))
    after = method.update(ensemble, observed, generator)[0].double()
    p, h = ensemble[0].double().T.cov(), EYE[batch.obs_index[0, 0]]
    k = p @ h.T @ torch.linalg.inv(h @ p @ h.T + 0.16 * torch.eye(N // 2, dtype=torch.float64))
    mean = ensemble[0].double().mean(0) + k @ (batch.y[0, 0].double() - h @ ensemble[0].double().mean(0))
    covariance = (EYE - k @ h) @ p
    # A square root meets both exactly. Perturbed observations have sampling errors of 1/√N, 0.016 of a variance of 1.
    tolerance = 0.08 if kind is PerturbedObservations else 2e-3
    torch.testing.assert_close(after.mean(0), mean, rtol=0, atol=2e-3)
    torch.testing.assert_close(after.T.cov(), covariance, rtol=0, atol=tolerance)


def test_innovations_are_least_at_the_gain_of_kalman_and_then_what_it_predicts() -> None:
    data = cycles(network=RegularNetwork(N, 2))
    batch = data.batch("test")
    filter_ = Kalman(data, torch.device("cpu"))
    best, covariance = filter_.steady(batch)

    def variance(gain: torch.Tensor) -> float:
        """tr(H P Hᵀ + R)/(p σ²) at the fixed point of the recursion with this gain."""
        p = covariance
        for _ in range(2000):
            p = filter_.after(batch._replace(**{f: getattr(batch, f)[:1] for f in batch._fields}), 0, p, gain)[1]
        seen = p[0].diagonal()[batch.obs_index[0, 0]]
        return 1 + (seen / 0.25).mean().item()

    least = variance(best)
    assert least == pytest.approx(1 + (covariance[0].diagonal()[batch.obs_index[0, 0]] / 0.25).mean().item(), rel=1e-6)
    generator = torch.Generator().manual_seed(1)
    for size in (0.01, 0.05):
        other = best + size * torch.randn(best.shape, dtype=torch.float64, generator=generator)
        assert variance(other) > least
    assert variance(0.8 * best) > least

    # The loss, over a long run of the filter, is that number: 64 cycles × 190 times × 6 observations, 1 % at 3 σ.
    long = cycles(network=RegularNetwork(N, 2), n_test=64, steps_test=200)
    told = long.batch("test")
    gain = best.float()

    def analyse(observed: object, memory: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        departure = observed.y - long.operator(observed.xb, observed)  # type: ignore[attr-defined]
        return observed.xb + (gain @ departure[:, :, None]).squeeze(2), memory  # type: ignore[attr-defined]

    # From the truth with an error of the climate's: spun up within a few analyses.
    made = cycle(analyse, Exact(long.system), told, told.truth[:, 0], told.start[:, :, None][:, :, :0], 200)
    loss = Innovation(long.operator)(made, told)["innovation"].mean().item()
    assert loss == pytest.approx(least, rel=0.02)


def test_steady_gain_is_the_limit_of_the_filter() -> None:
    data = cycles(network=RegularNetwork(N, 2), steps_test=150)
    batch = data.batch("test")
    moving, steady = (kalman(data, batch, 0, steady=way) for way in (False, True))
    torch.testing.assert_close(moving.analysis[:, -1], steady.analysis[:, -1], rtol=0, atol=1e-3)


def test_static_gain_computed_once_equals_that_computed_anew() -> None:
    data = cycles(network=RegularNetwork(N, 2))
    batch = data.batch("test")
    once = StaticGain(data, torch.eye(N))
    again = StaticGain(cycles(network=ShareNetwork(N, 0.5)), torch.eye(N))  # told that observations move
    for time in (0, 3):
        torch.testing.assert_close(once(at(batch, time, batch.start)), again(at(batch, time, batch.start)))


def test_every_reference_beats_the_climate_on_lorenz96_and_ensembles_beat_static_covariances() -> None:
    data = lorenz(n_val=3, n_test=4, steps_val=120, steps_test=160, spin_up=60)
    batch = data.batch("test")
    references = References(data, leads=2)

    def error(name: str) -> float:
        analysis = references.methods()[name](batch).analysis[:, 60:]
        return (analysis - batch.truth[:, 60:160]).square().mean().sqrt().item()

    errors = {name: error(name) for name in references.methods()}
    assert list(errors) == ["free_run", "optimal_interpolation", "var3d", "enkf_40", "enkf_sqrt_24"]
    # σ is 0.5 and the climate's standard deviation 3.6: an analysis that used neither would not be below either.
    assert errors["free_run"] > 3
    assert errors["optimal_interpolation"] < 0.55
    assert errors["var3d"] < errors["optimal_interpolation"]
    assert max(errors["enkf_40"], errors["enkf_sqrt_24"]) < errors["var3d"]
    assert set(references.tuned_to()) == {"enkf_40", "enkf_sqrt_24"}
    assert math.isfinite(sum(errors.values()))
