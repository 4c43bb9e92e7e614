"""Observations that stay where they are: stations, from a list or a CSV file."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eai.core.errors import MissingFileError, require
from eai.variational.grid import Grid, as_grid
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError

NAMES = {1: ("x",), 2: ("y", "x")}


class StationNetwork(ObservationNetwork):
    """Fixed places, each with the standard deviation of its error where that is given.

    Coordinates are in the unit of the grid's extent, along its axes: y and x on a plane, x on a ring or line. On a
    bounded axis they lie between the outermost grid points.

    Args:
        n: number of points of a ring, or the grid.
        stations: rows [y, x] or [y, x, σ] ([x] or [x, σ] in one dimension); null: read from ``path``.
        path: a CSV file with the columns y, x and, if wanted, sigma, named in its first line; null: see ``stations``.
        withheld: number of stations, chosen at random once, that are not assimilated, for verification.
    """

    def __init__(
        self,
        n: int | Grid,
        stations: Sequence[Sequence[float]] | None = None,
        path: str | None = None,
        withheld: int = 0,
    ) -> None:
        require((stations is None) != (path is None), "stations", "either a list of stations or a path",
                "both" if path else "neither")  # fmt: skip
        self.grid = as_grid(n)
        names = NAMES[self.grid.d]
        rows = list(stations) if stations is not None else read_stations(Path(str(path)), names)
        key = "stations" if path is None else "path"
        require(len(rows) >= 1, key, "at least one station", "none")
        lengths, named = sorted({len(row) for row in rows}), ", ".join(names)
        fits = lengths in ([self.grid.d], [self.grid.d + 1])
        require(fits, key, f"rows of {named} or {named}, sigma", f"rows of {lengths} numbers")
        table = torch.tensor([list(row) for row in rows], dtype=torch.float64)
        self._check(key, table)
        require(0 <= withheld < len(rows), "withheld", f"0 to {len(rows) - 1} of {len(rows)} stations", withheld)
        index, fraction = self.grid.locate(table[:, : self.grid.d])
        super().__init__(len(rows) - withheld, moving=False, on_grid=bool((fraction == 0).all()), withheld=withheld)
        self.index, self.fraction = index, fraction
        self.sigma = table[:, -1].float() if table.shape[1] > self.grid.d else None

    def _check(self, key: str, table: Float[Tensor, "p _"]) -> None:
        for number, row in enumerate(table.tolist(), 1):
            require(all(map(math.isfinite, row)), key, f"numbers in station {number}", row)
            for place, name, h, length, closed in zip(
                row, NAMES[self.grid.d], self.grid.spacing, self.grid.extent, self.grid.periodic, strict=False
            ):
                low, high = (0.0, length) if closed else (h / 2, length - h / 2)
                require(
                    low - 1e-9 * length <= place <= high + 1e-9 * length,
                    key,
                    f"{name} of station {number} from {low:.6g} to {high:.6g}",
                    place,
                )
            require(len(row) == self.grid.d or row[-1] > 0, key, f"sigma of station {number} above 0", row[-1])

    def check_grid(self, n: int | Grid) -> None:
        require(as_grid(n) == self.grid, "network.n", f"the grid of the data, {n}", self.grid)

    def draw_sigma(self, error: ObservationError, count: int, generator: torch.Generator) -> Float[Tensor, "b p"]:
        if self.sigma is None:
            return super().draw_sigma(error, count, generator)
        return self.sigma[self._order()].to(generator.device).expand(count, -1)

    def _order(self) -> Int[Tensor, " p"]:
        """The last of them are withheld; the same in every call, whatever its generator."""
        return torch.randperm(self.slots, generator=torch.Generator().manual_seed(self.slots))

    def _places(
        self, count: int, grid: Grid, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b p"], Float[Tensor, "b p d"], Bool[Tensor, "b p"]]:
        order, device = self._order(), generator.device
        index = self.index[order].to(device).expand(count, -1)
        fraction = self.fraction[order].to(device).expand(count, -1, -1)
        return index, fraction, torch.ones(count, self.slots, dtype=torch.bool, device=device)


def read_stations(path: Path, names: tuple[str, ...]) -> list[list[float]]:
    """The rows of a CSV file, in the order of ``names``, sigma last where it is there.

    Args:
        path: of the file.
        names: of the columns that it must have.

    Raises:
        MissingFileError: there is no such file.
        ValueError: a column is missing, a row is not of numbers, or it is no text.
    """
    if not path.is_file():
        raise MissingFileError(f"path: expected a CSV file of stations, got {path}, which does not exist")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"path: expected a CSV file in UTF-8, got {path.name} ({error.reason})") from error
    with io.StringIO(text, newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in names if name not in columns]
        require(not missing, "path", f"columns {', '.join(names)} and, if wanted, sigma in {path.name}", columns)
        reader.fieldnames = columns
        wanted = [*names, *(["sigma"] if "sigma" in columns else [])]
        rows = []
        for row in reader:
            try:
                rows.append([float(row[name]) for name in wanted])
            except (TypeError, ValueError):
                found = [row[name] for name in wanted]
                require(False, "path", f"numbers in line {reader.line_num} of {path.name}", found)
        return rows
