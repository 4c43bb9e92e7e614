"""A scalar on the sphere: winds, fields and exact solutions."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch

from eai.tasks.dynamics.meshes import icosphere
from eai.tasks.dynamics.sphere import Sphere
from eai.tasks.dynamics.sphere_flows import Wind, legendre, random_directions, random_smooth_fields, turned
from eai.tasks.dynamics.sphere_geometry import east_north

SMALL: dict[str, Any] = {"n_train": 5, "n_val": 3, "n_test": 4, "nt": 3, "nt_test": 6, "batch_size": 2}
FLOWS = ("rotation", "deformation")
B, M = 3, 23


def vortices(generator: torch.Generator, rotation: float = 0.1, vortex: float = 0.3) -> Wind:
    axis, pole = (random_directions(B, generator=generator) for _ in range(2))
    return Wind(axis, pole, rotation, vortex)


@pytest.mark.parametrize("flow", FLOWS)
def test_trajectories_have_their_shapes_and_depend_on_seed_and_split_alone(flow: Any) -> None:
    data = Sphere(1, flow, wind=0.2, width=0.7, **SMALL)
    train, val, test = (data.batch(split) for split in ("train", "val", "test"))
    assert (train.u.shape, val.u.shape, test.u.shape) == ((5, 3, 42, 1), (3, 6, 42, 1), (4, 6, 42, 1))
    assert test.static.shape == (4, 42, 3)
    again = Sphere(1, flow, wind=0.2, width=0.7, **{**SMALL, "nt": 2}).batch("train")
    assert torch.equal(again.u, train.u[:, :2])
    assert torch.equal(again.static, train.static)
    first = torch.cat([train.u[:, 0], val.u[:, 0], test.u[:, 0]]).flatten(1)
    assert torch.cdist(first, first).fill_diagonal_(9).min() > 0.1
    torch.testing.assert_close(first.abs().amax(1), torch.ones(12))


def test_initial_is_what_trajectories_begin_with() -> None:
    data = Sphere(1, "deformation", width=0.7, **SMALL)
    u, static = data.initial(5, torch.Generator().manual_seed(3))
    batch = data.generate("train", torch.Generator().manual_seed(3))
    assert torch.equal(u.float(), batch.u[:, 0])
    assert torch.equal(static.float(), batch.static)


def test_long_and_short_trajectories_are_computed_in_parts_of_the_same_values() -> None:
    data = Sphere(3, "deformation", **{**SMALL, "n_train": 20, "nt": 2})
    wind, field = data.draw(20, torch.Generator().manual_seed(3))
    nodes = data.mesh.positions.expand(20, -1, -1)
    got = data.generate("train", torch.Generator().manual_seed(3)).u[:, 1, :, 0]
    torch.testing.assert_close(got, field(wind.origin(nodes)).float())


@pytest.mark.parametrize("flow", FLOWS)
def test_static_features_are_wind_in_mean_edge_lengths_and_sine_of_latitude(flow: Any) -> None:
    data = Sphere(2, flow, wind=1.7, **SMALL)
    _, static = data.initial(B, torch.Generator().manual_seed(0))
    wind, _ = data.draw(B, torch.Generator().manual_seed(0))
    nodes = data.mesh.positions
    vectors = (static[..., :2, None] * east_north(nodes)).sum(2) * data.mesh.spacing
    torch.testing.assert_close(vectors, wind.velocity(nodes.expand(B, -1, -1)))
    torch.testing.assert_close(static[..., 2], nodes[:, 2].expand(B, -1))
    fastest = static[..., :2].norm(dim=2).amax(1)
    assert (fastest <= 1.7 + 1e-12).all()
    assert (fastest > 0.75 * 1.7).all()
    assert data.courant == (1.7,)


def test_a_full_turn_brings_the_first_field_back() -> None:
    spacing, steps = icosphere(2).spacing, 13
    data = Sphere(2, "rotation", wind=2 * math.pi / (steps * spacing), **{**SMALL, "nt_test": steps + 1})
    u = data.batch("test").u
    torch.testing.assert_close(u[:, -1], u[:, 0], rtol=0, atol=1e-6)
    assert (u[:, 6] - u[:, 0]).abs().max() > 0.5


def test_rotation_carries_the_field_along_with_its_air(generator: torch.Generator) -> None:
    wind = vortices(generator, rotation=0.4, vortex=0.0)
    x = random_directions(B, M, generator=generator)
    basis = torch.eye(3, dtype=torch.float64).expand(B, -1, -1)
    skew = torch.linalg.cross(wind.axis[:, None].expand_as(basis), basis).mT
    expected = x @ torch.linalg.matrix_exp(-0.4 * skew).mT
    torch.testing.assert_close(wind.origin(x), expected)
    torch.testing.assert_close(turned(expected, wind.axis, 0.4), x)


def test_vortices_alone_turn_the_air_about_their_poles(generator: torch.Generator) -> None:
    wind, x = vortices(generator, rotation=0.0), random_directions(B, M, generator=generator)
    speed = wind.velocity(x).norm(dim=2)
    sine = torch.linalg.cross(wind.pole[:, None].expand_as(x), x).norm(dim=2)
    rho = 1.5 * sine
    torch.testing.assert_close(speed, 0.3 * 1.5 * math.sqrt(3) * rho.tanh() / rho.cosh().square())
    rate, got = speed / sine, wind.origin(x)
    for row, point in product(range(B), range(0, M, 5)):
        expected = turned(x[[row], [point], None], wind.pole[[row]], -rate[row, point].item())
        torch.testing.assert_close(got[[row], [point], None], expected, rtol=0, atol=1e-9)


def test_wind_is_tangent_bounded_and_without_divergence(generator: torch.Generator) -> None:
    wind, x = vortices(generator), random_directions(B, 999, generator=generator)
    v = wind.velocity(x)
    assert (v * x).sum(2).abs().max() < 1e-15
    assert v.norm(dim=2).max() <= 0.4
    # v · x = 0 everywhere, so the divergence in space is that on the sphere.
    x.requires_grad_()
    v = wind.velocity(x)
    parts = [torch.autograd.grad(v[..., i].sum(), x, retain_graph=True)[0][..., i] for i in range(3)]
    assert torch.stack(parts).sum(0).abs().max() < 1e-14


def test_twice_as_many_substeps_change_the_deformation_by_less_than_1e_8() -> None:
    data = Sphere(2, "deformation", wind=1.5, width=0.35, **SMALL)
    wind, field = data.draw(5, torch.Generator().manual_seed(1))
    once = twice = data.mesh.positions.expand(5, -1, -1)
    substeps = math.ceil(50 * wind.fastest_turn)
    for _ in range(5):
        once, twice = wind.origin(once), wind.origin(twice, 2 * substeps)
    assert (field(once) - field(twice)).abs().max() < 1e-8
    assert (once - data.mesh.positions).norm(dim=2).max() > 0.5  # it has moved


@pytest.mark.parametrize("flow", FLOWS)
def test_global_mean_is_conserved_but_for_the_error_of_a_sum_over_nodes(flow: Any) -> None:
    drift = []
    for level in (2, 3):
        data = Sphere(level, flow, wind=0.5 * 2 ** (level - 2), **{**SMALL, "n_train": 1, "n_val": 1})
        mean = (data.batch("test").u[..., 0].double() * data.mesh.area).mean(2)
        drift.append((mean - mean[:, :1]).abs().max().item())
    assert drift[0] < 1e-3
    assert drift[1] < 0.4 * drift[0]


def test_harmonics_have_zero_mean_and_unit_variance_and_hills_their_height(generator: torch.Generator) -> None:
    x = icosphere(2)
    u = random_smooth_fields(2000, 0, 1.0, 3, generator)(x.positions.expand(2000, -1, -1))
    # 2,000 fields of 15 numbers: the variance has a standard error of 0.9 %.
    assert (u.square() * x.area).mean().item() == pytest.approx(1, abs=0.03)
    assert (u * x.area).mean(1).abs().max() < 1e-3
    hill = random_smooth_fields(B, 1, 0.4, 0, generator)
    torch.testing.assert_close(hill(hill.centre), hill.height)
    assert ((hill.width >= 0.4) & (hill.width <= 0.8)).all()
    across = torch.linalg.cross(hill.centre, random_directions(B, 1, generator=generator))
    distance = 1e-2
    near = turned(hill.centre, across[:, 0] / across[:, 0].norm(dim=1, keepdim=True), distance)
    expected = hill.height * (-(distance**2) / 2 / hill.width.square()).exp()
    torch.testing.assert_close(hill(near), expected, rtol=1e-6, atol=0)


def test_cosine_bell_is_half_as_high_where_the_gaussian_is_and_ends_at_twice_that_angle(
    generator: torch.Generator,
) -> None:
    hill = random_smooth_fields(B, 1, 0.4, 0, generator)
    bell = hill._replace(bells=True)
    half = (1 - math.log(2) * hill.width.square()).acos()
    across = torch.linalg.cross(hill.centre, hill.centre.roll(1, 2))
    across = across / across.norm(dim=2, keepdim=True)

    def at(share: float) -> torch.Tensor:
        angle = (share * half)[..., None]
        return angle.cos() * hill.centre + angle.sin() * across

    for field in (hill, bell):
        torch.testing.assert_close(field(at(1.0)), hill.height / 2)
    torch.testing.assert_close(bell(at(0.0)), hill.height, rtol=1e-6, atol=0)
    # ½ (1 + cos(π/4)) half way there.
    torch.testing.assert_close(bell(at(0.5)), hill.height * (2 + math.sqrt(2)) / 4)
    assert bell(at(2.001)).abs().max() == 0
    assert bell(at(1.99)).abs().min() > 0


def test_legendre_polynomials() -> None:
    z = torch.linspace(-1, 1, 7, dtype=torch.float64)
    expected = [torch.ones_like(z), z, (3 * z**2 - 1) / 2, (5 * z**3 - 3 * z) / 2]
    for degree, polynomial in enumerate(expected):
        torch.testing.assert_close(legendre(degree, z), polynomial)


def test_solution_from_values_at_nodes_is_refused_in_words() -> None:
    data = Sphere(1, width=0.7, **SMALL)
    batch = data.batch("test")
    with pytest.raises(NotImplementedError, match="known for the analytic fields"):
        data.solve(batch.u[:, 0], batch.static, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"level": 0}, "level: expected 1 or more, got 0"),
        ({"wind": 0.0}, "wind: expected above 0, got 0.0"),
        ({"hills": -1}, "hills: expected 0 or more, got -1"),
        ({"width": 0.2}, "width: expected at least the mesh's mean edge length, 0.3 radians, got 0.2"),
        ({"degree": 11}, "degree: expected 0 ≤ degree ≤ 10, or the mesh cannot hold the harmonics, got 11"),
        ({"degree": 0, "hills": 0}, "degree: expected 1 or more where there are no hills, got 0"),
        ({"n_train": 0}, "n_train: expected at least 1, got 0"),
    ],
)
def test_bad_arguments_are_told(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        Sphere(**{"level": 2, **arguments})
    assert told in str(error.value)
