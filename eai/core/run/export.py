"""Forecasts and analyses of a finished run as a NetCDF file or a Zarr folder, written batch by batch."""

from __future__ import annotations

import importlib
import os
import shutil
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
from eai.core.learn.export import Parted, Variable
from eai.core.learn.task import Task
from eai.core.run.datasets import NetCDF, Writer, Zarr, array_of

PACKAGES = {".nc": "netCDF4", ".zarr": "zarr"}


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

    A batch at a time is held in memory, and of a variable that comes in parts one of them. The dataset is written under
    another name and renamed when it is whole.

    Args:
        path: see :func:`check_target`.
        cfg: the resolved configuration of the evaluation.
        run: where the weights come from.
        data: whose test split is written.
        task: with those weights.

    Raises:
        ConfigError: the task writes no dataset, or there is no place for it.
    """
    count, fixed = len(data.samples["test"]), task.coordinates(data)
    methods = {"network": task.predict, **task.baselines(data)}
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    writer: Writer = NetCDF(partial) if path.suffix == ".nc" else Zarr(partial)
    try:
        first = 0
        for batch in data.test_dataloader():
            batch = widened(task.transfer_batch_to_device(batch, task.device, 0))
            variables = task.exported(data, batch, {name: method(batch) for name, method in methods.items()})
            with _disk_errors_named(path):
                if not first:
                    writer.begin(_attributes(cfg, run), fixed, variables, count)
                writer.write(first, variables)
            for name, where, values in _parts(first, variables):
                with _disk_errors_named(path):
                    writer.fill(name, where, values)
            first += len(batch[0])
        with _disk_errors_named(path):
            writer.close()
            partial.rename(path)
    finally:
        writer.abandon()
        partial.unlink(missing_ok=True) if path.suffix == ".nc" else shutil.rmtree(partial, ignore_errors=True)


def _parts(
    first: int, variables: Mapping[str, Variable | Parted]
) -> Iterator[tuple[str, tuple[slice, ...], np.ndarray]]:
    """Names, places and values of the parts of a batch whose first sample has the number ``first``."""
    for name, variable in variables.items():
        if isinstance(variable, Parted):
            rows, start = slice(first, first + variable.shape[0]), 0
            for part in variable.parts:
                yield name, (rows, slice(start, start + part.shape[1])), array_of(part.float())
                start += part.shape[1]


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
