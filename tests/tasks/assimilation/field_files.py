"""Small files of fields for OSSEs, and the data that are made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from eai.tasks.assimilation.backgrounds import Lagged
from eai.tasks.assimilation.file_covariance import FileNMCCovariance
from eai.tasks.assimilation.file_states import FileGrid, FileStates
from eai.tasks.assimilation.osse import OSSE
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation

NY, NX, STEPS = 9, 11, 72
LATITUDE, LONGITUDE = np.linspace(60.0, 20.0, NY), np.linspace(-30.0, 20.0, NX)  # southwards, across Greenwich


def months(count: int = STEPS) -> np.ndarray:
    """Months from January 2001."""
    return np.arange(np.datetime64("2001-01"), np.datetime64("2001-01") + count).astype("M8[ns]")


def weather(seed: int = 0, count: int = STEPS) -> np.ndarray:
    """280 K, a season of 8 K, and smooth anomalies of about 1 K that last."""
    noise = np.random.default_rng(seed).normal(size=(count, NY, NX))
    smooth = sum(np.roll(noise, (a, b), (1, 2)) for a in range(3) for b in range(3)) / 3
    for step in range(1, count):
        smooth[step] = 0.6 * smooth[step - 1] + 0.8 * smooth[step]
    season = 8 * np.cos(2 * np.pi * np.arange(count) / 12)[:, None, None]
    return 280 + season + smooth


def write(path: Path, values: np.ndarray, longitude: np.ndarray = LONGITUDE, units: str = "K") -> str:
    """A file of t (time, lat, lon), monthly."""
    content = xr.Dataset(
        {"t": (("time", "lat", "lon"), values.astype(np.float32), {"units": units, "long_name": "temperature"})},
        {
            "time": months(len(values)),
            "lat": ("lat", LATITUDE, {"units": "degrees_north"}),
            "lon": ("lon", longitude, {"units": "degrees_east"}),
        },
    )
    content.to_netcdf(path)
    return str(path)


def states_of(path: str, grid: FileGrid | None = None, **arguments: Any) -> FileStates:
    return FileStates(path, "t", grid or FileGrid(path, "t"), **arguments)


def data_of(path: str, grid: FileGrid | None = None, **arguments: Any) -> OSSE:
    """An OSSE of few samples; B with a length of 3,000 km and 5 observations between grid points."""
    grid = grid or FileGrid(path, "t")
    periods = {name: arguments[name] for name in ("val_share", "test_share", "gap", "climatology") if name in arguments}
    given: dict[str, Any] = {
        "covariance": arguments.get("covariance") or FileNMCCovariance(states_of(path, grid, **periods)),
        "operator": Interpolation(grid),
        "obs_error": ObservationError(0.3),
        "network": ObservationNetwork(5, on_grid=False, withheld=2),
        "background": Lagged(1),
        "n_train": 31,
        "n_val": 7,
        "n_test": 13,
    }
    return OSSE(path, "t", grid, **{**given, **arguments})
