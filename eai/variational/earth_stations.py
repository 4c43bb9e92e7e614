"""Stations on the Earth, from a CSV file of latitudes and longitudes."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from eai.core.errors import require
from eai.variational.geographic import GeographicGrid
from eai.variational.stations import StationNetwork, read_stations


class EarthStations(StationNetwork):
    """Fixed places on the Earth, each with the standard deviation of its error where that is given.

    Args:
        n: the grid of latitudes and longitudes.
        path: a CSV file with the columns lat, lon (degrees; longitudes of −180 to 360) and, if wanted, sigma (in the
            variable's units), named in its first line.
        withheld: number of stations, chosen at random once, that are not assimilated, for verification.

    Raises:
        ValueError: there is no such file, a row is no station, or stations lie outside of the grid.
    """

    def __init__(self, n: GeographicGrid, path: str, withheld: int = 0) -> None:
        require(isinstance(n, GeographicGrid), "n", "a grid of latitudes and longitudes", n)
        rows = read_stations(Path(path), ("lat", "lon"))
        require(len(rows) >= 1, "path", "at least one station", "none")
        for number, (north, east, *sigma) in enumerate(rows, 1):
            numbers = all(map(math.isfinite, (north, east, *sigma)))
            right = numbers and abs(north) <= 90 and -180 <= east <= 360 and all(one > 0 for one in sigma)
            require(right, "path", f"degrees, and sigma above 0, in station {number}", [north, east, *sigma])
        latitude, longitude = torch.tensor([row[:2] for row in rows], dtype=torch.float64).unbind(1)
        inside = n.contains(latitude, longitude)
        edges = (f"{axis[0]:g} to {axis[-1]:g}" for axis in (n.latitude.tolist(), n.longitude.tolist()))
        told = "stations with lat {} and lon {}, the grid's edges".format(*edges)
        first = rows[int((~inside).int().argmax())][:2]
        require(bool(inside.all()), "path", told, f"{int((~inside).sum())} outside, the first at {first}")
        index, fraction = n.locate_degrees(latitude, longitude)
        place = n.position(index, fraction)
        super().__init__(n, [[*at, *row[2:]] for at, row in zip(place.tolist(), rows, strict=True)], withheld=withheld)
