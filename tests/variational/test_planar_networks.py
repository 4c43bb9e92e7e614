"""Observing networks on planes: random places, stations from lists and files, tracks."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from eai.variational.grid import Grid
from eai.variational.networks import ObservationNetwork, RegularNetwork, ShareNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, PointValue
from eai.variational.stations import StationNetwork
from eai.variational.tracks import TrackNetwork
from tests.variational.cases import generator_of, standard_errors
from tests.variational.planes import GRIDS, SHAPE

PLANES = {name: grid for name, grid in GRIDS.items() if grid.d == 2}
planes = pytest.mark.parametrize("grid", PLANES.values(), ids=PLANES.keys())


@planes
@pytest.mark.parametrize("on_grid", [True, False], ids=["points", "between points"])
def test_places_are_distinct_cells_of_the_domain(grid: Grid, on_grid: bool) -> None:
    network = ObservationNetwork(6, on_grid=on_grid, cluster=0.5, withheld=3)
    index, fraction, mask, withheld = network.draw(101, grid, generator_of(0))
    assert index.shape == (101, 9)
    assert fraction.shape == (101, 9, 2)
    assert (index.sort(1).values.diff(dim=1) > 0).all()
    assert (mask.sum(1) == 6).all()
    assert (withheld.sum(1) == 3).all()
    place, half = grid.position(index, fraction), torch.tensor(grid.spacing, dtype=torch.float64) / 2
    for axis, closed in enumerate(grid.periodic):
        low, high = (0.0, grid.extent[axis]) if closed else (half[axis], grid.extent[axis] - half[axis])
        assert (place[..., axis] >= low - 1e-12).all()
        assert (place[..., axis] <= high + 1e-6).all()


@planes
def test_places_are_uniform(grid: Grid) -> None:
    # χ² of the counts of the cells; that of 35 independent ones exceeds 80 with probability 2e-5.
    index, _, _, _ = ObservationNetwork(4).draw(4001, grid, generator_of(0))
    seen = torch.bincount(index.flatten(), minlength=35).double()
    assert ((seen - seen.mean()).square() / seen.mean()).sum() < 80


@planes
def test_as_many_cells_as_there_are_can_be_observed_and_no_more(grid: Grid) -> None:
    cells = math.prod(size if closed else size - 1 for size, closed in zip(SHAPE, grid.periodic, strict=True))
    index, _, _, _ = ObservationNetwork(cells, on_grid=False).draw(3, grid, generator_of(0))
    assert (index.sort(1).values.diff(dim=1) > 0).all()
    ObservationNetwork(cells, on_grid=False).check_grid(grid)
    with pytest.raises(ValueError, match=rf"^network.p: expected p \+ withheld ≤ {cells} free of 35 grid points"):
        ObservationNetwork(cells + 1, on_grid=False).check_grid(grid)


def test_nothing_is_observed_in_a_square_void() -> None:
    grid = Grid([24, 30], extent=[6.0, 6.0])
    index, fraction, _, _ = ObservationNetwork(60, on_grid=False, void=2.5).draw(31, grid, generator_of(0))
    place = grid.position(index, fraction)
    centres = grid.position(torch.arange(grid.n), torch.zeros(grid.n, 2))
    # Somewhere there is a square of that side without any: every observation is half a side away along an axis.
    away = (place[:, None] - centres[None, :, None] + 3.0).remainder(6.0) - 3.0
    nearest = away.abs().amax(3).amin(2).amax(1)
    assert (nearest >= 1.25 - 0.125 - 1e-6).all()  # centres are tried at grid points only, half a cell off
    with pytest.raises(ValueError, match=r"^network.void: expected below the grid's extent of 6"):
        ObservationNetwork(4, void=6.0).check_grid(grid)


def test_regular_and_share_networks_take_planes() -> None:
    grid = Grid([4, 6])
    index, _, _, _ = RegularNetwork(grid, every=2, offset=1).draw(3, grid, generator_of(0))
    assert index[0].tolist() == [7, 9, 11, 19, 21, 23]
    assert ShareNetwork(grid, 0.5).slots == 12
    with pytest.raises(ValueError, match=r"^every: expected a divisor of n = 4 × 6"):
        RegularNetwork(grid, every=3)


STATIONS = [[0.5, 1.0, 0.1], [0.9, 3.0, 0.2], [0.31, 2.2, 0.3], [1.1, 0.4, 0.4]]


def test_stations_lie_where_they_are_said_to_be_with_their_errors() -> None:
    grid, g = GRIDS["bounded"], generator_of(0)
    network = StationNetwork(grid, STATIONS, withheld=1)
    index, fraction, mask, withheld = network.draw(3, grid, g)
    sigma = network.draw_sigma(ObservationError(0.7), 3, g)
    rows = torch.cat([grid.position(index, fraction)[0], sigma[0, :, None].double()], 1)
    order = rows[:, 0].argsort()
    expected = torch.tensor(sorted(STATIONS)).double()
    torch.testing.assert_close(rows[order], expected, rtol=0, atol=1e-6)
    assert torch.equal(index, index[:1].expand(3, -1))
    assert mask.sum(1).tolist() == [3.0] * 3
    assert withheld.sum(1).tolist() == [1.0] * 3
    network.check(grid, Interpolation(grid))
    with pytest.raises(ValueError, match=r"^operator: expected"):
        network.check(grid, PointValue())
    with pytest.raises(ValueError, match=r"^network.n: expected the grid of the data, 5 × 7, got"):
        network.check(GRIDS["periodic"], Interpolation(GRIDS["periodic"]))


def test_stations_of_a_csv_file_are_those_of_the_list(tmp_path: Path) -> None:
    path, grid = tmp_path / "stations.csv", GRIDS["bounded"]
    path.write_text("name, x, sigma, y\n" + "".join(f"s{k},{x},{s},{y}\n" for k, (y, x, s) in enumerate(STATIONS)))
    file, rows = StationNetwork(grid, path=str(path)), StationNetwork(grid, STATIONS)
    assert all(
        torch.equal(a, b)
        for a, b in zip(file.draw(2, grid, generator_of(0)), rows.draw(2, grid, generator_of(1)), strict=True)
    )
    assert torch.equal(
        file.draw_sigma(ObservationError(), 2, generator_of(0)), rows.draw_sigma(ObservationError(), 2, generator_of(0))
    )


def test_stations_without_errors_of_their_own_take_those_of_r() -> None:
    network = StationNetwork(13, [[0.3], [1.0]])
    assert torch.equal(network.draw_sigma(ObservationError(0.7), 3, generator_of(0)), torch.full((3, 2), 0.7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y,sigma\n1,2\n", r"^path: expected columns y, x and, if wanted, sigma in s.csv, got \['y', 'sigma'\]"),
        ("y,x\n0.5,east\n", r"^path: expected numbers in line 2 of s.csv, got \['0.5', 'east'\]"),
        ("y,x\n0.5\n", r"^path: expected numbers in line 2 of s.csv, got \['0.5', None\]"),
        ("y,x\n", "^path: expected at least one station, got 'none'"),
        ("y,x\n0.5,9\n", "^path: expected x of station 1 from 0.285714 to 3.71429, got 9"),
        ("y,x,sigma\n0.5,1,0\n", "^path: expected sigma of station 1 above 0, got 0"),
        ("y,x\nnan,1\n", "^path: expected numbers in station 1"),
    ],
)
def test_bad_file_of_stations_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        StationNetwork(GRIDS["bounded"], path=str(path))


@planes
def test_tracks_stay_in_the_domain_and_are_straight(grid: Grid) -> None:
    network = TrackNetwork(20, tracks=2, inclination=60.0, withheld=4)
    index, fraction, mask, withheld = network.draw(301, grid, generator_of(0))
    there = (mask + withheld) > 0
    assert index.min() >= 0
    assert index.max() < grid.n
    place = grid.position(index, fraction)
    assert (place >= 0).all()
    assert (place <= torch.tensor(grid.extent).double() + 1e-6).all()
    if grid.periodic[1]:
        assert there.all()
    else:
        # Tracks are as dense at the sides as in the middle: a share of width/(width + run) of each is inside.
        run = grid.extent[1] / math.tan(math.radians(60))
        share = (grid.extent[1] - grid.spacing[1]) / (grid.extent[1] + run)
        assert standard_errors(there.double().mean(1) - share).abs() < 4.5


def test_observations_of_a_track_are_evenly_spaced_on_a_line() -> None:
    grid = Grid([40, 60], extent=[2.0, 3.0])
    network = TrackNetwork(8, tracks=1, inclination=45.0)
    index, fraction, _, _ = network.draw(17, grid, generator_of(0))
    place = grid.position(index, fraction)
    place = place.gather(1, place[..., :1].argsort(1).expand_as(place))
    steps = place.diff(dim=1)
    torch.testing.assert_close(steps[..., 0], torch.full_like(steps[..., 0], 2.0 / 8), rtol=0, atol=1e-6)
    # At 45° a track moves by one width over one height, in units of the extents.
    across = steps[..., 1].remainder(3.0)
    torch.testing.assert_close(across, torch.full_like(across, 3.0 / 8), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("stations", lambda: StationNetwork(13)),
        ("stations", lambda: StationNetwork(13, [[0.1]], path="x.csv")),
        ("stations", lambda: StationNetwork(13, [[0.1, 0.2, 0.3]])),
        ("stations", lambda: StationNetwork(13, [[0.1], [0.1, 0.2]])),
        ("path", lambda: StationNetwork(13, path="no_such_file.csv")),
        ("withheld", lambda: StationNetwork(13, [[0.1]], withheld=1)),
        ("tracks", lambda: TrackNetwork(5, tracks=6)),
        ("inclination", lambda: TrackNetwork(5, tracks=1, inclination=0.0)),
        ("network", lambda: TrackNetwork(5, tracks=1).check_grid(13)),
    ],
)
def test_bad_argument_is_named(argument: str, build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
