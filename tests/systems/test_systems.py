"""The systems are their equations, their integrator has its order, and their climate stays."""

from __future__ import annotations

import pytest
import torch

from eai.systems.lorenz import Lorenz63, Lorenz96
from eai.systems.ring import Ring
from eai.systems.system import System, rk4


def test_runge_kutta_has_order_four() -> None:
    start = torch.ones(1, dtype=torch.float64)
    errors = [
        (rk4(lambda x: -x.square(), start, 1 / steps, steps) - 0.5).abs().item()  # x = 1/(1 + t)
        for steps in (8, 16, 32)
    ]
    # Halving the step divides the error by 16; higher terms change that by a few per cent at these steps.
    assert errors[0] / errors[1] == pytest.approx(16, rel=0.2)
    assert errors[1] / errors[2] == pytest.approx(16, rel=0.1)


def test_lorenz96_is_its_formula_at_every_point(generator: torch.Generator) -> None:
    system = Lorenz96(n=7, forcing=8.0)
    x = torch.randn(2, 7, dtype=torch.float64, generator=generator)
    expected = torch.stack(
        [(x[:, (i + 1) % 7] - x[:, i - 2]) * x[:, i - 1] - x[:, i] + 8.0 for i in range(7)], dim=1
    )  # fmt: skip
    torch.testing.assert_close(system.tendency(x), expected)


def test_lorenz63_is_its_formula() -> None:
    x, y, z = 1.5, -2.0, 20.0
    tendency = Lorenz63().tendency(torch.tensor([[x, y, z]], dtype=torch.float64))
    expected = torch.tensor([[10 * (y - x), 28 * x - y - x * z, x * y - 8 / 3 * z]], dtype=torch.float64)
    torch.testing.assert_close(tendency, expected)


def test_lorenz96_has_its_known_climate(generator: torch.Generator) -> None:
    states = Lorenz96().random_states(2000, generator)
    # Mean 2.34 and standard deviation 3.64; 2,000 states of some 20 independent points each: 1 to 2 %.
    assert states.mean().item() == pytest.approx(2.34, abs=0.1)
    assert states.std().item() == pytest.approx(3.64, abs=0.1)


@pytest.mark.parametrize("n", [11, 12])
def test_ring_shifts_and_forgets(n: int, generator: torch.Generator) -> None:
    whole = Ring(n, courant=2.0, memory=0.9)
    x = torch.randn(3, n, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(whole.step(x), 0.9 * x.roll(2, 1))


def test_ring_keeps_its_climate(generator: torch.Generator) -> None:
    ring = Ring(12, courant=1.3, memory=0.8, variance=2.0)
    states = ring.random_states(4, generator)
    climate = torch.fft.irfft(ring.spectrum[:, None] * torch.fft.rfft(torch.eye(12, dtype=torch.float64), dim=0), 12, 0)
    step = ring.step(torch.eye(12, dtype=torch.float64)).T
    torch.testing.assert_close(step @ climate @ step.T + ring.noise_covariance(), climate, rtol=1e-10, atol=1e-6)
    assert climate[0, 0].item() == pytest.approx(2.0)
    many = ring.random_states(20_000, generator)
    torch.testing.assert_close(many.T.cov(), climate, rtol=0, atol=0.1)  # five standard errors
    assert states.shape == (4, 12)


@pytest.mark.parametrize("system", [Lorenz96(n=8), Lorenz63(), Ring(9)], ids=lambda one: type(one).__name__)
def test_trajectory_is_repeated_steps_and_noise_only_where_there_is_some(
    system: System, generator: torch.Generator
) -> None:
    first = system.random_states(2, generator)
    still, noisy = system.trajectory(first, 3), system.trajectory(first, 3, generator)
    torch.testing.assert_close(still[:, 2], system.step(system.step(first)))
    assert torch.equal(still, noisy) != system.stochastic
    assert bool(system.noise_covariance().any()) == system.stochastic


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Lorenz96(dt=0.3, interval=0.3), "dt: expected a time step at which Runge-Kutta 4 is stable"),
        (lambda: Lorenz63(dt=0.2, interval=0.2), "dt: expected a time step at which Runge-Kutta 4 is stable"),
        (lambda: Lorenz96(dt=0.05, interval=0.08), "interval: expected a multiple of dt"),
        (lambda: Lorenz96(n=3), "n: expected at least 4"),
        (lambda: Ring(memory=1.0), "memory: expected"),
    ],
)
def test_what_cannot_be_integrated_is_refused_by_name(make: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()  # type: ignore[operator]
