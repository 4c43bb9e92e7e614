"""Small files of fields, each value of which tells where it is: step, row and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

LATITUDE, LONGITUDE = np.array([-10.0, 0.0, 10.0]), np.array([0.0, 72.0, 144.0, 216.0, 288.0])


def values_of(steps: np.ndarray | range, rows: int = 3, columns: int = 5) -> np.ndarray:
    """100 t + 10 row + column at step t."""
    step, row, column = (np.arange(n) for n in (len(steps), rows, columns))
    return np.array(steps, dtype=np.float32)[step][:, None, None] * 100 + 10.0 * row[:, None] + column


def dataset(steps: range = range(7), units: str = "days since 2001-01-30", calendar: str = "standard") -> xr.Dataset:
    """``sst`` in K and ``ice`` without units on a grid of 3 × 5 once round the Earth, daily."""
    time = ("time", np.array(steps, dtype=np.float64), {"units": units, "calendar": calendar})
    values = values_of(steps)
    dims = ("time", "lat", "lon")
    return xr.Dataset(
        {
            "sst": (dims, values.astype(np.float32), {"units": "K", "long_name": "sea-surface temperature"}),
            "ice": (dims, -values.astype(np.float32)),
        },
        coords={
            "time": time,
            "lat": ("lat", LATITUDE, {"units": "degrees_north"}),
            "lon": ("lon", LONGITUDE, {"units": "degrees_east"}),
        },
    )


def written(content: xr.Dataset, path: Path, **how: Any) -> str:
    """Write a dataset as its name demands, .nc or .zarr; gives the path as text."""
    if path.suffix == ".zarr":
        content.to_zarr(path, zarr_format=2, consolidated=False)
    else:
        content.to_netcdf(path, engine="netcdf4", **how)
    return str(path)
