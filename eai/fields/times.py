"""The time axis of a file: numbers, units and calendar to dates; seasons; dates that a user types."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from eai.fields.errors import FileError

CALENDARS = ("standard", "gregorian", "proleptic_gregorian", "noleap", "365_day", "360_day", "julian", "all_leap",
             "366_day")  # fmt: skip


def decoded_times(dataset: Any, array: Any, path: Path) -> tuple[str | None, np.ndarray]:
    """The name of an array's time dimension and its times; None for the one time of an array without it.

    Args:
        dataset: an xarray dataset whose times are still numbers.
        array: a variable of it.
        path: of the file, for messages.

    Returns:
        The times are numpy's datetime64, or cftime objects in calendars that it does not know.

    Raises:
        FileError: there is no time axis, its calendar is unknown, or its times are missing, unsorted or equal.
    """
    axis = next((name for name in array.dims if _is_time(dataset, name)), None)
    scalar = next(
        (name for name in array.coords if array[name].ndim == 0 and _tells_time(array[name], str(name))), None
    )
    name = axis or scalar
    if name is None:
        told = f"{array.name} has the dimensions ({', '.join(map(str, array.dims))})"
        raise FileError(f"path: expected a time axis with units such as 'days since 2000-01-01', got {path}: {told}")
    return (None if axis is None else str(axis)), checked_times(_decode(dataset, str(name), path), str(path))


def _is_time(dataset: Any, name: Any) -> bool:
    return name in dataset.variables and dataset[name].ndim == 1 and " since " in str(dataset[name].attrs.get("units"))


def _tells_time(coordinate: Any, name: str) -> bool:
    is_time = name == "time" or coordinate.attrs.get("standard_name") == "time" or coordinate.attrs.get("axis") == "T"
    return is_time and " since " in str(coordinate.attrs.get("units"))


def _decode(dataset: Any, name: str, path: Path) -> np.ndarray:
    import xarray as xr

    calendar = str(dataset[name].attrs.get("calendar", "standard")).lower()
    if calendar not in CALENDARS:
        raise FileError(f"path: expected a calendar of {', '.join(CALENDARS)}, got {calendar!r} in {path}")
    numbers = np.atleast_1d(dataset[name].values)
    if not np.isfinite(numbers.astype(np.float64)).all():
        raise FileError(f"path: expected a time for every step, got {path}, where some are missing")
    one = xr.Dataset(coords={name: (name, numbers, dataset[name].attrs)})
    try:
        return xr.decode_cf(one, decode_times=xr.coders.CFDatetimeCoder(time_unit="s"))[name].values
    except (ValueError, OverflowError) as error:
        units = dataset[name].attrs["units"]
        raise FileError(f"path: expected times that are dates, got units {units!r} in {path}") from error


def checked_times(times: np.ndarray, where: str) -> np.ndarray:
    """The times, if each is later than the one before.

    Args:
        times: of all steps.
        where: the file or files, for messages.

    Raises:
        FileError: names the first pair that is equal or in the wrong order.
    """
    if len(times) == 0:
        raise FileError(f"path: expected at least one time step, got none in {where}")
    wrong = np.flatnonzero(~np.asarray(times[1:] > times[:-1], dtype=bool))
    if len(wrong):
        before, now = times[wrong[0]], times[wrong[0] + 1]
        told = f"{now} twice" if before == now else f"{now} after {before}"
        raise FileError(f"path: expected times in order, each once, got {told} in {where}")
    return times


def months_of(times: np.ndarray) -> np.ndarray:
    """The month of each time, 1 to 12."""
    if times.dtype.kind == "M":
        return times.astype("M8[M]").astype(np.int64) % 12 + 1
    return np.array([time.month for time in times], dtype=np.int64)


def seasons_of(times: np.ndarray) -> np.ndarray:
    """How much of its calendar year has passed at each time, 0 to 1."""
    if times.dtype.kind == "M":
        year = times.astype("M8[Y]")
        start, end = year.astype("M8[ms]"), (year + 1).astype("M8[ms]")
        return (times.astype("M8[ms]") - start) / (end - start)
    start_of_year = {"month": 1, "day": 1, "hour": 0, "minute": 0, "second": 0, "microsecond": 0}
    passed = []
    for time in times:
        start = time.replace(**start_of_year)
        passed.append((time - start) / (start.replace(year=time.year + 1) - start))
    return np.array(passed)


def date_like(times: np.ndarray, name: str, text: str) -> Any:
    """A date that a user typed, comparable with the times of a file.

    Args:
        times: of the file.
        name: of the argument, for messages.
        text: as ``2009-01-31``.

    Raises:
        ValueError: the text is no date of the file's calendar.
    """
    parts = re.fullmatch(r"(\d{4})-(\d{2})(?:-(\d{2}))?", str(text))
    try:
        if parts is None:
            raise ValueError
        if times.dtype.kind == "M":
            return np.datetime64(text)
        return times[0].replace(
            year=int(parts[1]), month=int(parts[2]), day=int(parts[3] or 1), hour=0, minute=0, second=0, microsecond=0
        )
    except ValueError as error:
        raise ValueError(f"{name}: expected a date such as 2009-01-31, got {text!r}") from error


def minutes_since_first(times: np.ndarray) -> tuple[np.ndarray, str, str]:
    """Times as numbers (float64), their units and their calendar, as CF writes them.

    Args:
        times: numpy's datetime64, or cftime objects.
    """
    first = times[0]
    if times.dtype.kind == "M":
        minutes = (times - first) / np.timedelta64(1, "m")
        return minutes, f"minutes since {np.datetime_as_string(first, 's').replace('T', ' ')}", "standard"
    minutes = np.array([(time - first).total_seconds() / 60 for time in times])
    return minutes, f"minutes since {first.isoformat(sep=' ')}", str(first.calendar)
