"""Small NetCDF files with fields that are known, for the tests of data from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

LATITUDE = np.linspace(35.0, 59.0, 5)
LONGITUDE = np.linspace(2.0, 20.0, 7)


def times(count: int, unit: str = "D", left_out: slice | None = None) -> np.ndarray:
    """Days, or months (M), from the beginning of 2001, without those in ``left_out``."""
    found = np.datetime64("2001-01", unit) + np.arange(count)
    whole = found.astype("datetime64[ns]")
    return whole if left_out is None else np.delete(whole, left_out)


def write(path: Path, when: np.ndarray, **values: np.ndarray) -> str:
    """A file of variables (time, latitude, longitude) in kelvin, on a bounded grid of 5 × 7.

    Args:
        path: of the new file.
        when: the times.
        values: by name of the variable.
    """
    dims = ("time", "latitude", "longitude")
    fields = {name: (dims, field.astype(np.float32), {"units": "K"}) for name, field in values.items()}
    places = {
        "latitude": ("latitude", LATITUDE, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": ("longitude", LONGITUDE, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    xr.Dataset(fields, coords={"time": when, **places}).to_netcdf(path)
    return str(path)


def write_curvilinear(path: Path, when: np.ndarray, values: np.ndarray) -> str:
    """A file of t (time, y, x) in kelvin, on the grid of 5 × 7 turned by 20 degrees."""
    north, east = np.meshgrid(LATITUDE, LONGITUDE, indexing="ij")
    turn = np.radians(20)
    latitude = 47 + np.cos(turn) * (north - 47) - np.sin(turn) * (east - 11)
    longitude = 11 + np.sin(turn) * (north - 47) + np.cos(turn) * (east - 11)
    return _write_places(path, when, values, ("y", "x"), latitude, longitude)


def write_points(path: Path, when: np.ndarray, values: np.ndarray) -> str:
    """A file of t (time, station) in kelvin, at as many places as there are values, on a spiral."""
    count = values.shape[1]
    latitude, longitude = np.linspace(-60, 75, count), np.linspace(170, 610, count) % 360
    return _write_places(path, when, values, ("station",), latitude, longitude)


def _write_places(
    path: Path, when: np.ndarray, values: np.ndarray, dims: tuple[str, ...], latitude: np.ndarray, longitude: np.ndarray
) -> str:
    places = {
        "latitude": (dims, latitude, {"units": "degrees_north", "standard_name": "latitude"}),
        "longitude": (dims, longitude, {"units": "degrees_east", "standard_name": "longitude"}),
    }
    fields = {"t": (("time", *dims), values.astype(np.float32), {"units": "K", "coordinates": "latitude longitude"})}
    xr.Dataset(fields, coords={"time": when, **places}).to_netcdf(path)
    return str(path)


def noise(count: int, seed: int = 0) -> np.ndarray:
    """Independent standard normal numbers (count, 5, 7)."""
    return np.random.default_rng(seed).standard_normal((count, len(LATITUDE), len(LONGITUDE)))


def of_time(when: np.ndarray) -> np.ndarray:
    """A field (time, 5, 7) that stores its own time, in days since the first, at every place."""
    days = (when - when[0]) / np.timedelta64(1, "D")
    return np.broadcast_to(days[:, None, None], (len(days), len(LATITUDE), len(LONGITUDE))).copy()
