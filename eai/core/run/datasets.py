"""A NetCDF file or a Zarr folder, created with all its variables in their full size and then filled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eai.core.learn.export import Parted, Variable

CHUNK = 2**20  # numbers of a variable that Zarr stores in a file of its own, about


class Writer(ABC):
    """Creates every variable in its full size, then fills it sample by sample."""

    def begin(
        self,
        attributes: Mapping[str, str],
        fixed: Mapping[str, Variable],
        first: Mapping[str, Variable | Parted],
        count: int,
    ) -> None:
        """Write what does not change, and make room for the rest.

        Args:
            attributes: of the dataset.
            fixed: coordinates and all else that is known at once.
            first: the variables of the first batch.
            count: number of samples.
        """
        self.open(attributes)
        for name, variable in fixed.items():
            self.create(name, variable, tuple(variable.values.shape))
            self.fill(name, (slice(None),), array_of(variable.values))
        for name, one in first.items():
            self.create(name, one, (count, *(one.shape if isinstance(one, Parted) else one.values.shape)[1:]))

    def write(self, first: int, variables: Mapping[str, Variable | Parted]) -> None:
        """Fill in the samples of a batch, from number ``first``, but for what comes in parts."""
        for name, variable in variables.items():
            if isinstance(variable, Variable):
                self.fill(name, (slice(first, first + len(variable.values)),), array_of(variable.values))

    @abstractmethod
    def open(self, attributes: Mapping[str, str]) -> None:
        """Create the dataset."""

    @abstractmethod
    def create(self, name: str, variable: Variable | Parted, shape: tuple[int, ...]) -> None:
        """Create a variable."""

    @abstractmethod
    def fill(self, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        """Write a part of a variable."""

    @abstractmethod
    def close(self) -> None:
        """Finish the dataset."""

    def abandon(self) -> None:  # noqa: B027 - no duty of a subclass
        """Let go of what is still open. By default nothing is."""


class NetCDF(Writer):
    """A NetCDF file.

    Args:
        path: of the new file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._file = path, None

    _file: Any

    def open(self, attributes: Mapping[str, str]) -> None:
        import netCDF4

        self._file = netCDF4.Dataset(self._path, "w", format="NETCDF4")
        self._file.setncatts(dict(attributes))

    def create(self, name: str, variable: Variable | Parted, shape: tuple[int, ...]) -> None:
        for dim, size in zip(variable.dims, shape, strict=True):
            if dim not in self._file.dimensions:
                self._file.createDimension(dim, size)
        kind, how = _kind(variable), {"compression": "zlib", "complevel": 1}
        if isinstance(variable, Parted):
            how["chunksizes"] = _chunk(variable)
        fill = {"fill_value": np.nan} if kind.kind == "f" and name not in self._file.dimensions else {}
        made = self._file.createVariable(name, kind, variable.dims, **how, **fill)
        made.setncatts(dict(variable.attributes))

    def fill(self, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        self._file.variables[name][where] = values

    def close(self) -> None:
        file, self._file = self._file, None
        file.close()

    def abandon(self) -> None:
        if self._file is not None and self._file.isopen():
            self._file.close()


class Zarr(Writer):
    """A Zarr folder.

    Args:
        path: of the new folder.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    _group: Any

    def open(self, attributes: Mapping[str, str]) -> None:
        import zarr

        # Format 2, which every reader of today has and whose metadata can be consolidated.
        self._group = zarr.create_group(self._path, attributes=dict(attributes), zarr_format=2)

    def create(self, name: str, variable: Variable | Parted, shape: tuple[int, ...]) -> None:
        kind, rest = _kind(variable), max(1, int(np.prod(shape[1:])))
        chunks = (max(1, min(shape[0], CHUNK // rest)), *shape[1:])
        self._group.create_array(
            name,
            shape=shape,
            chunks=_chunk(variable) if isinstance(variable, Parted) else chunks,
            dtype=kind,
            fill_value=np.nan if kind.kind == "f" else 0,
            attributes={**variable.attributes, "_ARRAY_DIMENSIONS": list(variable.dims)},
        )

    def fill(self, name: str, where: tuple[slice, ...], values: np.ndarray) -> None:
        self._group[name][where] = values

    def close(self) -> None:
        import zarr

        zarr.consolidate_metadata(self._group.store)


def _chunk(variable: Parted) -> tuple[int, ...]:
    """What is stored together: of one sample a part, so that each chunk is written once."""
    return (1, variable.length, *variable.shape[2:])


def _kind(variable: Variable | Parted) -> np.dtype:
    return np.dtype(np.float32) if isinstance(variable, Parted) else array_of(variable.values).dtype


def array_of(values: Tensor) -> np.ndarray:
    """The values for a file: integers of 32 bits, bytes for what is true or false; others keep their precision.

    Args:
        values: on any device.
    """
    values = values.detach().cpu()
    if values.dtype == torch.bool:
        return values.to(torch.int8).numpy()
    if values.is_floating_point():
        return (values if values.dtype == torch.float64 else values.float()).numpy()
    return values.to(torch.int32).numpy()
