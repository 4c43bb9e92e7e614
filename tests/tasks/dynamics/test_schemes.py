"""The order and conservation of the classical schemes, their interpolation, and fitted stencils."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from eai.tasks.dynamics.advection import VariableSpeed
from eai.tasks.dynamics.baselines import fitted_stencil
from eai.tasks.dynamics.burgers import diffuse, engquist_osher, pseudo_spectral, richtmyer, semi_lagrangian, weno5
from eai.tasks.dynamics.data import nothing_static
from eai.tasks.dynamics.schemes import (
    POINTS,
    advection_schemes,
    departure,
    lagrange,
    lax_wendroff,
    points_for,
    semi_lagrangian_name,
    translate,
    trigonometric,
    trigonometric_weights,
    upwind,
    with_substeps,
)

B, N = 3, 13
SMALL = {"n_train": 5, "n_val": 3, "n_test": 4, "nt": 3, "nt_test": 6, "batch_size": 2}
SCHEMES = ("upwind", "lax_wendroff", *(semi_lagrangian_name(points) for points in POINTS))


@pytest.fixture
def field(generator: torch.Generator) -> torch.Tensor:
    return torch.randn(B, N, 2, generator=generator, dtype=torch.float64)


def orders(errors: list[float]) -> np.ndarray:
    return np.log2(np.array(errors[:-1]) / np.array(errors[1:]))


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_by_whole_cells_are_exact(name: str, field: torch.Tensor) -> None:
    for cells in (3.0, -2.0):
        got = advection_schemes((N,), (cells,))[name](field, field[:, :, :0])
        torch.testing.assert_close(got, field.roll(int(cells), dims=1), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("upwind", 1),
        ("lax_wendroff", 2),
        ("semi_lagrangian_linear", 1),
        ("semi_lagrangian_cubic", 3),
        ("semi_lagrangian_6", 5),
        ("semi_lagrangian_8", 7),
    ],
)
@pytest.mark.parametrize("direction", [1, -1])
def test_schemes_converge_at_their_order_under_refinement(name: str, order: int, direction: int) -> None:
    # Space and time are refined together: the Courant number 2.4 stays, and so does the final time.
    errors = []
    for nx in (32, 64, 128) if order > 3 else (64, 128, 256):  # before rounding errors take over
        cells = 2.4 * direction
        u = torch.sin(2 * math.pi / nx * torch.arange(nx, dtype=torch.float64))[None, :, None]
        steps = nx // 16
        truth = translate(u, (nx,), (cells,), steps)[:, -1]
        for _ in range(steps):
            u = advection_schemes((nx,), (cells,))[name](u, u[:, :, :0])
        errors.append((u - truth).abs().max().item())
    np.testing.assert_allclose(orders(errors), order, atol=0.12)


@pytest.mark.parametrize(
    ("step", "order"),
    [
        (lambda u, c: with_substeps(upwind, u, c), 1),
        (lambda u, c: with_substeps(lax_wendroff, u, c), 2),
        (lambda u, c: lagrange(u, departure(c, 4, 4), 4), 3),
    ],
    ids=["upwind", "lax_wendroff", "semi_lagrangian_cubic"],
)
def test_schemes_converge_at_their_order_where_the_speed_varies(step: Callable, order: int) -> None:
    errors = []
    for nx in (64, 128, 256):
        x = 2 * math.pi / nx * torch.arange(nx, dtype=torch.float64)
        u, speed = torch.sin(x)[None], (1.3 + 0.5 * torch.cos(x))[None]
        steps = nx // 16
        data = VariableSpeed(nx=nx, modes=2, **SMALL)
        truth = data.solve(u[..., None], speed[..., None], steps)[:, -1, :, 0]
        for _ in range(steps):
            u = step(u, speed)
        errors.append((u - truth).abs().max().item())
    np.testing.assert_allclose(orders(errors), order, atol=0.25)


def test_semi_lagrangian_schemes_at_variable_speed_are_the_interpolation_at_the_points_of_departure() -> None:
    data = VariableSpeed(nx=17, modes=3, **SMALL)
    batch = data.batch("test")
    u, static = batch.u[:, 0].double(), batch.static.double()
    schemes = data.schemes()
    where = departure(static[:, :, 0], 4, 8)
    for points in (2, 4, 6, 8, 12):
        got = schemes[semi_lagrangian_name(points)](u, static)[:, :, 0]
        torch.testing.assert_close(got, lagrange(u[:, :, 0], where, points))
    # The trigonometric interpolant from its definition; the fields hold no higher mode.
    modes = torch.fft.rfft(u[:, :, 0], dim=1) / 17
    phase = 2j * math.pi / 17 * torch.arange(9, dtype=torch.float64) * where[:, :, None]
    exact = (modes[:, None] * phase.exp() * torch.tensor([1.0] + [2.0] * 8)).sum(2).real
    torch.testing.assert_close(schemes["semi_lagrangian_trigonometric"](u, static)[:, :, 0], exact)
    # Each speed belongs to its own field, whatever was asked for before.
    alone = schemes["semi_lagrangian_6"](u[1:2], static[1:2])
    torch.testing.assert_close(schemes["semi_lagrangian_6"](u, static)[1:2], alone)


def test_more_points_are_better_and_fewer_are_offered_on_a_small_grid() -> None:
    data = VariableSpeed(**SMALL)
    batch = data.batch("test")
    truth = data.solve(batch.u[:, 0], batch.static, 1)[:, 0]
    names = [*(semi_lagrangian_name(points) for points in POINTS), "semi_lagrangian_trigonometric"]
    errors = [float((data.schemes()[name](batch.u[:, 0], batch.static) - truth).square().mean()) for name in names]
    assert errors == sorted(errors, reverse=True)
    assert points_for(7) == [2, 4, 6]


def test_spectral_scheme_is_exact_to_the_grid_where_the_solution_is_smooth(generator: torch.Generator) -> None:
    u = 0.3 * torch.sin(2 * math.pi / 32 * torch.arange(32, dtype=torch.float64))[None]
    truth = pseudo_spectral(u, 1.0, 0.5, 5)
    assert (pseudo_spectral(u, 1.0, 0.5, 5, finer=1) - truth).abs().max() < 1e-4 < (u - truth[:, -1]).abs().max()
    # Products are not aliased: the sum of squares stays, where nothing damps it and no mode leaves the grid.
    rough = torch.randn(B, 32, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.rfft(rough, dim=1)
    spectrum[:, -1] = 0
    rough = torch.fft.irfft(spectrum, n=32, dim=1) / 50
    after = pseudo_spectral(rough, 1.0, 0.0, 3, finer=1)[:, -1]
    torch.testing.assert_close(after.square().sum(1), rough.square().sum(1), rtol=1e-6, atol=0)


def test_semi_lagrangian_burgers_solves_for_the_speed_at_the_point_of_departure() -> None:
    grid = torch.arange(32, dtype=torch.float64)[None]
    u = 0.5 * torch.sin(2 * math.pi / 32 * grid)
    after = semi_lagrangian(u, 1.0, 0.0, 6)
    # u(x, t+1) = u(x − u(x, t+1), t): an iteration gains a digit, as |u_x| ≤ 0.1.
    torch.testing.assert_close(lagrange(u, grid - after, 6), after, rtol=0, atol=1e-5)


def test_weno_has_its_order_where_smooth_and_does_not_overshoot_at_a_front() -> None:
    errors = []
    for nx in (32, 64, 128):
        u = 0.2 * torch.sin(2 * math.pi / nx * torch.arange(nx, dtype=torch.float64))[None]
        truth = pseudo_spectral(u, 8 / nx, 1e-9, 4)[:, -1]  # so small steps that their third order does not show
        for _ in range(4):
            u = weno5(u, 8 / nx, 1e-9)
        errors.append((u - truth).abs().max().item())
    assert orders(errors)[-1] > 4.3, errors
    assert errors[-1] < 2e-10  # parabolas in other shares have fifty times this error, and the same order here
    step = torch.where(torch.arange(40) < 20, 1.0, -1.0).double()[None]
    for _ in range(10):
        step = weno5(step, 1.0, 1e-9)
    assert step.abs().max() < 1.01


@pytest.mark.parametrize(
    ("scheme", "order"),
    [
        (engquist_osher, 1),
        (richtmyer, 2),
        (weno5, 1.9),  # central diffusion is of second order
        (lambda u, cells, nu: semi_lagrangian(u, cells, nu, 4), 2),
    ],
    ids=["upwind", "lax_wendroff", "weno5", "semi_lagrangian_cubic"],
)
def test_burgers_schemes_converge_to_the_reference(scheme: Callable, order: float) -> None:
    errors = []
    for nx in (32, 64, 128):
        u = 0.5 * torch.sin(2 * math.pi / nx * torch.arange(nx, dtype=torch.float64))[None]
        steps, diffusion = nx // 8, 0.02 * nx  # the same viscosity and final time in units of the domain
        truth = pseudo_spectral(u, 1.0, diffusion, steps)[:, -1]
        for _ in range(steps):
            u = scheme(u, 1.0, diffusion)
        errors.append((u - truth).abs().max().item())
    assert orders(errors)[-1] > order - 0.35, errors  # the coarsest pair is not yet in the asymptotic range


@pytest.mark.parametrize("name", SCHEMES)
def test_schemes_at_constant_speed_conserve_mass(name: str, field: torch.Tensor) -> None:
    for cells in (0.3, 2.387, -4.9):
        after = advection_schemes((N,), (cells,))[name](field, field[:, :, :0])
        torch.testing.assert_close(after.sum(1), field.sum(1))
        if name in ("upwind", "semi_lagrangian_linear"):
            assert (after.amax(1) <= field.amax(1) + 1e-12).all()
            assert (after.amin(1) >= field.amin(1) - 1e-12).all()


@pytest.mark.parametrize("scheme", [engquist_osher, richtmyer, weno5, lambda u, cells, nu: diffuse(u, nu)])
def test_burgers_schemes_in_flux_form_conserve_mass(scheme: Callable, field: torch.Tensor) -> None:
    u = field[:, :, 0] / field.abs().max()
    after = u
    for _ in range(5):
        after = scheme(after, 1.3, 0.2)
    torch.testing.assert_close(after.sum(1), u.sum(1))


def test_two_dimensional_schemes_act_along_each_axis(generator: torch.Generator) -> None:
    u = torch.randn(B, 35, 1, generator=generator, dtype=torch.float64)
    along_x = advection_schemes((5, 7), (0.0, 0.4))["upwind"](u, u[:, :, :0]).view(B * 5, 7, 1)
    expected = advection_schemes((7,), (0.4,))["upwind"](u.view(B * 5, 7, 1), u.view(B * 5, 7, 1)[:, :, :0])
    torch.testing.assert_close(along_x, expected)


def test_lagrange_interpolation_is_exact_for_polynomials_below_the_number_of_points() -> None:
    u = torch.arange(20, dtype=torch.float64)[None] ** 3
    position = torch.tensor([[7.25, 9.5, 11.9]], dtype=torch.float64)
    torch.testing.assert_close(lagrange(u, position, 4), position**3)
    fifth = torch.arange(20, dtype=torch.float64)[None] ** 5
    torch.testing.assert_close(lagrange(fifth, position, 6), position**5)
    assert (lagrange(u, position, 2) - position**3).abs().min() > 0.1


@pytest.mark.parametrize("n", [12, 13])
def test_trigonometric_interpolant_passes_through_the_points_and_is_exact_for_low_modes(n: int) -> None:
    x, fine = (torch.arange(m, dtype=torch.float64) * 2 * math.pi / m for m in (n, 4 * n))
    u = torch.sin(3 * x) + torch.cos(n // 2 * x)
    got = trigonometric(u[None], 4)[0]
    torch.testing.assert_close(got[::4], u, rtol=0, atol=1e-12)
    torch.testing.assert_close(got, torch.sin(3 * fine) + torch.cos(n // 2 * fine), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [12, 13])
def test_trigonometric_weights_give_the_trigonometric_interpolant_of_any_field(
    n: int, generator: torch.Generator
) -> None:
    u = torch.randn(B, n, generator=generator, dtype=torch.float64)
    position = (torch.arange(4 * n, dtype=torch.float64) / 4).expand(B, -1)
    got = (trigonometric_weights(position, n) @ u[:, :, None])[:, :, 0]
    torch.testing.assert_close(got, trigonometric(u, 4), rtol=0, atol=1e-12)


def test_fitted_stencil_finds_a_shift_that_it_can_reach(generator: torch.Generator) -> None:
    u0 = torch.randn(40, N, 1, generator=generator)
    batch = nothing_static(torch.stack([u0, 0.8 * u0.roll(2, 1) + 0.2 * u0.roll(-1, 1)], dim=1))
    u = torch.randn(B, N, 1, generator=generator)
    step = fitted_stencil(batch, (N,), 2)
    torch.testing.assert_close(step(u, u[:, :, :0]), 0.8 * u.roll(2, 1) + 0.2 * u.roll(-1, 1), rtol=0, atol=1e-5)
    short = fitted_stencil(batch, (N,), 1)(u, u[:, :, :0])
    assert (short - batch.u[:B, 1]).abs().max() > 0.3
