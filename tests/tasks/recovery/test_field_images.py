"""A user's own fields as images: scaled by the training period, cut into patches, divided by time without leaks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from eai.core.learn.data import split_generator
from eai.tasks.recovery.baselines import references
from eai.tasks.recovery.corruptions import NoCorruption, RandomPixels
from eai.tasks.recovery.netcdf import FieldImages, corners
from eai.tasks.recovery.scaling import SPREAD, fit_scaling
from eai.tasks.recovery.scores import Scoring
from tests.fields.files import written

NY, NX, STEPS = 11, 24, 60
LAND = (slice(0, 4), slice(3, 9))


def field_file(path: Path, values: np.ndarray, around: bool = True) -> str:
    """Monthly fields from January 2001, with land, on longitudes that go once round or do not."""
    values = values.astype(np.float32).copy()
    values[:, LAND[0], LAND[1]] = np.nan
    time = np.arange(np.datetime64("2001-01"), np.datetime64("2001-01") + STEPS).astype("M8[ns]")
    coordinates = {
        "time": time,
        "lat": ("lat", np.linspace(-50, 50, NY), {"units": "degrees_north"}),
        "lon": ("lon", np.arange(NX) * (15.0 if around else 5.0), {"units": "degrees_east"}),
    }
    content = xr.Dataset(
        {"t": (("time", "lat", "lon"), values, {"units": "K", "long_name": "temperature"})}, coordinates
    )
    return written(content, path)


def weather(seed: int = 0) -> np.ndarray:
    """280 K, a season of 8 K that grows with the row, and smooth anomalies of about 1 K."""
    noise = np.random.default_rng(seed).normal(size=(STEPS, NY, NX))
    smooth = sum(np.roll(noise, (a, b), (1, 2)) for a in range(3) for b in range(3)) / 3
    season = 8 * np.cos(2 * np.pi * np.arange(STEPS) / 12)[:, None, None] * np.linspace(0.5, 1, NY)[:, None]
    return 280 + season + smooth


def data_of(path: str, **arguments: object) -> FieldImages:
    sizes = {"n_train": 40, "n_val": 30, "n_test": 30, "height": 8, "width": 9}
    return FieldImages(**{"corruption": RandomPixels(0.4), "path": path, "variable": "t", **sizes, **arguments})


@pytest.fixture
def path(tmp_path: Path) -> str:
    return field_file(tmp_path / "t.nc", weather())


def test_images_are_scaled_anomalies_from_the_training_climatology_alone(path: str) -> None:
    data = data_of(path, height=None, width=None, n_test=100)
    train, values = data.periods.train, data.fields.read(range(STEPS))[:, 0]
    months = np.arange(STEPS) % 12
    climatology = np.stack([values[train][months[train] == month].mean(0) for month in range(12)])
    anomalies = values - climatology[months]
    squares = np.nansum(anomalies[train].astype(np.float64) ** 2)
    known = np.isfinite(anomalies[0]).sum()
    sigma = math.sqrt(squares / (len(train) * known - 12 * known))
    assert data.scaling.extent.item() == pytest.approx(2 * SPREAD * sigma, rel=1e-4)
    expected = 0.5 + anomalies[data.periods.test] / (2 * SPREAD * sigma)
    batch = data.batch("test")
    assert torch.equal(batch.valid[:, 0] == 1, torch.from_numpy(np.isfinite(expected)))
    found = torch.where(batch.valid == 1, batch.x, torch.nan)[:, 0]
    # Single precision of 280 K is 3e-5 K, of which ten deviations of 1 K make 3e-6.
    torch.testing.assert_close(found, torch.from_numpy(expected).float(), rtol=0, atol=1e-5, equal_nan=True)
    back = data.scaling.values(batch.x, torch.from_numpy(data.fields.months[data.periods.test]))
    np.testing.assert_allclose(back.numpy(), values[data.periods.test], atol=1e-3)


def test_other_values_in_validation_and_test_change_nothing_of_training(path: str, tmp_path: Path) -> None:
    data, values = data_of(path), weather()
    values[data.periods.val[0] :] = np.random.default_rng(1).normal(300, 50, size=values[data.periods.val[0] :].shape)
    other = data_of(field_file(tmp_path / "other.nc", values))
    assert torch.equal(data.scaling.extent, other.scaling.extent)
    torch.testing.assert_close(data.scaling.climatology, other.scaling.climatology, rtol=0, atol=0, equal_nan=True)
    for one, two in zip(data.batch("train"), other.batch("train"), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(data.batch("test").x, other.batch("test").x)


def test_splits_share_no_time_step(tmp_path: Path) -> None:
    """A field that holds its own time: 1000 t plus the number of the place."""
    steps = 1000.0 * np.arange(STEPS)[:, None, None] + np.arange(NY * NX).reshape(NY, NX)
    data = data_of(field_file(tmp_path / "time.nc", steps), climatology="mean", gap=3, corruption=NoCorruption())
    january = torch.ones(1, dtype=torch.int64)
    seen = {}
    for split in ("train", "val", "test"):
        # Whole fields back in their units: undo the scaling with the climatology's mean place by place.
        x = torch.where(data.batch(split).valid == 1, data.batch(split).x, torch.nan)
        times = (x - 0.5) * data.scaling.extent / 1000
        seen[split] = {round(t) for t in times[times.isfinite()].tolist()}
        assert max(abs(t - round(t)) for t in times[times.isfinite()].tolist()) < 0.6
    middle = float(np.mean(data.periods.train))
    assert data.scaling.background(january).isfinite().any()
    times = {split: {round(t + middle) for t in found} for split, found in seen.items()}
    assert times["train"] <= set(data.periods.train.tolist())
    assert times["val"] == set(data.periods.val.tolist())
    assert times["test"] == set(data.periods.test.tolist())
    assert max(times["train"]) + 3 < min(times["val"])
    assert max(times["val"]) + 3 < min(times["test"])


def test_training_patches_are_new_in_each_epoch_cross_the_seam_and_come_from_few_steps(path: str) -> None:
    data = data_of(path, patches_per_step=5, n_train=43)
    first, second = (data._drawn(split_generator(0, "train", epoch)) for epoch in (0, 1))
    assert len(np.unique(first.step)) <= 9
    assert not np.array_equal(first.column, second.column)
    assert (first.column + data.width > NX).any()
    assert set(first.step) <= set(data.periods.train)
    seam = data.cut(first)[first.column + data.width > NX][0, 0]
    number = int(np.flatnonzero(first.column + data.width > NX)[0])
    image = data.scaling.image(
        torch.from_numpy(data.fields.read(first.step[number : number + 1])[:, 0]),
        torch.from_numpy(data.fields.months[first.step[number : number + 1]]),
    )[0, 0]
    rolled = image.roll(-int(first.column[number]), 1)[first.row[number] : first.row[number] + 8, :9]
    torch.testing.assert_close(seam, rolled, rtol=0, atol=0, equal_nan=True)


def test_patches_of_a_bounded_region_stay_inside_of_it(tmp_path: Path) -> None:
    data = data_of(field_file(tmp_path / "t.nc", weather(), around=False), stride=4, n_test=1000)
    for windows in (data._drawn(split_generator(0, "train")), data.windows["test"]):
        assert (windows.row + 8 <= NY).all()
        assert (windows.column + 9 <= NX).all()
    test = data.windows["test"]
    assert {*test.column.tolist()} == {0, 4, 8, 12, 15}
    assert {*test.row.tolist()} <= {0, 3}
    assert np.array_equal(np.sort(test.step), test.step)


def test_corners_are_those_of_patches_of_which_enough_is_known(generator: torch.Generator) -> None:
    known = (torch.rand(7, 9, generator=generator) > 0.5).numpy()
    for periodic in (False, True):
        around = np.concatenate([known, known[:, :3]], axis=1) if periodic else known
        expected = [
            (row, column)
            for row in range(7 - 3 + 1)
            for column in range(9 if periodic else 9 - 4 + 1)
            if around[row : row + 3, column : column + 4].mean() >= 0.5
        ]
        assert corners(known, (3, 4), periodic, 0.5).tolist() == [list(corner) for corner in expected]
    with pytest.raises(ValueError, match="least_known: expected at most"):
        corners(known, (3, 4), False, 1.0)


def test_month_without_training_values_has_the_mean_of_the_others(tmp_path: Path) -> None:
    values = weather()
    values[5::12, 10, 20] = np.nan  # no June in one place
    data = data_of(field_file(tmp_path / "t.nc", values))
    train = data.periods.train
    expected = np.nanmean(values[train][:, 10, 20])
    assert data.scaling.climatology[5, 10, 20].item() == pytest.approx(expected, abs=1e-3)
    assert data.scaling.climatology[:, LAND[0], LAND[1]].isnan().all()


def test_rmse_is_in_the_units_of_the_variable(path: str) -> None:
    data = data_of(path)
    batch = data.batch("test")
    estimate = batch.x + 0.25 / data.scaling.extent  # 0.25 K too warm everywhere
    means = {
        name: float((value * weight).sum() / weight.sum())
        for name, (value, weight) in Scoring(data).per_sample(batch, estimate).items()
    }
    scores = Scoring(data).summarise(means)
    assert scores["rmse"] == pytest.approx(0.25, rel=1e-4)
    assert scores["rmse_hidden"] == pytest.approx(0.25, rel=1e-4)


def test_references_are_those_of_gaps_and_climatology_is_the_scale_s_middle(path: str) -> None:
    data = data_of(path)
    methods, batch = references(data, classical=True), data.batch("test", 5)
    expected = {"input", "mean_fill", "climatology", "nearest", "biharmonic", "optimal_interpolation", "analogues"}
    assert methods.keys() == expected
    assert (methods["climatology"](batch) == 0.5).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 12}, "height: expected null or at most the field's 11 points, got 12"),
        ({"height": 5}, "height: expected at least 8"),
        ({"stride": 0}, "stride: expected null or at least 1"),
        ({"n_test": 0}, "n_test: expected at least 1"),
        ({"least_known": 0.0}, "least_known: expected above 0"),
        (
            {"val_share": 0.45, "test_share": 0.45},
            "climatology: expected mean, or a longer training period, got .6 training steps",
        ),
        ({"variable": "u"}, "path: expected a file with the variable 'u'"),
    ],
)
def test_impossible_images_are_refused(arguments: dict, message: str, path: str) -> None:
    with pytest.raises(ValueError, match=message):
        data_of(path, **arguments)


def test_constant_variable_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="variable: expected values that differ from their climatology, got 't, const"):
        data_of(field_file(tmp_path / "t.nc", np.full((STEPS, NY, NX), 273.15)))


def test_points_are_no_images(tmp_path: Path) -> None:
    content = xr.open_dataset(field_file(tmp_path / "t.nc", weather())).stack(place=("lat", "lon"))
    content = content.reset_index("place").reset_coords()
    content.lat.attrs["units"], content.lon.attrs["units"] = "degrees_north", "degrees_east"
    with pytest.raises(ValueError, match="path: expected fields on a grid"):
        data_of(written(content, tmp_path / "points.nc"))


def test_statistics_do_not_depend_on_how_much_is_read_at_once(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(path)
    monkeypatch.setattr("eai.fields.fields.BLOCK", 1)
    again = fit_scaling(data.fields, data.periods.train, monthly=True)
    torch.testing.assert_close(again.climatology, data.scaling.climatology, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(again.extent, data.scaling.extent)
