"""Every file that cannot be used is refused with one line that says why, before anything is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from eai.core.errors import MissingFileError
from eai.fields import open_fields
from tests.fields.files import dataset, written


def without_time() -> xr.Dataset:
    return dataset().isel(time=0, drop=True)


def time_without_units() -> xr.Dataset:
    return dataset().assign_coords(time=("time", np.arange(7.0)))


def unsorted() -> xr.Dataset:
    return dataset().isel(time=[0, 2, 1])


def duplicate() -> xr.Dataset:
    return dataset().isel(time=[0, 1, 1, 2])


def all_missing() -> xr.Dataset:
    return dataset().assign(sst=dataset().sst * np.nan)


def unknown_calendar() -> xr.Dataset:
    return dataset(calendar="maya")


def missing_time() -> xr.Dataset:
    return dataset().assign_coords(time=("time", [0, 1, np.nan, 3, 4, 5, 6.0], dataset().time.attrs))


def without_places() -> xr.Dataset:
    return dataset().drop_vars("lat")


def several_levels() -> xr.Dataset:
    return xr.concat([dataset(), dataset()], xr.Variable("depth", [0.0, 5.0]), data_vars="all")


def impossible_latitude() -> xr.Dataset:
    return dataset().assign_coords(lat=("lat", [0.0, 60.0, 120.0], {"units": "degrees_north"}))


def no_numbers() -> xr.Dataset:
    return dataset().assign(sst=dataset().sst.astype(str))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dataset().drop_vars("sst"), r"the variable 'sst', got .*a\.nc, which has ice$"),
        (without_time, r"a time axis with units such as .*sst has the dimensions \(lat, lon\)"),
        (time_without_units, "a time axis with units such as 'days since 2000-01-01'"),
        (unsorted, r"times in order, each once, got 2001-01-31.* after 2001-02-01.* in .*a\.nc"),
        (duplicate, r"times in order, each once, got 2001-01-31.* twice in"),
        (all_missing, r"values of sst, got .*a\.nc, where all are missing"),
        (unknown_calendar, "a calendar of standard, .*, got 'maya'"),
        (missing_time, "a time for every step, got .*, where some are missing"),
        (without_places, "a coordinate with standard_name 'latitude'"),
        (several_levels, r"time and places alone, got sst has 2 of 'depth' in .*; select one beforehand"),
        (impossible_latitude, "degrees up to 90 in lat"),
        (no_numbers, "expected numbers in sst"),
    ],
)
def test_bad_file_is_refused_in_one_line(make: Callable[[], xr.Dataset], message: str, tmp_path: Path) -> None:
    path = written(make(), tmp_path / "a.nc")
    with pytest.raises(ValueError, match=message) as caught:
        open_fields(path, ["sst"])
    assert str(caught.value).startswith("path: expected ")
    assert "\n" not in str(caught.value)


def test_unreadable_and_truncated_files_are_refused(tmp_path: Path) -> None:
    noise = tmp_path / "noise.nc"
    noise.write_bytes(bytes(range(256)) * 10)
    for suffix, formatted in (("4.nc", "NETCDF4"), ("3.nc", "NETCDF3_CLASSIC")):
        whole = Path(written(dataset(range(700)), tmp_path / suffix, format=formatted))
        whole.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 4])
        with pytest.raises(ValueError, match=r"path: expected a (readable|whole) .*(runcated|HDF)"):
            open_fields(str(whole), ["sst"]).read(range(700))
    (tmp_path / "empty.zarr").mkdir()
    for bad in (noise, tmp_path / "empty.zarr"):
        with pytest.raises(ValueError, match="path: expected a readable NetCDF file or Zarr folder"):
            open_fields(str(bad), ["sst"])


def test_what_does_not_exist_is_told_apart_from_what_is_damaged(tmp_path: Path) -> None:
    for name in ("a.nc", "a.zarr", "*.nc"):
        with pytest.raises(MissingFileError, match="which does not exist"):
            open_fields(str(tmp_path / name), ["sst"])
    with pytest.raises(ValueError, match="a folder of NetCDF files"):
        open_fields(str(tmp_path), ["sst"])


def other_units() -> xr.Dataset:
    content = dataset(range(7, 9))
    content.sst.attrs["units"] = "degC"
    return content


def other_grid() -> xr.Dataset:
    return dataset(range(7, 9)).isel(lon=slice(1, 5))


def other_places() -> xr.Dataset:
    return dataset(range(7, 9)).assign_coords(lon=dataset().lon + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (other_units, r"the same units in all files, got K in .*a\.nc and degC in .*b\.nc"),
        (other_grid, "the same grid in all files"),
        (other_places, "the same latitudes and longitudes in all files"),
        (lambda: dataset(range(7, 9), calendar="360_day"), "the same calendar in all files, got standard in"),
        (lambda: dataset(range(6, 9)), "times in order, each once, got 2001-02-05.* twice"),
    ],
)
def test_files_that_do_not_go_together_are_refused(
    make: Callable[[], xr.Dataset], message: str, tmp_path: Path
) -> None:
    written(dataset(), tmp_path / "a.nc")
    written(make(), tmp_path / "b.nc")
    with pytest.raises(ValueError, match=message):
        open_fields(str(tmp_path), ["sst"])


def test_variables_on_different_grids_are_refused(tmp_path: Path) -> None:
    content = dataset()
    content["staggered"] = ("time", "edge", "lon"), np.zeros((7, 2, 5))
    content = content.assign_coords(edge=("edge", [-5.0, 5.0], {"units": "degrees_north"}))
    with pytest.raises(ValueError, match=r"the same grid and times, got .*sst has \(time, lat, lon\), staggered"):
        open_fields(written(content, tmp_path / "a.nc"), ["sst", "staggered"])
