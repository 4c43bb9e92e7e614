"""Grids: neighbours, places, distances, on rings, lines and planes."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from eai.variational.grid import Grid, angles, as_grid
from tests.variational.cases import generator_of
from tests.variational.planes import GRIDS, SHAPE

grids = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS.keys())


@grids
def test_flat_index_and_numbers_along_the_axes_are_inverse(grid: Grid) -> None:
    index = torch.arange(grid.n)
    assert torch.equal(grid.flat(grid.axes(index)), index)
    counted = torch.stack(torch.meshgrid(*map(torch.arange, grid.shape), indexing="ij"))
    assert torch.equal(torch.stack(grid.axes(index)), counted.flatten(1))


def test_steps_wrap_on_periodic_axes_and_stop_at_bounded_ones() -> None:
    steps = torch.tensor([[-1, 0], [1, 0], [0, -1], [0, 2]])
    corner = torch.tensor(6)  # of row 0, the last of 7 columns
    to, inside = GRIDS["channel"].moved(corner, steps)
    assert to.tolist() == [6, 13, 5, 1]
    assert inside.tolist() == [False, True, True, True]
    to, inside = GRIDS["periodic"].moved(corner, steps)
    assert to.tolist() == [34, 13, 5, 1]
    assert inside.all()
    to, inside = GRIDS["bounded"].moved(corner, steps)
    assert to.tolist() == [6, 13, 5, 6]
    assert inside.tolist() == [False, True, True, False]


@grids
def test_places_and_cells_are_inverse(grid: Grid) -> None:
    g = generator_of(3)
    fraction = torch.rand(101, grid.d, generator=g)
    index = grid.flat([torch.randint(max(1, size - 1), (101,), generator=g) for size in grid.shape])
    there, part = grid.locate(grid.position(index, fraction))
    assert torch.equal(there, index)
    torch.testing.assert_close(part, fraction.double(), rtol=0, atol=1e-12)


@grids
def test_grid_points_are_located_on_themselves_in_spite_of_rounding(grid: Grid) -> None:
    index = torch.arange(grid.n)
    there, part = grid.locate(grid.position(index, torch.zeros(grid.n, grid.d)))
    # The last points of a bounded axis are the far ends of the last cells.
    assert set(part.flatten().tolist()) <= {0.0, 1.0}
    steps = torch.stack(grid.axes(there), -1) + part
    assert torch.equal(steps, torch.stack(grid.axes(index), -1).double())


def test_distances_are_chords_on_closed_axes_and_lengths_on_open_ones() -> None:
    grid = Grid(SHAPE, [False, True], [1.5, 4.0])
    i, j = torch.tensor(3), torch.tensor(7 * 4 + 6)  # four rows and three columns apart
    apart = grid.between(i, j)
    radius = 4.0 / (2 * math.pi)
    chord = 2 * radius * math.sin(math.pi * 3 / 7)
    assert [part.item() for part in apart] == pytest.approx([1.2, chord], rel=1e-14)
    places = grid.position(torch.stack([i, j]), torch.zeros(2, 2))
    assert grid.distance(places[0], places[1]).item() == pytest.approx(math.hypot(1.2, chord), rel=1e-14)
    assert grid.diameter == pytest.approx(math.hypot(1.5, 4.0 / math.pi), rel=1e-14)


def test_number_of_points_is_a_ring() -> None:
    ring = as_grid(13)
    assert (ring.shape, ring.periodic, ring.d, ring.n) == ((13,), (True,), 1, 13)
    torch.testing.assert_close(ring.position(torch.arange(13), torch.zeros(13, 1))[:, 0], angles(13), rtol=0, atol=0)
    assert ring == Grid([13])
    assert ring != Grid([13], periodic=False)


@grids
def test_part_of_the_doubled_domain_keeps_the_spacing(grid: Grid) -> None:
    domain = grid.doubled()
    assert all(domain.periodic)
    assert domain.spacing == pytest.approx(grid.spacing)
    numbers = torch.arange(domain.n)
    kept = grid.part_of_doubled(numbers[None].double())[0].long()
    assert torch.equal(torch.stack(domain.axes(kept)), torch.stack(grid.axes(torch.arange(grid.n))))


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("shape", lambda: Grid([])),
        ("shape", lambda: Grid([3, 4, 5])),
        ("shape", lambda: Grid([0, 4])),
        ("periodic", lambda: Grid([3, 4], [True])),
        ("extent", lambda: Grid([3, 4], extent=[1.0])),
        ("extent", lambda: Grid([3, 4], extent=[1.0, 0.0])),
    ],
)
def test_bad_argument_is_named(argument: str, build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
