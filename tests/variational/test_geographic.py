"""A grid of latitudes and longitudes: places, chords, stations from a CSV file."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from eai.variational.batch import Batch
from eai.variational.covariance import gaspari_cohn
from eai.variational.earth_stations import EarthStations
from eai.variational.geographic import EARTH, GeographicGrid
from eai.variational.grid import Grid
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation
from tests.variational.cases import generator_of

NORTH, EAST = [20.0, 25.0, 31.0, 40.0], [-30.0, -20.0, -10.0, 0.0, 12.0]
BOX = GeographicGrid(NORTH, EAST)
RING = GeographicGrid([-30.0, 0.0, 30.0], [15.0 + 40 * k for k in range(9)], periodic=True)


def test_chord_is_that_of_the_spherical_law_of_cosines() -> None:
    index = torch.arange(BOX.n)
    row, column = BOX.axes(index)
    phi, lam = BOX.latitude[row].deg2rad(), BOX.longitude[column].deg2rad()
    cosine = phi.sin()[:, None] * phi.sin() + phi.cos()[:, None] * phi.cos() * (lam[:, None] - lam).cos()
    angle = cosine.clamp(-1, 1).acos()
    # Rounding of the cosine of a small angle is 1e-8 in the angle: 0.1 m.
    torch.testing.assert_close(BOX.chord(index[:, None], index), 2 * EARTH * (angle / 2).sin(), rtol=0, atol=1e-3)


def test_localisation_by_the_chord_is_positive_definite_all_round_the_earth() -> None:
    grid = GeographicGrid([-80.0, -40.0, 0.0, 40.0, 80.0], [24.0 * k for k in range(15)], periodic=True)
    index = torch.arange(grid.n)
    for support in (3000.0, 12742.0):
        values = torch.linalg.eigvalsh(gaspari_cohn(grid.chord(index[:, None], index), support))
        assert values.min() > -1e-12 * values.max()


def test_extent_is_in_kilometres() -> None:
    degree = 2 * math.pi * EARTH / 360
    assert RING.extent[0] == pytest.approx(3 * 30 * degree)
    assert RING.extent[1] == pytest.approx(360 * degree * (1 + math.sqrt(3)) / 3)
    assert BOX.spacing[0] == pytest.approx(20 / 3 * degree)


@pytest.mark.parametrize("grid", [BOX, RING], ids=["box", "ring"])
def test_places_in_degrees_are_found_again(grid: GeographicGrid) -> None:
    draw = torch.rand(2, 50, dtype=torch.float64, generator=generator_of(0))
    low, high = grid.latitude[0], grid.latitude[-1]
    north = low + (high - low) * draw[0]
    width = 360.0 if grid.periodic[1] else float(grid.longitude[-1] - grid.longitude[0])
    east = grid.longitude[0] + width * draw[1]
    index, fraction = grid.locate_degrees(north, torch.where(east > 180, east - 360, east))
    back = grid.degrees(index, fraction)
    torch.testing.assert_close(back[0], north)
    torch.testing.assert_close(back[1], east)
    points = torch.arange(grid.n)
    at, into = grid.locate_degrees(*grid.degrees(points, torch.zeros(grid.n, 2)))
    assert torch.equal(grid.flat([a + f.round().long() for a, f in zip(grid.axes(at), into.T, strict=True)]), points)


def test_a_linear_function_of_the_degrees_is_interpolated_exactly_on_an_uneven_grid(tmp_path: Path) -> None:
    path = tmp_path / "stations.csv"
    path.write_text("name, lat, lon, sigma\na, 22.5, -29, 0.5\nb, 38.2, 350.5, 0.25\nc, 40, 12, 1\n")
    network = EarthStations(BOX, str(path), withheld=1)
    state = (BOX.latitude[:, None] - 3 * BOX.longitude).flatten()[None]
    index, fraction, mask, withheld = network.draw(1, BOX, generator_of(0))
    sigma = network.draw_sigma(ObservationError(9.0), 1, generator_of(0))
    values = Interpolation(BOX)(state, Batch(state, mask, index, fraction, sigma, mask, withheld, state, sigma))[0]
    expected = {0.5: 22.5 + 3 * 29, 0.25: 38.2 + 3 * 9.5, 1.0: 40.0 - 36}
    assert {float(s) for s in sigma[0]} == expected.keys()
    for one, value in zip(sigma[0].tolist(), values.tolist(), strict=True):
        assert value == pytest.approx(expected[one], abs=1e-6)
    assert (mask.sum(), withheld.sum()) == (2, 1)


WRONG = {
    "lat,lon\n50,-20\n22,-20\n": "path: expected stations with lat 20 to 40 and lon -30 to 12, the grid's edges, "
    "got '1 outside, the first at [50.0, -20.0]'",
    "lat,lon,sigma\n22,-20,0\n": "path: expected degrees, and sigma above 0, in station 1, got [22.0, -20.0, 0.0]",
    "lat,lon\n22,nan\n": "path: expected degrees, and sigma above 0, in station 1, got [22.0, nan]",
    "lat,x\n22,4\n": "path: expected columns lat, lon and, if wanted, sigma in s.csv, got ['lat', 'x']",
    "lat,lon\n": "path: expected at least one station, got 'none'",
}


@pytest.mark.parametrize("content", WRONG)
def test_what_is_no_station_is_refused_in_one_line(content: str, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        EarthStations(BOX, str(path))
    assert str(caught.value) == WRONG[content]


def test_grids_of_other_degrees_are_other_grids() -> None:
    assert GeographicGrid(NORTH, EAST) == BOX
    assert GeographicGrid([-degree for degree in reversed(NORTH)], EAST) != BOX
    assert Grid(BOX.shape, BOX.periodic, BOX.extent) != BOX
    assert len({BOX, GeographicGrid(NORTH, EAST)}) == 1
    with pytest.raises(ValueError, match="latitude: expected at least two increasing numbers"):
        GeographicGrid([3.0, 1.0], EAST)
    with pytest.raises(ValueError, match="longitude: expected less than 360 degrees in all"):
        GeographicGrid(NORTH, [0.0, 180.0, 360.0])
