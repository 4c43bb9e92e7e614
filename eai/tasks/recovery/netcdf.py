"""A variable of a user's own files as images: whole fields, or patches of them, with gaps to be filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import Split
from eai.fields import Fields, open_fields
from eai.fields.periods import Periods, split_times
from eai.fields.unchanged import FromFile
from eai.tasks.recovery.corruptions import Corruption, Images
from eai.tasks.recovery.data import ImageData
from eai.tasks.recovery.scaling import fit_scaling


class Windows(NamedTuple):
    """Where patches are cut: the time step of each, and its first row and column."""

    step: np.ndarray
    row: np.ndarray
    column: np.ndarray


class FieldImages(FromFile, ImageData):
    """One variable on a regular or curvilinear grid, divided by time into training, validation and test data.

    Images are anomalies from the climatology of the training period, scaled to [0, 1] as
    :class:`eai.tasks.recovery.scaling.FieldScaling` says. What is missing in the files, and what was never known in
    training, is missing in x: no score and no loss looks there. Patches of training data lie at random places and
    times; where the longitudes go once round the Earth, they cross the seam. Those of validation and test data lie on a
    fixed lattice. Fields are read when they are needed: an epoch reads ``n_train / patches_per_step`` time steps.

    Args:
        corruption, test_levels, batch_size, seed, fresh: see :class:`eai.tasks.recovery.data.ImageData`.
        path: a NetCDF file, a Zarr folder, a folder of NetCDF files, a pattern of names, or
            ``package:<package>/<file inside>``.
        variable: its name.
        height, width: of the patches, in pixels, 8 to 512; null takes the whole field in that direction.
        stride: distance of the patches of validation and test data, in pixels; null lays them side by side.
        val_share, test_share: of the times, for validation and test; the test period is the last one.
        val_from, test_from: dates at which these periods begin, instead of shares.
        gap: time steps left out between the periods.
        climatology: ``month``, one of each month of the year, or ``mean``, one for all times.
        n_train: patches of an epoch.
        n_val, n_test: the largest numbers of patches in these splits; of more, so many are taken evenly.
        patches_per_step: training patches that are cut from each time step read.
        least_known: the smallest share of pixels in a patch that some training step knows, above 0 and up to 1.

    Raises:
        ValueError: the file is not such data, or no patch fits.
    """

    def __init__(
        self,
        corruption: Corruption,
        path: str,
        variable: str,
        height: int | None = None,
        width: int | None = None,
        stride: int | None = None,
        val_share: float = 0.15,
        test_share: float = 0.15,
        val_from: str | None = None,
        test_from: str | None = None,
        gap: int = 0,
        climatology: Literal["month", "mean"] = "month",
        n_train: int = 512,
        n_val: int = 200,
        n_test: int = 200,
        patches_per_step: int = 8,
        least_known: float = 0.3,
        test_levels: Sequence[float] | None = None,
        batch_size: int = 16,
        seed: int = 0,
        fresh: bool = True,
    ) -> None:
        numbers = {"n_train": n_train, "n_val": n_val, "n_test": n_test, "patches_per_step": patches_per_step}
        for name, number in numbers.items():
            require(number >= 1, name, "at least 1", number)
        require(stride is None or stride >= 1, "stride", "null or at least 1", stride)
        require(0 < least_known <= 1, "least_known", "above 0 and up to 1", least_known)
        require(climatology in ("month", "mean"), "climatology", "month or mean", climatology)
        self.fields = open_fields(path, [variable])
        size = self._patch(height, width)
        super().__init__(corruption, *size, test_levels, batch_size, seed, fresh)
        self.periods: Periods = split_times(self.fields, val_share, test_share, val_from, test_from, gap)
        self.scaling = fit_scaling(self.fields, self.periods.train, climatology == "month")
        self.n_train, self.patches_per_step = n_train, patches_per_step
        known = self.scaling.climatology[0].isfinite().numpy()
        self._corners = corners(known, size, self.fields.periodic, least_known)
        self.windows: dict[Split, Windows] = {
            "val": self._lattice(self.periods.val, n_val, stride),
            "test": self._lattice(self.periods.test, n_test, stride),
        }

    def _patch(self, height: int | None, width: int | None) -> tuple[int, int]:
        shape = self.fields.shape
        require(len(shape) == 2, "path", "fields on a grid", f"values at {shape[0]} points")
        size = []
        for name, wanted, whole in (("height", height, shape[0]), ("width", width, shape[1])):
            most = f"null or at most the field's {whole} points"
            require(wanted is None or wanted <= whole, name, most, wanted)
            size.append(whole if wanted is None else wanted)
        return size[0], size[1]

    def clean(self, split: Split, generator: torch.Generator) -> tuple[Images, Int[Tensor, " b"]]:
        windows = self._drawn(generator) if split == "train" else self.windows[split]
        x = self.cut(windows).to(generator.device)
        return x, torch.zeros(len(x), dtype=torch.int64, device=x.device)

    def cut(self, windows: Windows) -> Images:
        """Patches of the scaled fields, NaN where missing; each time step is read once.

        Args:
            windows: where they lie.
        """
        found = torch.empty(len(windows.step), 1, self.height, self.width)
        for block in self.fields.blocks(np.unique(windows.step)):
            months = torch.from_numpy(self.fields.months[block])
            images = self.scaling.image(torch.from_numpy(self.fields.read(block)[:, 0]), months)
            here = np.flatnonzero(np.isin(windows.step, block))
            part = Windows(*(field[here] for field in windows))
            found[here, 0] = self.cut_maps(images[np.searchsorted(block, part.step), 0], part)
        return found

    def cut_maps(self, maps: Float[Tensor, "b ny nx"], windows: Windows) -> Float[Tensor, "b h w"]:
        """A patch of each map.

        Args:
            maps: on the whole grid.
            windows: where the patches lie, one for each map.
        """
        rows = torch.from_numpy(windows.row)[:, None, None] + torch.arange(self.height)[:, None]
        columns = torch.from_numpy(windows.column)[:, None, None] + torch.arange(self.width)
        return maps[torch.arange(len(maps))[:, None, None], rows, columns % self.fields.shape[1]]

    def _drawn(self, generator: torch.Generator) -> Windows:
        def draw(below: int, count: int) -> np.ndarray:
            return torch.randint(below, (count,), generator=generator, device=generator.device).cpu().numpy()

        steps = self.periods.train[draw(len(self.periods.train), -(-self.n_train // self.patches_per_step))]
        place = self._corners[draw(len(self._corners), self.n_train)]
        return Windows(np.repeat(steps, self.patches_per_step)[: self.n_train], place[:, 0], place[:, 1])

    def _lattice(self, steps: np.ndarray, most: int, stride: int | None) -> Windows:
        """At most so many patches of a period, in the order of time."""
        ny, nx = self.fields.shape
        down, across = stride or self.height, stride or self.width
        last = nx - 1 if self.fields.periodic else nx - self.width
        rows = {*range(0, ny - self.height + 1, down), ny - self.height}
        columns = {*range(0, last + 1, across), *(() if self.fields.periodic else (last,))}
        whole = {(int(row), int(column)) for row, column in self._corners}
        inside = sorted(whole & {(row, column) for row in rows for column in columns})
        fits = f"a lattice on which patches with known values lie, here one of {down} × {across} points"
        require(len(inside) > 0, "stride", fits, stride)
        place, count = np.array(inside), len(steps) * len(inside)
        chosen = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(np.int64))
        step, number = np.divmod(chosen, len(inside))
        return Windows(steps[step], place[number, 0], place[number, 1])


def corners(known: np.ndarray, size: tuple[int, int], periodic: bool, least: float) -> np.ndarray:
    """First rows and columns (n, 2) of all patches of which a share of pixels is known.

    Args:
        known: (ny, nx), where a value is known.
        size: of a patch.
        periodic: patches go on at the first column after the last one.
        least: the smallest share.

    Raises:
        ValueError: there are none.
    """
    height, width = size
    around = np.concatenate([known, known[:, : width - 1]], axis=1) if periodic else known
    sums = np.pad(around.astype(np.int64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    counts = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    share = counts / (height * width)
    found = np.argwhere(share >= least)
    require(len(found) > 0, "least_known", f"at most {share.max():.3g}, the best patch of {height} × {width}", least)
    return found


def places(fields: Fields, windows: Windows, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude (n, height, width) of patches, degrees.

    Args:
        fields: that they are cut from.
        windows: where they lie.
        size: of each.
    """
    rows = (windows.row[:, None] + np.arange(size[0]))[:, :, None]
    columns = ((windows.column[:, None] + np.arange(size[1])) % fields.shape[1])[:, None]
    return fields.latitude[rows, columns], fields.longitude[rows, columns]
