"""States from a user's own file: one variable on a regular grid, or a box of it, as scaled anomalies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.fields import open_fields
from eai.fields.paths import stamps_of
from eai.fields.periods import Periods, runs_without_gap, split_times
from eai.tasks.assimilation.elsewhere import CHECKPOINT, Scaling, found_in, matrices_of, scaling_of
from eai.variational.geographic import ROUNDING, GeographicGrid

KEPT = 2**29  # bytes of states that are held in memory; of larger ones what a batch needs is read each time


class FileGrid(GeographicGrid):
    """The regular grid of latitudes and longitudes in a file, or a box of it.

    Args:
        path: a NetCDF file, a Zarr folder, a folder of NetCDF files, a pattern of names, or
            ``package:<package>/<file inside>``. Where it is absent, a checkpoint (.ckpt) of a run on it, which knows
            its grid.
        variable: its name.
        latitude: [south, north] of the box, degrees; null: all.
        longitude: [west, east] of the box, degrees, which may cross the seam of the file; null: all.

    Attributes:
        rows, columns: of the file, in the order of the grid.

    Raises:
        ValueError: the file has another kind of grid, or the box fewer than two rows or columns.
    """

    def __init__(
        self,
        path: str,
        variable: str,
        latitude: Sequence[float] | None = None,
        longitude: Sequence[float] | None = None,
    ) -> None:
        if path.endswith(CHECKPOINT):
            known = scaling_of(found_in(path)).grid
            super().__init__(known.latitude.tolist(), known.longitude.tolist(), known.periodic[1])
            return
        fields = open_fields(path, [variable])
        require(fields.kind == "regular", "path", "a regular grid of latitudes and longitudes", fields.kind)
        north, east = fields.latitude[:, 0], np.unwrap(fields.longitude[0], period=360)
        near_north, near_east = (ROUNDING * abs(float(axis[1] - axis[0])) for axis in (north, east))
        self.rows, self.columns = np.argsort(north), np.argsort(east)
        if latitude is not None:
            require(len(latitude) == 2 and latitude[0] < latitude[1], "latitude", "null or [south, north]", latitude)
            low, high = latitude[0] - near_north, latitude[1] + near_north
            self.rows = self.rows[(north[self.rows] >= low) & (north[self.rows] <= high)]
        if longitude is not None:
            require(
                len(longitude) == 2 and longitude[0] != longitude[1], "longitude", "null or [west, east]", longitude
            )
            west, width = longitude[0], (longitude[1] - longitude[0]) % 360 or 360.0
            from_west = (east - west) % 360
            from_west = np.where(from_west > 360 - near_east, from_west - 360, from_west)
            self.columns = np.argsort(from_west)
            self.columns = self.columns[from_west[self.columns] <= width + near_east]
            east = west + from_west
        # A file may have the same meridian at both ends.
        apart = np.diff(east[self.columns], prepend=-np.inf) > near_east
        self.columns = self.columns[apart]
        if len(self.columns) > 1 and east[self.columns[-1]] - east[self.columns[0]] > 360 - near_east:
            self.columns = self.columns[:-1]
        for name, axis, degrees, chosen in (
            ("latitude", self.rows, north, latitude),
            ("longitude", self.columns, east, longitude),
        ):
            told = f"a box with at least two of the file's {name}s, {degrees.min():g} to {degrees.max():g}"
            require(len(axis) >= 2, name, told, chosen)
        turn = east[self.columns[-1]] - east[self.columns[0]] + np.diff(east[self.columns]).mean()
        periodic = bool(abs(turn - 360) <= near_east)
        super().__init__(north[self.rows].tolist(), east[self.columns].tolist(), periodic)


class FileStates:
    """x = (v − c)/σ: anomalies of a variable v from its climatology c in the training period, over one σ for all.

    σ is the standard deviation of the training anomalies, all places and times alike. A file with missing values at
    places of the grid is refused. Values are read when they are needed.

    Args:
        path, variable: of the file, see :class:`FileGrid`; a checkpoint knows ``scaling`` and B, but no values.
        n: the grid.
        val_share, test_share, val_from, test_from, gap: see :func:`eai.fields.periods.split_times`.
        climatology: ``month``, one of each month of the year, or ``mean``, one for all times.

    Attributes:
        fields: of the file.
        periods: time steps of the three splits.
        grid: of the states.
        scaling: c and σ.
        month: of each time step, the row of c.
        estimates: of a checkpoint, the B that were estimated from the file, by the names of their classes.
        of_checkpoint: whether they are of a checkpoint, without values.
        identity: of file, grid, periods and climatology, or of the checkpoint.

    States are equal where they come from the same file, unchanged, by the same arguments.

    Raises:
        ValueError: the file is not such data.
    """

    def __init__(
        self,
        path: str,
        variable: str,
        n: FileGrid,
        val_share: float = 0.15,
        test_share: float = 0.15,
        val_from: str | None = None,
        test_from: str | None = None,
        gap: int = 0,
        climatology: Literal["month", "mean"] = "month",
    ) -> None:
        require(climatology in ("month", "mean"), "climatology", "month or mean", climatology)
        self.grid, self.estimates = n, dict[str, Tensor]()
        if path.endswith(CHECKPOINT):
            found = found_in(path)
            self.scaling, self.estimates = scaling_of(found), matrices_of(found)
            self.identity: tuple[Any, ...] = (stamps_of(path), path)
            self.of_checkpoint = True
            return
        self.of_checkpoint = False
        self.fields = open_fields(path, [variable])
        self.periods: Periods = split_times(self.fields, val_share, test_share, val_from, test_from, gap)
        self.by_month = climatology == "month"
        self.month = self.fields.months - 1 if self.by_month else np.zeros(len(self.fields), dtype=np.int64)
        self.identity = (stamps_of(path), path, variable, n, *map(len, self.periods), gap, climatology)
        mean, sigma = _statistics(self)
        self.scaling = Scaling(variable, n, torch.from_numpy(mean), sigma)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileStates) and (self.identity == other.identity)

    def __hash__(self) -> int:
        return hash(self.identity)

    @property
    def sigma(self) -> float:
        """σ, in the variable's units."""
        return self.scaling.sigma

    def blocks(self, steps: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Time steps and the values there, float64 (b, n), in the variable's units, a part of the file at a time.

        Args:
            steps: numbers of time steps.
        """
        for block in self.fields.blocks(steps):
            values = self.fields.read(block)[:, 0][:, self.grid.rows][:, :, self.grid.columns]
            yield block, values.reshape(len(block), -1).astype(np.float64)
        self.fields.close()

    def read(self, steps: np.ndarray) -> Float[Tensor, "b n"]:
        """x at so many time steps, in this order; float32.

        Args:
            steps: numbers of time steps, also repeated.
        """
        wanted, place = np.unique(steps, return_inverse=True)
        held = _held(self)
        if held is None or not np.isin(wanted, held[0]).all():
            return self.scaled(wanted)[torch.from_numpy(place)]
        known, x = held
        return x[torch.from_numpy(np.searchsorted(known, steps))]

    def scaled(self, steps: np.ndarray) -> Float[Tensor, "b n"]:
        """x at different time steps, from the file.

        Args:
            steps: numbers of time steps, increasing.
        """
        found = torch.empty(len(steps), self.grid.n)
        for block, values in self.blocks(steps):
            x = (torch.from_numpy(values) - self.climatology(block)) / self.sigma
            found[np.searchsorted(steps, block)] = x.float()
        return found

    def climatology(self, steps: np.ndarray) -> Float[Tensor, "b n"]:
        """c at so many time steps, in the variable's units, float64.

        Args:
            steps: numbers of time steps.
        """
        return self.scaling.mean[self.month[steps]]

    def later(self, period: np.ndarray, lag: int) -> np.ndarray:
        """The steps of a period that follow ``lag`` others of it without a gap in time.

        Args:
            period: numbers of time steps.
            lag: 0 or more.
        """
        runs = runs_without_gap(self.fields.times, period)
        return np.concatenate([run[lag:] for run in runs]) if runs else period[:0]


@lru_cache(maxsize=1)
def _held(states: FileStates) -> tuple[np.ndarray, Float[Tensor, "t n"]] | None:
    """The states of all periods, if there is room for them in memory: time steps, and x at them."""
    steps = np.concatenate(states.periods)
    return (steps, states.scaled(steps)) if 4 * len(steps) * states.grid.n <= KEPT else None


@lru_cache(maxsize=2)  # data, cost and net ask for the same states
def _statistics(states: FileStates) -> tuple[np.ndarray, float]:
    """c and σ, in one pass over the training period; refuses missing values of any period."""
    name, steps = states.fields.variables[0], np.concatenate(states.periods)
    missing = np.zeros(states.grid.n, dtype=bool)
    for _, values in states.blocks(steps):
        missing |= ~np.isfinite(values).all(0)
    told = f"{name} without some at {missing.sum()} of {missing.size} places"
    where = "choose a box without them by data.n.latitude and data.n.longitude"
    require(not missing.any(), "variable", f"a value at every place and time ({where})", told)
    months = 12 if states.by_month else 1
    total, count = np.zeros((months, states.grid.n)), np.zeros(months, dtype=np.int64)
    shift, squares = np.zeros(states.grid.n), 0.0
    for block, values in states.blocks(states.periods.train):
        if not count.any():
            shift = values[0]  # keeps digits in the difference of squares
        np.add.at(total, states.month[block], values - shift)
        np.add.at(count, states.month[block], 1)
        squares += float(np.square(values - shift).sum())
    known = bool((count[np.unique(states.month[steps])] > 0).all() and count.sum() > (count > 0).sum())
    told = f"a training period of {count.sum()} steps in {(count > 0).sum()} months"
    require(known, "climatology", "mean, or a training period with every month, one of them twice", told)
    mean = total / np.maximum(count, 1)[:, None]
    free = int(count.sum() - (count > 0).sum()) * states.grid.n
    variance = (squares - float((total * mean).sum())) / free
    varies = variance > 1e-12 * max(squares / free, 1e-30)
    require(varies, "variable", "values that differ from their climatology", f"{name}, constant")
    mean = np.where(count[:, None] > 0, mean + shift, np.nan)
    return mean, variance**0.5
