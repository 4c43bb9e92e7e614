"""Random fields and their reference solutions."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from eai.core.cli import CONFIG_DIR
from eai.systems.lorenz import Lorenz96
from eai.tasks.dynamics import advection
from eai.tasks.dynamics.advection import Advection2D, Fourier, VariableSpeed
from eai.tasks.dynamics.burgers import Burgers, pseudo_spectral
from eai.tasks.dynamics.chaos import Lorenz96Trajectories
from eai.tasks.dynamics.random_fields import RandomFields, band_limited
from eai.tasks.dynamics.schemes import (
    translate,
)

B, N = 3, 13
SMALL = {"n_train": 5, "n_val": 3, "n_test": 4, "nt": 3, "nt_test": 6, "batch_size": 2}


def test_fields_have_unit_variance_zero_mean_and_no_wavenumber_above_the_modes(generator: torch.Generator) -> None:
    u = band_limited(4000, N, 4, generator)
    assert u.var().item() == pytest.approx(1, abs=0.03)  # 4,000 fields of 8 numbers: 0.8 % is one standard error
    power = torch.fft.rfft(u, dim=1).abs().square().mean(0)
    assert power[0] < 1e-20
    assert (power[5:] < 1e-20).all()
    assert power[1:5].std() / power[1:5].mean() < 0.1


def test_two_dimensional_fields_have_unit_variance(generator: torch.Generator) -> None:
    u, _ = Advection2D(ny=5, nx=7, modes=1).initial(4000, generator)
    assert u.var().item() == pytest.approx(1, abs=0.03)  # 4,000 fields of 8 numbers: 0.8 % is one standard error


def test_trajectories_are_split_by_seed_and_the_test_horizon_is_longer() -> None:
    data = Fourier(nx=N, **SMALL)
    train, val, test = (data.batch(split).u for split in ("train", "val", "test"))
    assert (train.shape, val.shape, test.shape) == ((5, 3, N, 1), (3, 6, N, 1), (4, 6, N, 1))
    assert torch.equal(train, Fourier(nx=N, **SMALL).batch("train").u)
    first = torch.cat([train[:, 0], val[:, 0], test[:, 0]]).flatten(1)
    assert torch.cdist(first, first).fill_diagonal_(9).min() > 0.1


def test_peak_scales_every_initial_field_to_a_largest_value_of_one() -> None:
    u = Fourier(nx=N, peak=True, **SMALL).batch("train").u
    torch.testing.assert_close(u[:, 0].abs().amax((1, 2)), torch.ones(5))


def test_fourier_moves_every_mode_by_its_wavenumber_times_the_speed() -> None:
    data = Fourier(nx=N, speed=0.6, **SMALL)
    u = data.batch("test").u.double()
    before, after = (torch.fft.rfft(u[:, t, :, 0], dim=1)[:, 1:6] for t in (0, 5))
    k = torch.arange(1, 6)
    torch.testing.assert_close(after, before * torch.exp(-1j * k * 0.6 * 5), rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(N,), (12,), (5, 8)])
def test_translation_by_whole_cells_rolls_any_field(shape: tuple[int, ...], generator: torch.Generator) -> None:
    u = torch.randn(B, math.prod(shape), 2, generator=generator, dtype=torch.float64)
    cells = (2.0, -3.0)[-len(shape) :]
    moved = translate(u, shape, cells, 2)[:, 1].unflatten(1, shape)
    expected = u.unflatten(1, shape).roll([int(2 * c) for c in cells], dims=list(range(1, 1 + len(shape))))
    torch.testing.assert_close(moved, expected, rtol=0, atol=1e-12)


def test_two_dimensional_fields_move_like_the_formula_of_a_plane_wave() -> None:
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    wave = lambda t: torch.sin(2 * math.pi * (2 * (y - 0.7 * t) / 7 - (x - 1.3 * t) / 9)).flatten()[None, :, None]  # noqa: E731
    data = Advection2D(ny=7, nx=9, modes=2, **SMALL)
    got = data.solve(wave(0), torch.zeros(1, 63, 0), 3)
    for t in (1, 2, 3):
        torch.testing.assert_close(got[:, t - 1], wave(t), rtol=0, atol=1e-5)
    u = data.batch("train").u[:, 0, :, 0].unflatten(1, (7, 9))
    power = torch.fft.fft2(u).abs().square().mean(0)
    assert power[0, 0] < 1e-8
    assert power[3].max() < 1e-8
    assert power[2, 2] > 0.1


def test_variable_speed_equals_the_solution_along_the_travel_time() -> None:
    # c(x) = 1/(a + b cos x) has the travel time τ(x) = a x + b sin x: u is constant along τ(x) − t.
    nx, a, b, t = 48, 2.0, 0.6, 3
    x = 2 * math.pi / nx * torch.arange(nx, dtype=torch.float64)
    cells = nx / (2 * math.pi) / (a + b * torch.cos(x))
    start = x - 0.5 * t
    for _ in range(60):  # Newton: τ(X) = τ(x) − t
        start = start - (a * start + b * torch.sin(start) - (a * x + b * torch.sin(x) - t)) / (a + b * torch.cos(start))
    u = lambda z: torch.sin(z) + 0.3 * torch.cos(2 * z)  # noqa: E731
    got = VariableSpeed(nx=nx, modes=2, **SMALL).solve(u(x)[None, :, None], cells[None, :, None], t)
    torch.testing.assert_close(got[0, -1, :, 0], u(start), rtol=0, atol=1e-8)


def test_variable_speed_is_known_to_the_net_and_stays_within_its_range() -> None:
    data = VariableSpeed(nx=N, modes=3, speed=0.6, variation=0.4, **SMALL)
    static, mean = data.batch("train").static, 0.6 * N / (2 * math.pi)
    assert static.shape == (5, N, 1)
    assert static.min() >= 0.6 * mean - 1e-5
    assert static.max() <= 1.4 * mean + 1e-5
    assert (static.flatten(1).amax(1) - static.flatten(1).amin(1) > 0.4 * mean).all()
    assert data.courant[0] == pytest.approx(1.4 * mean)


def test_burgers_reference_is_resolved_in_space_and_time(generator: torch.Generator) -> None:
    u0 = band_limited(B, 32, 3, generator)
    u0 = u0 / u0.abs().amax(1, keepdim=True)
    states = pseudo_spectral(u0, 1.0, 0.15, 8)
    # Twice the points and twice the sub-steps.
    assert (pseudo_spectral(u0, 1.0, 0.15, 8, finer=32) - states).abs().max() < 1e-6
    assert states.abs().max() <= 1 + 1e-9


def test_burgers_without_viscosity_keeps_its_energy(generator: torch.Generator) -> None:
    # What aliasing breaks: a Galerkin method keeps Σ u² of the wavenumbers that it resolves.
    u0 = band_limited(B, 25, 5, generator)
    energy = pseudo_spectral(u0, cells=0.05, diffusion=0.0, steps=60, finer=1).square().sum(2)
    torch.testing.assert_close(energy, u0.square().sum(1, keepdim=True).expand_as(energy), rtol=1e-6, atol=0)


def test_burgers_reference_satisfies_cole_and_hopf() -> None:
    # u = −2ν φ_x/φ with φ_t = ν φ_xx: φ = 2 + e^{−νκ²t} cos κx gives u = 2νκ E sin κx/(2 + E cos κx).
    nx, diffusion, steps = 32, 0.5, 5
    kappa, x = 2 * math.pi / nx, torch.arange(nx, dtype=torch.float64)

    def exact(t: float) -> torch.Tensor:
        decay = math.exp(-diffusion * kappa**2 * t)
        return 2 * diffusion * kappa * decay * torch.sin(kappa * x) / (2 + decay * torch.cos(kappa * x))

    got = pseudo_spectral(exact(0)[None], 1.0, diffusion, steps)[0, -1]
    torch.testing.assert_close(got, exact(steps), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        (Fourier, "nx", 2),
        (Fourier, "modes", 13),
        (Fourier, "speed", 0.0),
        (Fourier, "nt", 1),
        (Fourier, "nt_test", 1),
        (Fourier, "n_val", 0),
        (VariableSpeed, "variation", 1.0),
        (VariableSpeed, "speed_modes", 0),
        (Burgers, "cells", 0.0),
        (Burgers, "diffusion", -0.1),
        (Advection2D, "ny", 2),
        (Advection2D, "modes", 8),
        (Advection2D, "length", 0.0),
    ],
)
def test_argument_out_of_range_is_refused_by_its_name_and_value(
    make: type[RandomFields], name: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got {value}"):
        make(**{name: value})


def test_reference_at_variable_speed_is_resolved(generator: torch.Generator, monkeypatch: Any) -> None:
    u, c = band_limited(B, 32, 5, generator), 2 + 0.8 * band_limited(B, 32, 2, generator).tanh()
    data = VariableSpeed(nx=32, **SMALL)
    states = data.solve(u[..., None], c[..., None], 5)
    monkeypatch.setattr(advection, "ITERATIONS", 12)
    monkeypatch.setattr(advection, "FINER", 16)
    assert (data.solve(u[..., None], c[..., None], 5) - states).abs().max() < 1e-8


@pytest.mark.parametrize("name", ["fourier", "variable_speed", "burgers", "advection_2d"])
def test_configured_test_horizon_is_at_least_four_times_that_of_training(name: str) -> None:
    data = OmegaConf.load(Path(CONFIG_DIR) / "data" / "dynamics" / f"{name}.yaml")
    assert data.nt_test - 1 >= 4 * (data.nt - 1)


def test_data_of_a_million_points_are_made_and_exact() -> None:
    nx = 1_000_000
    data = Fourier(nx=nx, speed=2 * math.pi * 2 / nx, n_train=1, n_val=1, n_test=1, nt=3, nt_test=2, batch_size=1)
    u = data.batch("train").u[0, :, :, 0]
    torch.testing.assert_close(u[2], u[0].roll(4), rtol=0, atol=1e-5)


def test_lorenz96_trajectories_are_those_of_the_system_that_cycling_assimilates_into() -> None:
    data = Lorenz96Trajectories(nx=12, n_train=2, n_val=2, n_test=3, nt_test=4, batch_size=2)
    batch, system = data.batch("test"), Lorenz96(12)
    u = batch.u[:, :, :, 0].double()
    torch.testing.assert_close(system.step(u[:, 0]).float(), batch.u[:, 1, :, 0], rtol=1e-4, atol=1e-4)
    assert batch.static.shape == (3, 12, 0)
    assert data.shape == (12,)
    assert data.interval == 0.05
