"""Forecasts and analyses of a finished run as a NetCDF file or a Zarr folder, written batch by batch."""

from __future__ import annotations

import importlib
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.learn.data import DataModule, widened
from eai.core.learn.export import Variable
from eai.core.learn.task import Task

PACKAGES = {".nc": "netCDF4", ".zarr": "zarr"}
CHUNK = 2**20  # numbers of a variable that Zarr stores in a file of its own, about


def check_target(export: str) -> Path:
    """Where a dataset is to be written.

    Args:
        export: a name that does not exist yet, ending in .nc or .zarr.

    Raises:
        ConfigError: it is another name, it exists, its folder does not, or the package that writes it is absent.
    """
    path = Path(export).expanduser().absolute()
    package = PACKAGES.get(path.suffix)
    if package is None:
        raise ConfigError(f"export: expected a name that ends in .nc or .zarr, got {export}")
    if path.exists() or path.is_symlink():
        raise ConfigError(f"export: expected a new name, got {export}, which exists")
    if not path.parent.is_dir():
        raise ConfigError(f"export: expected a name in a folder that exists, got {export}")
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"export: {package} is absent; pip install 'eai[data]'") from error
    return path


@torch.no_grad()
def export(path: Path, cfg: DictConfig, run: RunDirectory, data: DataModule[Any], task: Task) -> None:
    """Write the test data and what the network and every baseline make of them.

    A batch at a time is held in memory. The dataset is written under another name and renamed when it is whole.

    Args:
        path: see :func:`check_target`.
        cfg: the resolved configuration of the evaluation.
        run: where the weights come from.
        data: whose test split is written.
        task: with those weights.

    Raises:
        ConfigError: the task writes no dataset, or there is no place for it.
    """
    data.setup()
    count, fixed = len(data.samples["test"]), task.coordinates(data)
    methods = {"network": task.predict, **task.baselines(data)}
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    writer: _Writer = _NetCDF(partial) if path.suffix == ".nc" else _Zarr(partial)
    try:
        first = 0
        for batch in data.test_dataloader():
            batch = widened(task.transfer_batch_to_device(batch, task.device, 0))
            variables = task.exported(data, batch, {name: method(batch) for name, method in methods.items()})
            with _disk_errors_named(path):
                if not first:
                    writer.begin(_attributes(cfg, run), fixed, variables, count)
                writer.write(first, variables)
            first += len(batch[0])
        with _disk_errors_named(path):
            writer.close()
            partial.rename(path)
    finally:
        writer.abandon()
        partial.unlink(missing_ok=True) if path.suffix == ".nc" else shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    """Say in one line why there is no dataset; netCDF4's own errors are RuntimeErrors."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"export: cannot write {path} ({reason})") from error


def _attributes(cfg: DictConfig, run: RunDirectory) -> dict[str, str]:
    """Of the whole dataset: where it comes from."""
    status = read_json(run.status) if run.status.is_file() else {}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "Conventions": "CF-1.11",
        "title": f"eai, task {cfg.task}: test data, the network's estimates and those of its baselines",
        "source": f"eai {version('eai')}, run {run.path.name}",
        "history": f"{now} eai-evaluate run={run.path} export",
        "eai_run": str(run.path),
        "eai_git_commit": str(status.get("git_commit") or "unknown"),
        "eai_config": OmegaConf.to_yaml(cfg),
    }


class _Writer(ABC):
    """Creates every variable in its full size, then fills it sample by sample."""

    def begin(
        self, attributes: Mapping[str, str], fixed: Mapping[str, Variable], first: Mapping[str, Variable], count: int
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
            self.fill(name, slice(None), _array(variable))
        for name, variable in first.items():
            self.create(name, variable, (count, *variable.values.shape[1:]))

    def write(self, first: int, variables: Mapping[str, Variable]) -> None:
        """Fill in the samples of a batch, from number ``first``."""
        for name, variable in variables.items():
            self.fill(name, slice(first, first + len(variable.values)), _array(variable))

    @abstractmethod
    def open(self, attributes: Mapping[str, str]) -> None:
        """Create the dataset."""

    @abstractmethod
    def create(self, name: str, variable: Variable, shape: tuple[int, ...]) -> None:
        """Create a variable."""

    @abstractmethod
    def fill(self, name: str, where: slice, values: np.ndarray) -> None:
        """Write a part of a variable."""

    @abstractmethod
    def close(self) -> None:
        """Finish the dataset."""

    def abandon(self) -> None:  # noqa: B027 - no duty of a subclass
        """Let go of what is still open. By default nothing is."""


class _NetCDF(_Writer):
    def __init__(self, path: Path) -> None:
        self._path, self._file = path, None

    _file: Any

    def open(self, attributes: Mapping[str, str]) -> None:
        import netCDF4

        self._file = netCDF4.Dataset(self._path, "w", format="NETCDF4")
        self._file.setncatts(dict(attributes))

    def create(self, name: str, variable: Variable, shape: tuple[int, ...]) -> None:
        for dim, size in zip(variable.dims, shape, strict=True):
            if dim not in self._file.dimensions:
                self._file.createDimension(dim, size)
        kind = _array(variable).dtype
        fill = {"fill_value": np.nan} if kind.kind == "f" and name not in self._file.dimensions else {}
        made = self._file.createVariable(name, kind, variable.dims, compression="zlib", complevel=1, **fill)
        made.setncatts(dict(variable.attributes))

    def fill(self, name: str, where: slice, values: np.ndarray) -> None:
        self._file.variables[name][where] = values

    def close(self) -> None:
        file, self._file = self._file, None
        file.close()

    def abandon(self) -> None:
        if self._file is not None and self._file.isopen():
            self._file.close()


class _Zarr(_Writer):
    def __init__(self, path: Path) -> None:
        self._path = path

    _group: Any

    def open(self, attributes: Mapping[str, str]) -> None:
        import zarr

        # Format 2, which every reader of today has and whose metadata can be consolidated.
        self._group = zarr.create_group(self._path, attributes=dict(attributes), zarr_format=2)

    def create(self, name: str, variable: Variable, shape: tuple[int, ...]) -> None:
        kind = _array(variable).dtype
        rest = max(1, int(np.prod(shape[1:])))
        self._group.create_array(
            name,
            shape=shape,
            chunks=(max(1, min(shape[0], CHUNK // rest)), *shape[1:]),
            dtype=kind,
            fill_value=np.nan if kind.kind == "f" else 0,
            attributes={**variable.attributes, "_ARRAY_DIMENSIONS": list(variable.dims)},
        )

    def fill(self, name: str, where: slice, values: np.ndarray) -> None:
        self._group[name][where] = values

    def close(self) -> None:
        import zarr

        zarr.consolidate_metadata(self._group.store)


def _array(variable: Variable) -> np.ndarray:
    """The values for a file: integers of 32 bits, bytes for what is true or false; others keep their precision."""
    values = variable.values.detach().cpu()
    if values.dtype == torch.bool:
        return values.to(torch.int8).numpy()
    if values.is_floating_point():
        return (values if values.dtype == torch.float64 else values.float()).numpy()
    return values.to(torch.int32).numpy()
