"""From what a user types as a path to the files behind it."""

from __future__ import annotations

import glob
import importlib.util
from pathlib import Path

from eai.core.errors import MissingFileError
from eai.core.files import PACKAGE
from eai.fields.errors import FileError

SUFFIXES = (".nc", ".nc4", ".cdf", ".netcdf")
EXTRAS = {"iris_sample_data": "examples"}  # of packages that a user need not have


def files_of(path: str) -> list[Path]:
    """The files that a path stands for, in the order of their names.

    Args:
        path: a NetCDF file; a Zarr folder, whose name ends in .zarr; a folder of NetCDF files; a pattern of names such
            as ``data/sst_*.nc``; or ``package:<package>/<file inside>``, a file of an installed Python package.

    Raises:
        MissingFileError: there is no such file or package.
        FileError: a folder holds no NetCDF files.
    """
    if path.startswith(PACKAGE):
        return [_inside_package(path)]
    place = Path(path).expanduser()
    if place.is_file() or (place.is_dir() and place.suffix == ".zarr"):
        return [place]
    if place.is_dir():
        found = sorted(file for file in place.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
        if not found:
            raise FileError(f"path: expected a folder of NetCDF files ({', '.join(SUFFIXES)}), got {path} without any")
        return found
    matching = sorted(Path(name) for name in glob.glob(str(place)))
    if not matching:
        what = "a NetCDF file, a .zarr folder, a folder of NetCDF files or a pattern of names"
        raise MissingFileError(f"path: expected {what}, got {path}, which does not exist")
    return matching


def stamps_of(path: str) -> tuple[tuple[str, int, int], ...]:
    """Name, time of the last change and size of every file that a path stands for: equal while they are unchanged.

    Args:
        path: see :func:`files_of`.
    """
    inside = (part for file in files_of(path) for part in (sorted(file.rglob("*")) if file.is_dir() else [file]))
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in inside)


def _inside_package(path: str) -> Path:
    package, _, inside = path.removeprefix(PACKAGE).partition("/")
    # A dotted name would import its parent.
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        extra = EXTRAS.get(package)
        told = f"; pip install 'eai[{extra}]'" if extra else ""
        raise MissingFileError(f"path: expected a file of an installed package, got {path}, which is absent{told}")
    places = [Path(folder, inside) for folder in spec.submodule_search_locations]
    for place in places:
        if inside and place.exists():
            return place
    raise MissingFileError(f"path: expected a file inside of the package {package}, got {path}, which does not exist")
