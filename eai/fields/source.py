"""One file of fields: opened, found to be what it should be, and described."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eai.fields.errors import FileError
from eai.fields.places import Places, places_of
from eai.fields.times import decoded_times

# What reading a file that is damaged, or no such file, raises in xarray, netCDF4, HDF5 and zarr.
UNREADABLE = (OSError, RuntimeError, ValueError, KeyError, EOFError)


@dataclass(frozen=True)
class Source:
    """What one file holds of the variables asked for.

    Args:
        path: of the file.
        time: name of the time dimension; None where the file holds a single time step without one.
        times: of its steps.
        places: where the values lie.
        units, long_names: of each variable.
    """

    path: Path
    time: str | None
    times: np.ndarray
    places: Places
    units: tuple[str, ...]
    long_names: tuple[str, ...]


def open_dataset(path: Path) -> Any:
    """The file as an xarray dataset, nothing read: missing values are NaN, times are still numbers.

    Raises:
        FileError: it cannot be read, or xarray is absent.
    """
    try:
        import xarray as xr

        __import__("zarr" if path.suffix == ".zarr" else "netCDF4")
    except ImportError as error:
        raise FileError(f"path: expected the package {error.name} to read files; pip install 'eai[data]'") from error
    how: dict[str, Any] = {"engine": "netcdf4"}
    if path.suffix == ".zarr":
        how = {"engine": "zarr", "backend_kwargs": {"consolidated": False}}
    with reading(path):
        dataset = xr.open_dataset(path, decode_times=False, cache=False, **how)
    _check_whole(dataset, path)
    return dataset


def _check_whole(dataset: Any, path: Path) -> None:
    """Refuse a file of the classic format that is shorter than its values: the library reads zeros beyond its end."""
    if path.is_dir():
        return
    with path.open("rb") as file:
        if file.read(3) != b"CDF":
            return
    stored = [variable.encoding.get("dtype", variable.dtype) for variable in dataset.variables.values()]
    sizes = [variable.size for variable in dataset.variables.values()]
    least = sum(size * np.dtype(kind).itemsize for size, kind in zip(sizes, stored, strict=True))
    if path.stat().st_size < least:
        dataset.close()
        raise FileError(f"path: expected a whole file of at least {least} bytes, got {path}, which is truncated")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises while it is read into one line.

    Args:
        path: of the file.
    """
    try:
        yield
    except FileError:
        raise
    except UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FileError(f"path: expected a readable NetCDF file or Zarr folder, got {path} ({reason})") from error


def described(path: Path, variables: Sequence[str]) -> Source:
    """Find the variables of a file, their time axis and their places.

    Args:
        path: of the file.
        variables: their names.

    Raises:
        FileError: says what is missing, or in which way the variables do not go together.
    """
    dataset = open_dataset(path)
    with dataset, reading(path):
        arrays = [_variable(dataset, name, path) for name in variables]
        time, times = decoded_times(dataset, arrays[0], path)
        places = [places_of(dataset, array, time, path) for array in arrays]
        for name, array, place in zip(variables, arrays, places, strict=True):
            if (time is not None) != (time in array.dims) or place.dims != places[0].dims:
                dims = f"{variables[0]} has ({', '.join(arrays[0].dims)}), {name} ({', '.join(array.dims)})"
                raise FileError(f"path: expected variables on the same grid and times, got {path}, where {dims}")
        attributes = [array.attrs for array in arrays]
    units = tuple(str(found.get("units", "1")) for found in attributes)
    named = zip(variables, attributes, strict=True)
    long = tuple(str(found.get("long_name", found.get("standard_name", name))) for name, found in named)
    return Source(path, time, times, places[0], units, long)


def _variable(dataset: Any, name: str, path: Path) -> Any:
    if name not in dataset.variables:
        known = ", ".join(sorted(str(key) for key in dataset.data_vars))
        raise FileError(f"path: expected a file with the variable {name!r}, got {path}, which has {known}")
    array = dataset[name]
    if array.dtype.kind not in "fiu":
        raise FileError(f"path: expected numbers in {name}, got {array.dtype} in {path}")
    return array
