"""What is read of a user's files: values, missing values, places, times."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from eai.core.errors import MissingFileError
from eai.fields import open_fields
from tests.fields.files import LATITUDE, LONGITUDE, dataset, values_of, written


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_variables_become_channels_in_any_order_of_steps(suffix: str, tmp_path: Path) -> None:
    fields = open_fields(written(dataset(), tmp_path / f"a{suffix}"), ["ice", "sst"])
    assert (fields.variables, fields.units) == (("ice", "sst"), ("1", "K"))
    assert fields.long_names == ("ice", "sea-surface temperature")
    read = fields.read([5, 2, 5])
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read[:, 1], values_of([5, 2, 5]))
    np.testing.assert_array_equal(read[:, 0], -values_of([5, 2, 5]))
    assert fields.read([]).shape == (0, 2, 3, 5)


def test_packed_values_are_unpacked_and_fill_values_are_missing(tmp_path: Path) -> None:
    content = dataset()
    content.sst[1, 2, 3] = np.nan
    packed = {"sst": {"dtype": "int16", "scale_factor": 0.5, "add_offset": 10.0, "_FillValue": -999}}
    read = open_fields(written(content, tmp_path / "a.nc", encoding=packed), ["sst"]).read(range(7))
    expected = values_of(range(7))
    expected[1, 2, 3] = np.nan
    np.testing.assert_array_equal(read[:, 0], expected)


def test_dimensions_may_stand_in_any_order_and_have_single_levels(tmp_path: Path) -> None:
    content = dataset().expand_dims(depth=[0.5]).transpose("lon", "depth", "time", "lat")
    fields = open_fields(written(content, tmp_path / "a.nc"), ["sst"])
    assert fields.shape == (3, 5)
    np.testing.assert_array_equal(fields.read(range(7))[:, 0], values_of(range(7)))


def test_regular_grid_is_periodic_where_its_longitudes_go_once_round(tmp_path: Path) -> None:
    fields = open_fields(written(dataset(), tmp_path / "a.nc"), ["sst"])
    assert (fields.kind, fields.periodic) == ("regular", True)
    np.testing.assert_array_equal(fields.latitude, np.repeat(LATITUDE[:, None], 5, axis=1))
    np.testing.assert_array_equal(fields.longitude, np.repeat(LONGITUDE[None], 3, axis=0))
    for name, longitude, periodic in [
        ("seam", [216.0, 288.0, 0.0, 72.0, 144.0], True),
        ("short", [0.0, 70.0, 140.0, 210.0, 280.0], False),
        ("uneven", [0.0, 80.0, 144.0, 216.0, 288.0], False),
    ]:
        content = dataset().assign_coords(lon=("lon", longitude, {"units": "degrees_east"}))
        assert open_fields(written(content, tmp_path / f"{name}.nc"), ["sst"]).periodic == periodic


def test_curvilinear_grids_and_points_have_coordinates_of_their_own(tmp_path: Path) -> None:
    north, east = (np.linspace(0, 40, 15).reshape(3, 5) + shift for shift in (0, 1))
    curved = xr.Dataset(
        {"sst": (("time", "y", "x"), values_of(range(4)))},
        coords={
            "time": ("time", np.arange(4.0), {"units": "hours since 2001-01-01"}),
            "nav_lat": (("y", "x"), north),
            "nav_lon": (("y", "x"), east),
        },
    )
    fields = open_fields(written(curved, tmp_path / "curved.nc"), ["sst"])
    assert (fields.kind, fields.shape, fields.periodic) == ("curvilinear", (3, 5), False)
    np.testing.assert_array_equal(fields.longitude, east)
    stations = curved.stack(station=("y", "x")).drop_vars(["station", "y", "x"], errors="ignore")
    fields = open_fields(written(stations, tmp_path / "points.nc"), ["sst"])
    assert (fields.kind, fields.shape) == ("points", (15,))
    np.testing.assert_array_equal(fields.latitude, north.flatten())
    np.testing.assert_array_equal(fields.read([2])[0, 0], values_of([2]).flatten())


@pytest.mark.parametrize("how", ["folder", "pattern"])
def test_several_files_follow_each_other_in_time_whatever_their_names(how: str, tmp_path: Path) -> None:
    for name, steps in (("b", range(3)), ("a", range(5, 9)), ("c", range(3, 5))):
        written(dataset(steps), tmp_path / f"{name}.nc")
    fields = open_fields(str(tmp_path / ("*.nc" if how == "pattern" else "")), ["sst"])
    assert len(fields) == 9
    np.testing.assert_array_equal(fields.read([8, 0, 4, 2, 5])[:, 0], values_of([8, 0, 4, 2, 5]))


def test_single_time_without_a_dimension_is_one_step(tmp_path: Path) -> None:
    for step in (1, 0):
        written(dataset().isel(time=step), tmp_path / f"{step}.nc")
    np.testing.assert_array_equal(open_fields(str(tmp_path), ["sst"]).read([0, 1])[:, 0], values_of([0, 1]))


def test_values_are_read_when_they_are_asked_for_also_by_a_copy(tmp_path: Path) -> None:
    path = written(dataset(), tmp_path / "a.nc")
    fields = open_fields(path, ["sst"])
    fields.read([0])
    copy = pickle.loads(pickle.dumps(fields))
    fields.close()
    content = dataset()
    content["sst"] = content.sst + 1000
    written(content, Path(path))
    for one in (fields, copy):
        np.testing.assert_array_equal(one.read([6])[0, 0], values_of([6])[0] + 1000)


def test_file_of_an_installed_package_is_found_without_a_path() -> None:
    path = "package:iris_sample_data/sample_data/ostia_monthly.nc"
    fields = open_fields(path, ["surface_temperature"])
    assert (len(fields), fields.shape, fields.periodic, fields.units) == (54, (18, 432), True, ("K",))
    values = fields.read([0])
    assert np.isnan(values).any()
    assert 270 < np.nanmin(values) < np.nanmax(values) < 310
    with pytest.raises(MissingFileError, match=r"package:nowhere_at_all/a\.nc, which is absent$"):
        open_fields("package:nowhere_at_all/a.nc", ["sst"])
    with pytest.raises(MissingFileError, match="which does not exist"):
        open_fields("package:iris_sample_data/nothing.nc", ["sst"])


def test_missing_package_of_the_examples_is_answered_by_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingFileError, match=r"pip install 'eai\[examples\]'"):
        open_fields("package:iris_sample_data/sample_data/ostia_monthly.nc", ["surface_temperature"])


@pytest.mark.parametrize("package", ["xarray", "netCDF4"])
def test_missing_reader_is_answered_by_what_to_install(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(dataset(), tmp_path / "a.nc")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"pip install 'eai\[data\]'"):
        open_fields(path, ["sst"])


def test_xarray_is_imported_with_the_first_file_only() -> None:
    told = "import sys, eai.fields, eai.fields.periods; print([m for m in ('xarray', 'netCDF4') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
