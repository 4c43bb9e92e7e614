"""Several variables over time, in one or many files, read a few time steps at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from eai.core.errors import require
from eai.fields.errors import FileError
from eai.fields.paths import files_of
from eai.fields.source import Source, described, open_dataset, reading
from eai.fields.times import checked_times, months_of, seasons_of

BLOCK = 2**26  # bytes of values that are read at once


class Fields:
    """Fields of a user's files, one after the other in time. Nothing but coordinates is held in memory.

    At most one file is open at a time; a copy in another process opens its own.

    Args:
        sources: the files, described, in the order of their times.
        variables: names of the variables, which become channels.

    Attributes:
        variables, units, long_names: of each channel; the units ``1`` where the file tells none.
        times: of each step, numpy's datetime64, or cftime objects in calendars that it does not know; in order, each
            once.
        months: 1 to 12, of each step.
        season: how much of the year has passed at each step, 0 to 1.
        shape: (ny, nx) of a regular or curvilinear grid, (n,) of points.
        latitude, longitude: of every place, degrees.
        kind: ``regular``, ``curvilinear`` or ``points``.
        periodic: the longitudes of a regular grid go once round the Earth.
    """

    def __init__(self, sources: Sequence[Source], variables: Sequence[str]) -> None:
        first = sources[0]
        self.variables, self.units, self.long_names = tuple(variables), first.units, first.long_names
        self._sources = list(sources)
        lengths = [len(source.times) for source in sources]
        self._file = np.repeat(np.arange(len(sources)), lengths)
        self._step = np.concatenate([np.arange(length) for length in lengths])
        self.times = np.concatenate([source.times for source in sources])
        self.months, self.season = months_of(self.times), seasons_of(self.times)
        self.latitude, self.longitude = first.places.latitude, first.places.longitude
        self.shape: tuple[int, ...] = first.places.latitude.shape
        self.kind, self.periodic = first.places.kind, first.places.periodic
        self._open: tuple[int, Any] | None = None

    def __len__(self) -> int:
        return len(self.times)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": None}

    def close(self) -> None:
        """Close the file that is open, if one is; the next :meth:`read` opens it again."""
        if self._open is not None:
            self._open[1].close()
        self._open = None

    def blocks(self, steps: np.ndarray) -> Iterator[np.ndarray]:
        """Divide steps into blocks of at most 64 MiB of values, or of one step: to read a large file piece by piece.

        Args:
            steps: in the order of reading.
        """
        at_once = max(1, BLOCK // (4 * len(self.variables) * int(np.prod(self.shape))))
        for first in range(0, len(steps), at_once):
            yield steps[first : first + at_once]

    def read(self, steps: Sequence[int] | np.ndarray) -> np.ndarray:
        """The fields at so many time steps, in this order: float32 (len(steps), c, *shape), NaN where missing.

        Args:
            steps: numbers of time steps, from 0; in any order, also repeated. Each is read once.

        Raises:
            IndexError: there is no such step.
            FileError: a file is damaged.
        """
        wanted = np.asarray(steps, dtype=np.int64).reshape(-1)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"expected steps of 0 to {len(self) - 1}, got {wanted.min()} to {wanted.max()}")
        values = np.empty((len(wanted), len(self.variables), *self.shape), dtype=np.float32)
        for file in np.unique(self._file[wanted]):
            here = self._file[wanted] == file
            inside, place = np.unique(self._step[wanted[here]], return_inverse=True)
            values[here] = self._read_file(int(file), inside)[place]
        return values

    def _read_file(self, file: int, steps: np.ndarray) -> np.ndarray:
        source = self._sources[file]
        if self._open is None or self._open[0] != file:
            self.close()
            self._open = (file, open_dataset(source.path))
        dims = source.places.dims
        with reading(source.path):
            found = []
            for name in self.variables:
                array = self._open[1][name]
                if source.time is not None:
                    array = array.isel({source.time: steps})
                single = [dim for dim in array.dims if dim not in (source.time, *dims)]
                ordered = array.isel(dict.fromkeys(single, 0)).transpose(*filter(None, (source.time,)), *dims)
                found.append(np.asarray(ordered.values, dtype=np.float32).reshape(len(steps), *self.shape))
        return np.stack(found, axis=1)


def open_fields(path: str, variables: Sequence[str]) -> Fields:
    """Open files of fields, and check all of them before anything is computed.

    Read are coordinates alone, and of the values the first step that holds any.

    Args:
        path: see :func:`eai.fields.paths.files_of`.
        variables: names of the variables, which become channels; at least one.

    Raises:
        MissingFileError: there is no such file.
        FileError: a file cannot be read, lacks a variable, a time axis or places, its calendar is unknown, times are
            not in order or occur twice, files differ in units, grid or calendar, or all values of a variable are
            missing.
    """
    require(len(variables) > 0, "variables", "at least one name", list(variables))
    sources = [described(file, variables) for file in files_of(path)]
    for source in sources[1:]:
        _check_alike(sources[0], source)
    sources.sort(key=lambda source: source.times[0])
    fields = Fields(sources, variables)
    checked_times(fields.times, path)
    _check_any_value(fields, path)
    fields.close()
    return fields


def _check_alike(first: Source, other: Source) -> None:
    def refuse(what: str, one: object, two: object) -> FileError:
        return FileError(f"path: expected {what} in all files, got {one} in {first.path} and {two} in {other.path}")

    if first.units != other.units:
        raise refuse("the same units", ", ".join(first.units), ", ".join(other.units))
    calendars = [_calendar(source.times) for source in (first, other)]
    if calendars[0] != calendars[1]:
        raise refuse("the same calendar", *calendars)
    one, two = first.places, other.places
    if one.latitude.shape != two.latitude.shape:
        raise refuse("the same grid", one.latitude.shape, two.latitude.shape)
    if not (np.allclose(one.latitude, two.latitude) and np.allclose(one.longitude, two.longitude)):
        raise refuse("the same latitudes and longitudes", "some", "others")


def _calendar(times: np.ndarray) -> str:
    return "standard" if times.dtype.kind == "M" else str(times[0].calendar)


def _check_any_value(fields: Fields, path: str) -> None:
    """Look for one value of each variable; only where all are missing is everything read."""
    seen = np.zeros(len(fields.variables), dtype=bool)
    for step in range(len(fields)):
        seen |= np.isfinite(fields.read([step])[0].reshape(len(seen), -1)).any(axis=1)
        if seen.all():
            return
    missing = [name for name, found in zip(fields.variables, seen, strict=True) if not found]
    raise FileError(f"path: expected values of {', '.join(missing)}, got {path}, where all are missing")
