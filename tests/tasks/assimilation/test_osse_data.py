"""An OSSE on a file: states, periods that share nothing, backgrounds, B, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from eai.core.learn.data import SPLITS
from eai.tasks.assimilation.backgrounds import Lagged, Perturbed
from eai.tasks.assimilation.file_covariance import FileEnsembleCovariance, FileNMCCovariance
from eai.tasks.assimilation.file_states import FileGrid
from eai.variational.covariance import SOARCovariance, gaspari_cohn
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation
from tests.tasks.assimilation.field_files import LATITUDE, LONGITUDE, NX, NY, STEPS, data_of, states_of, weather, write


@pytest.fixture
def path(tmp_path: Path) -> str:
    return write(tmp_path / "t.nc", weather())


def northward(values: np.ndarray) -> np.ndarray:
    """As states have it: rows from south to north, flat."""
    return values[:, ::-1].reshape(len(values), -1)


def test_states_are_anomalies_of_the_training_period_in_units_of_their_deviation(path: str) -> None:
    states = states_of(path)
    values = northward(weather().astype(np.float32)).astype(np.float64)
    train, month = states.periods.train, np.arange(STEPS) % 12
    mean = np.stack([values[train][month[train] == m].mean(0) for m in range(12)])
    anomaly = values - mean[month]
    sigma = np.sqrt((anomaly[train] ** 2).sum() / ((len(train) - 12) * NY * NX))
    assert states.sigma == pytest.approx(sigma, rel=1e-6)
    some = np.array([70, 3, 3, 41])
    # Single precision of anomalies of some σ.
    torch.testing.assert_close(states.read(some).numpy(), (anomaly[some] / sigma).astype(np.float32), rtol=0, atol=1e-5)
    np.testing.assert_allclose(states.climatology(some).numpy(), mean[month[some]], atol=1e-9)
    assert states.scaling.mean.shape == (12, NY * NX)
    assert states_of(path, climatology="mean").scaling.mean.shape == (1, NY * NX)


def test_grid_runs_northwards_and_eastwards_and_a_box_may_cross_the_seam(tmp_path: Path) -> None:
    around = np.arange(12) * 30.0
    path = write(tmp_path / "t.nc", np.broadcast_to(around, (STEPS, NY, 12)) + weather(count=STEPS)[:, :, :1], around)
    whole = FileGrid(path, "t")
    assert whole.periodic == (False, True)
    assert whole.latitude.tolist() == sorted(LATITUDE.tolist())
    box = FileGrid(path, "t", latitude=[24, 46], longitude=[-65, 65])
    assert box.latitude.tolist() == [25, 30, 35, 40, 45]
    assert box.longitude.tolist() == [-60, -30, 0, 30, 60]
    assert box.periodic == (False, False)
    # Every value tells its own longitude.
    states = states_of(path, box, climatology="mean")
    column = weather()[states.periods.train, ::-1, 0].mean(0)[1:6, None]
    east = states.scaling.mean.numpy().reshape(5, 5) - column
    np.testing.assert_allclose(east[2], [300, 330, 0, 30, 60], atol=1e-3)


def test_edges_of_a_box_count_where_the_file_has_single_precision(tmp_path: Path) -> None:
    content = xr.open_dataset(write(tmp_path / "t.nc", weather())).load()
    tenths = {"lat": np.float32(35 + 0.1 * np.arange(NY)), "lon": np.float32(0.5 + 0.1 * np.arange(NX))}
    content.assign_coords({name: (name, axis, content[name].attrs) for name, axis in tenths.items()}).to_netcdf(
        tmp_path / "fine.nc"
    )
    box = FileGrid(str(tmp_path / "fine.nc"), "t", latitude=[35.1, 35.6], longitude=[0.7, 1.2])
    assert box.shape == (6, 6)
    edge = torch.tensor([35.1, 35.6], dtype=torch.float64), torch.tensor([0.7, 1.2], dtype=torch.float64)
    assert box.contains(*edge).all()


def test_meridian_at_both_ends_of_a_file_is_one_column(tmp_path: Path) -> None:
    path = write(tmp_path / "t.nc", weather(), np.linspace(0.0, 360.0, NX))
    for box in (None, [0, 359], [-180, 180]):
        grid = FileGrid(path, "t", longitude=box)
        assert grid.shape == (NY, NX - 1)
        assert grid.periodic == (False, True)


def test_months_that_training_does_not_have_have_no_climatology(tmp_path: Path) -> None:
    content = xr.open_dataset(write(tmp_path / "t.nc", weather())).load()
    content.isel(time=content.time.dt.month.isin([6, 7, 8]).values).to_netcdf(tmp_path / "summer.nc")
    scaling = states_of(str(tmp_path / "summer.nc"), val_share=0.2, test_share=0.2).scaling
    known = scaling.climatology(torch.arange(1, 13)).isfinite().all(1)
    assert known.tolist() == [month in (6, 7, 8) for month in range(1, 13)]


def test_no_split_has_a_time_or_a_background_of_another(tmp_path: Path) -> None:
    # A field that stores its own time, in months, with a spread that differs from place to place.
    own = np.arange(STEPS, dtype=np.float64)[:, None, None] * np.ones((NY, NX))
    path = write(tmp_path / "t.nc", own)
    data = data_of(path, background=Lagged(2), gap=1, climatology="mean", covariance=soar(path))
    scale, mean = data.states.sigma, float(data.states.scaling.mean[0, 0])
    seen: dict[str, set[int]] = {}
    for split, period in zip(SPLITS, data.states.periods, strict=True):
        batch = data.batch(split)
        times, before = ((x[:, 0].double() * scale + mean).round().long() for x in (batch.xt, batch.xb))
        assert torch.equal(times - before, torch.full_like(times, 2))
        seen[split] = {*times.tolist(), *before.tolist()}
        assert seen[split] <= set(period.tolist())
    assert len(set.union(*seen.values())) == sum(map(len, seen.values()))
    train = data.states.periods.train
    assert mean == pytest.approx(train.mean(), abs=1e-5)


def soar(path: str, grid: FileGrid | None = None) -> SOARCovariance:
    return SOARCovariance(grid or FileGrid(path, "t"), 1.0, 800.0, 0.01)


def test_other_values_in_validation_and_test_change_nothing_of_training(path: str, tmp_path: Path) -> None:
    values = weather()
    train = states_of(path).periods.train
    values[len(train) :] = 250 + weather(seed=5)[len(train) :] ** 2 / 1000
    one, two = data_of(path), data_of(write(tmp_path / "other.nc", values))
    assert one.states.sigma == two.states.sigma
    assert torch.equal(one.covariance.matrix, two.covariance.matrix)
    for a, b in zip(one.batch("train"), two.batch("train"), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.batch("val").xt, two.batch("val").xt)


def test_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    first = states_of(write(tmp_path / "t.nc", weather()))
    assert first == states_of(str(tmp_path / "t.nc"))
    second = states_of(write(tmp_path / "t.nc", 2 * weather()))
    assert first != second
    assert second.sigma == pytest.approx(2 * first.sigma, rel=1e-4)


def test_nmc_estimate_is_the_localised_mean_square_of_training_differences(path: str) -> None:
    states, support, lag = states_of(path), 2500.0, 3
    x = states.read(np.arange(STEPS)).double()
    train = states.periods.train
    differences = x[train[lag:]] - x[train[lag:] - lag]
    expected = 0.5 * sum(torch.outer(d, d) for d in differences) / len(differences)
    index = torch.arange(NY * NX)
    taper = gaspari_cohn(states.grid.chord(index[:, None], index), support)
    expected = expected * taper + 0.02 * torch.eye(NY * NX)
    found = FileNMCCovariance(states, lag, 0.5, support, 0.02)
    torch.testing.assert_close(found.matrix, expected)
    assert found.grid == states.grid
    white = torch.randn(3, NY * NX, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(found.multiply(white), white @ expected)
    torch.testing.assert_close(found.solve(found.multiply(white)), white)


def test_ensemble_estimate_is_the_localised_covariance_of_training_states(path: str) -> None:
    states, support = states_of(path), 4000.0
    x = states.read(states.periods.train).numpy().astype(np.float64)
    index = torch.arange(NY * NX)
    taper = gaspari_cohn(states.grid.chord(index[:, None], index), support).numpy()
    expected = 0.3 * np.cov(x, rowvar=False) * taper + 0.02 * np.eye(NY * NX)
    found = FileEnsembleCovariance(states, 0.3, support, 0.02).matrix
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_lagged_backgrounds_have_the_errors_that_b_is_estimated_from(path: str) -> None:
    data = data_of(path, n_train=3000, fresh=False)
    batch = data.batch("train")
    error = (batch.xt - batch.xb).double()
    # The same differences, drawn at random: 3,000 of 48 give their mean square to 2 %.
    expected = data.covariance.matrix.diagonal().mean() - 0.01
    assert float(error.square().mean()) == pytest.approx(float(expected), rel=0.03)


def test_perturbed_backgrounds_have_errors_of_covariance_b(path: str) -> None:
    data = data_of(path, background=Perturbed(0.7), n_train=8001, fresh=False, covariance=soar(path))
    error = (lambda batch: (batch.xb - batch.xt).double())(data.batch("train"))
    expected = 0.7 * data.covariance.matrix
    variance = expected.diagonal()
    deviation = ((variance[:, None] * variance + expected**2) / len(error)).sqrt()
    assert ((error.T @ error / len(error) - expected).abs() / deviation).max() < 5  # of 5,000 entries
    assert len(data.times["train"]) == len(data.states.periods.train)


def test_observations_are_the_interpolated_truth_with_errors_in_the_variables_units(path: str) -> None:
    data = data_of(path, obs_error=ObservationError(0.4), n_test=2000)
    batch = data.batch("test")
    assert float(batch.obs_sigma[0, 0]) * data.states.sigma == pytest.approx(0.4, rel=1e-6)
    error = (batch.y - Interpolation(data.grid)(batch.xt, batch)) * data.states.sigma
    # 14,000 errors: their deviation is known to 0.6 %.
    assert float(error.std()) == pytest.approx(0.4, rel=0.03)
    assert batch.obs_mask.sum(1).unique().tolist() == [5]
    assert batch.obs_withheld.sum(1).unique().tolist() == [2]


def test_times_of_test_data_are_spread_evenly_and_occur_again_where_they_are_few(path: str) -> None:
    few, many = data_of(path, n_test=3), data_of(path, n_test=25)
    times = few.times["test"]
    generator = torch.Generator()
    assert few.truths("test", generator).tolist() == [times[0], times[round((len(times) - 1) / 2)], times[-1]]
    assert set(many.truths("test", generator).tolist()) == set(times.tolist())
    batch = many.batch("test")
    assert not torch.equal(batch.obs_fraction[0], batch.obs_fraction[1])


WRONG = {
    "variable: expected a value at every place": ({}, "gap"),
    "latitude: expected a box with at least two of the file's latitudes, 20 to 60, got [70, 80]": ({}, "box"),
    "latitude: expected null or [south, north], got [50, 30]": ({}, "south"),
    "background.lag: expected fewer steps than follow each other in the val": ({"background": Lagged(11)}, "data"),
    "climatology: expected mean, or a training period with every month": ({"val_from": "2001-06"}, "states"),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_is_refused_in_one_line(message: str, path: str, tmp_path: Path) -> None:
    arguments, kind = WRONG[message]
    made: dict[str, Any] = {
        "gap": lambda: states_of(gappy(tmp_path)),
        "box": lambda: FileGrid(path, "t", latitude=[70, 80]),
        "south": lambda: FileGrid(path, "t", latitude=[50, 30]),
        "data": lambda: data_of(path, **arguments),
        "states": lambda: states_of(path, test_from="2002-01", **arguments),
    }
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared below
        made[kind]()
    assert str(caught.value).startswith(message)


def gappy(folder: Path) -> str:
    values = weather()
    values[60, 1:3, 4] = np.nan
    return write(folder / "gaps.nc", values)


def test_missing_values_are_counted_and_a_box_without_them_is_taken(tmp_path: Path) -> None:
    path = gappy(tmp_path)
    with pytest.raises(ValueError, match=f"got 't without some at 2 of {NY * NX} places'"):
        states_of(path)
    grid = FileGrid(path, "t", longitude=[-5, 20])
    assert states_of(path, grid).sigma > 0
    assert grid.longitude.tolist() == LONGITUDE[LONGITUDE >= -5].tolist()


def test_covariance_of_too_many_points_is_refused(tmp_path: Path) -> None:
    values = np.repeat(weather(count=24), 50, axis=2)
    path = write(tmp_path / "wide.nc", values, np.linspace(0, 100, 50 * NX))
    with pytest.raises(ValueError, match=r"^covariance: expected at most 4,096 points where B is a dense matrix"):
        FileNMCCovariance(states_of(path, climatology="mean"))
