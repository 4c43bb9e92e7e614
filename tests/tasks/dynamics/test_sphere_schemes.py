"""Classical schemes on the sphere: conservation, bounds and orders of convergence."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from eai.tasks.dynamics.meshes import icosphere, icosphere_faces
from eai.tasks.dynamics.schemes import Scheme
from eai.tasks.dynamics.sphere import Sphere
from eai.tasks.dynamics.sphere_schemes import sphere_schemes

FLOWS = ("rotation", "deformation")
B = 3
# Only the test split is looked at.
SMALL: dict[str, Any] = {"n_train": 1, "n_val": 1, "n_test": 4, "nt": 2, "nt_test": 2, "batch_size": 2}


def after(scheme: Scheme, u: torch.Tensor, static: torch.Tensor, steps: int) -> torch.Tensor:
    for _ in range(steps):
        u = scheme(u, static)
    return u


@pytest.mark.parametrize("flow", FLOWS)
def test_schemes_keep_constants_bounds_and_types(flow: Any) -> None:
    data = Sphere(2, flow, wind=1.7, **SMALL)
    batch = data.batch("test")
    for scheme in data.schemes().values():
        constant = torch.full((4, 162, 1), 0.7, dtype=torch.float64)
        torch.testing.assert_close(scheme(constant, batch.static), constant, rtol=0, atol=1e-13)
        u = after(scheme, batch.u[:, 0], batch.static, 3)
        assert (u.dtype, u.shape) == (torch.float32, (4, 162, 1))
        assert (u.amax(1) <= batch.u[:, 0].amax(1) + 1e-6).all()
        assert (u.amin(1) >= batch.u[:, 0].amin(1) - 1e-6).all()


@pytest.mark.parametrize("flow", FLOWS)
def test_upwind_conserves_mass_and_makes_no_new_extrema(flow: Any, generator: torch.Generator) -> None:
    data = Sphere(2, flow, wind=0.5, **SMALL)
    static, (source, target) = data.batch("test").static, data.mesh.edge_index
    noise = torch.randn(4, 162, 1, dtype=torch.float64, generator=generator)
    moved = data.schemes()["upwind"](noise, static)
    area = data.mesh.area[:, None]
    torch.testing.assert_close((area * moved).sum(1), (area * noise).sum(1), rtol=0, atol=1e-12)
    around = {how: noise.scatter_reduce(1, target.view(1, -1, 1).expand(4, -1, 1), noise[:, source], how)
              for how in ("amin", "amax")}  # fmt: skip
    assert (moved >= around["amin"] - 1e-13).all()
    assert (moved <= around["amax"] + 1e-13).all()
    assert (moved - noise).abs().max() > 0.1
    far = after(Sphere(2, flow, wind=9.0, **SMALL).schemes()["upwind"], noise, 18 * static, 2)
    torch.testing.assert_close((area * far).sum(1), (area * noise).sum(1), rtol=0, atol=1e-12)
    assert far.abs().max() < noise.abs().max()


def errors(scheme: str, levels: tuple[int, ...], many: bool) -> list[float]:
    """Root mean square errors after 0.6 radians of rotation, in one step or in many of one Courant number."""
    got = []
    for level in levels:
        steps = 2**level if many else 1
        spacing = icosphere(level).spacing
        data = Sphere(level, "rotation", wind=0.6 / steps / spacing, width=0.7, degree=2,
                      **{**SMALL, "nt_test": steps + 1})  # fmt: skip
        batch = data.batch("test")
        u = after(data.schemes()[scheme], batch.u[:, 0].double(), batch.static, steps)
        got.append((u - batch.u[:, -1]).square().mean().sqrt().item())
    return got


def test_upwind_converges_at_first_order() -> None:
    coarse, fine = errors("upwind", (3, 4), many=True)
    assert math.log2(coarse / fine) == pytest.approx(1, abs=0.15)


def test_linear_interpolation_is_of_second_order_and_the_nearest_node_of_first() -> None:
    for scheme, order in (("semi_lagrangian_linear", 2), ("semi_lagrangian_nearest", 1)):
        coarse, fine = errors(scheme, (2, 4), many=False)
        assert math.log2(coarse / fine) / 2 == pytest.approx(order, abs=0.2)


def test_nearest_scheme_returns_values_of_nodes() -> None:
    data = Sphere(2, "deformation", wind=1.3, **SMALL)
    batch = data.batch("test")
    moved = data.schemes()["semi_lagrangian_nearest"](batch.u[:, 0], batch.static)
    for before, now in zip(batch.u[:, 0], moved, strict=True):
        assert torch.isin(now, before).all()
    assert not torch.equal(moved, batch.u[:, 0])


@pytest.mark.parametrize("name", ["upwind", "semi_lagrangian_nearest", "semi_lagrangian_linear"])
def test_a_trajectory_does_not_depend_on_those_beside_it(name: str) -> None:
    data = Sphere(1, "deformation", width=0.7, **SMALL)
    batch = data.batch("test")
    u, static = batch.u[:, :2].flatten(0, 1).double(), batch.static.repeat_interleave(2, dim=0)
    static[:2] *= 4  # other sub-steps than the rest
    together = data.schemes()[name](u, static)
    alone = torch.cat([data.schemes()[name](u[[row]], static[[row]]) for row in range(len(u))])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_still_air_changes_nothing(generator: torch.Generator) -> None:
    u = torch.randn(B, 42, 1, dtype=torch.float64, generator=generator)
    for scheme in sphere_schemes(icosphere(1), icosphere_faces(1)).values():
        torch.testing.assert_close(scheme(u, torch.zeros(B, 42, 2)), u)
