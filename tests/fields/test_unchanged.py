"""A training goes on with the file that it began with."""

from __future__ import annotations

from pathlib import Path

import pytest
import xarray as xr

from eai.core.errors import ConfigError
from eai.fields import open_fields
from eai.fields.unchanged import FromFile
from eai.tasks.assimilation.osse import OSSE
from eai.tasks.dynamics.netcdf import FieldTrajectories
from eai.tasks.recovery.netcdf import FieldImages
from tests.fields.files import dataset, written


class Data(FromFile):
    def __init__(self, content: xr.Dataset, path: Path) -> None:
        self.fields = open_fields(written(content, path), ["sst"])


def test_file_with_other_times_or_another_grid_is_refused_with_both(tmp_path: Path) -> None:
    before = Data(dataset(), tmp_path / "a.nc").state_dict()
    Data(dataset(), tmp_path / "same.nc").load_state_dict(before)
    for name, other in {
        "grown": dataset(range(8)),
        "later": dataset(range(1, 8)),
        "smaller": dataset().isel(lat=slice(0, 2)),
    }.items():
        with pytest.raises(
            ConfigError, match=r"^data\.path: expected the file as it was.*7 steps .* sst on 3 × 5; got "
        ):
            Data(other, tmp_path / f"{name}.nc").load_state_dict(before)


@pytest.mark.parametrize("data", [FieldImages, FieldTrajectories, OSSE])
def test_data_of_every_task_look_at_their_file(data: type) -> None:
    assert data.state_dict is FromFile.state_dict
    assert data.load_state_dict is FromFile.load_state_dict
