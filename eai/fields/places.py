"""Where the values of a file lie on the Earth: a regular grid, a curvilinear one, or points."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from eai.fields.errors import FileError

Kind = Literal["regular", "curvilinear", "points"]
_NAMES = {"latitude": ("latitude", "lat", "nav_lat"), "longitude": ("longitude", "lon", "nav_lon")}
_UNITS = {
    "latitude": ("degrees_north", "degree_north", "degrees_N", "degree_N"),
    "longitude": ("degrees_east", "degree_east", "degrees_E", "degree_E"),
}


class Places(NamedTuple):
    """Coordinates of the values of one time step.

    ``dims``: the horizontal dimensions, rows before columns, one of points.
    ``latitude``, ``longitude``: degrees, of every value.
    ``kind``: of the grid.
    ``periodic``: the longitudes of a regular grid go once round the Earth.
    """

    dims: tuple[str, ...]
    latitude: np.ndarray
    longitude: np.ndarray
    kind: Kind
    periodic: bool


def places_of(dataset: Any, array: Any, time: str | None, path: Path) -> Places:
    """Find the coordinates of a variable by standard_name, units or name, in this order.

    Args:
        dataset: an xarray dataset.
        array: a variable of it.
        time: its time dimension, if it has one.
        path: of the file, for messages.

    Raises:
        FileError: there are none, they are not those of a grid or of points, or a further dimension has several levels.
    """
    dims = tuple(str(name) for name in array.dims if name != time)
    latitude, longitude = (_coordinate(dataset, array, which, path) for which in ("latitude", "longitude"))
    own = tuple(dict.fromkeys((*latitude.dims, *longitude.dims)))
    for name in dims:
        if name not in own and array.sizes[name] > 1:
            told = f"{array.name} has {array.sizes[name]} of {name!r} in {path}"
            raise FileError(f"path: expected variables with time and places alone, got {told}; select one beforehand")
    north, east = _degrees(latitude, 90.0, path), _degrees(longitude, 720.0, path)
    if north.ndim == east.ndim == 1 and latitude.dims != longitude.dims:
        shape = (len(north), len(east))
        full = np.broadcast_to(north[:, None], shape).copy(), np.broadcast_to(east, shape).copy()
        return Places(own, *full, "regular", goes_round(east))
    if latitude.dims != longitude.dims or north.ndim > 2:
        told = f"latitude on ({', '.join(latitude.dims)}), longitude on ({', '.join(longitude.dims)})"
        raise FileError(f"path: expected a grid or points, got {told} in {path}")
    return Places(own, north, east, "curvilinear" if north.ndim == 2 else "points", False)


def goes_round(longitude: np.ndarray) -> bool:
    """Whether evenly spaced longitudes (degrees) go once round: the first follows the last by one more step."""
    if len(longitude) < 3:
        return False
    unwrapped = np.unwrap(longitude, period=360)
    steps = np.diff(unwrapped)
    step = (unwrapped[-1] - unwrapped[0]) / (len(longitude) - 1)
    even = bool((np.abs(steps - step) < 0.01 * abs(step)).all())
    return even and bool(abs(abs(len(longitude) * step) - 360) < 0.01 * abs(step))


def _coordinate(dataset: Any, array: Any, which: str, path: Path) -> Any:
    """The coordinate whose dimensions are among the array's."""
    found = {
        str(name): variable
        for name, variable in dataset.variables.items()
        if variable.ndim >= 1 and set(variable.dims) <= set(array.dims) and name != array.name
    }
    told = (
        lambda name, attributes: attributes.get("standard_name") == which,
        lambda name, attributes: attributes.get("units") in _UNITS[which],
        lambda name, attributes: name.lower() in _NAMES[which],
    )
    for fits in told:
        for name, variable in found.items():
            if fits(name, variable.attrs):
                return dataset[name]
    expected = f"a coordinate with standard_name {which!r} or units {_UNITS[which][0]!r}"
    raise FileError(f"path: expected {expected}, got none for {array.name} in {path}")


def _degrees(coordinate: Any, largest: float, path: Path) -> np.ndarray:
    values = np.asarray(coordinate.values, dtype=np.float64)
    if not (np.abs(values) <= largest * (1 + 1e-6)).all():
        raise FileError(f"path: expected degrees up to {largest:g} in {coordinate.name}, got others in {path}")
    return values
