"""Runs of an OSSE: scores in units, maps in degrees, export, stations, and observations that are read from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
import torch
import xarray as xr
from scores.continuous import rmse

import eai
from eai.core.cli import replace_node
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.learn.data import split_generator
from eai.core.run.finished import evaluate
from eai.tasks.assimilation import maps
from eai.tasks.assimilation.file_observations import FileObservations
from eai.tasks.assimilation.file_states import FileGrid
from eai.tasks.assimilation.osse import OSSE
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, PointValue, PointwiseFunction
from tests.runs import composed, train_in
from tests.tasks.assimilation.field_files import LATITUDE, LONGITUDE, STEPS, data_of, months, weather, write

RUN = (
    "task=assimilation", "data/assimilation=netcdf", "model/assimilation=planar", "shared/operator=interpolation",
    "shared/covariance=file_nmc", "shared.obs_error.sigma=0.4", "data.variable=t", "data.n_train=12", "data.n_val=5",
    "data.n_test=9", "data.batch_size=6", "data.network.p=7", "data.network.withheld=2", "epochs=1",
    "model.net.first_guess.points=8", "model.net.first_guess.channels=3", "model.net.steps=2", "accelerator.threads=1",
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("osse")
    path = write(folder / "t.nc", weather())
    return train_in(folder / "run", (*RUN, f"data.path={path}"))


@pytest.fixture
def shapes_unchecked() -> Iterator[None]:
    """As for a user: annotations are no assertions."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_errors_are_told_in_the_variables_units_for_every_method(run: RunDirectory) -> None:
    metrics, baselines, data = read_json(run.metrics), read_json(run.baselines), eai.load_run(run.path).data
    assert baselines["blue"]["test/j_ratio"] == pytest.approx(1, abs=1e-6)
    batch = data.batch("test")
    area = np.cos(np.radians(sorted(LATITUDE)))
    square = (batch.xb - batch.xt).double().square().mean(0).view(len(LATITUDE), len(LONGITUDE)).mean(1).numpy()
    error = np.sqrt(np.average(square, weights=area)) * data.states.sigma
    assert metrics["test/rmse_background/t"] == pytest.approx(error, rel=1e-6)
    for scores in (metrics, *baselines.values()):
        assert scores["test/rmse_background/t"] == pytest.approx(error, rel=1e-6)
        assert scores["test/rmse_optimum/t"] == pytest.approx(baselines["blue"]["test/rmse_analysis/t"], rel=1e-6)
    assert metrics["test/sigma_o"] * data.states.sigma == pytest.approx(0.4, rel=1e-5)
    drawn = {path.stem for path in run.figures.glob("*.png")}
    assert {"analysis", "background_covariance", "data", "single_observation"} <= drawn


def test_export_has_time_places_and_values_in_units(run: RunDirectory, tmp_path: Path) -> None:
    out = tmp_path / "out.nc"
    evaluate(composed("evaluate", [f"run={run.path}", f"output={tmp_path / 'scores'}", f"export={out}"]))
    content, source = xr.open_dataset(out), xr.open_dataset(eai.load_run(run.path).config.data.path)
    assert dict(content.sizes) == {"sample": 9, "latitude": 9, "longitude": 11, "observation": 9}
    np.testing.assert_allclose(content.latitude, sorted(LATITUDE))
    np.testing.assert_allclose(content.longitude, LONGITUDE)
    for name in ("truth", "background", "analysis", "optimum", "y", "obs_sigma", "climatology"):
        assert content[name].attrs["units"] == "K"
    expected = source.t.sel(time=content.time.values).isel(lat=slice(None, None, -1))
    np.testing.assert_allclose(content.truth + content.climatology, expected, atol=1e-3)
    # Observations lie where they say, with errors of 0.4 K.
    place = {"latitude": content.obs_latitude, "longitude": content.obs_longitude}
    error = content.y - content.truth.interp(place)
    assert float(error.std()) == pytest.approx(0.4, rel=0.35)  # 81 of them
    weights = np.cos(np.radians(content.latitude))
    for name in ("analysis", "background", "optimum"):
        own = read_json(run.metrics)[f"test/rmse_{name}/t"]
        assert float(rmse(content[name], content.truth, weights=weights)) == pytest.approx(own, rel=1e-6)


ESTIMATES = "eai.tasks.assimilation.file_covariance"
HYBRID = (
    "shared/covariance=hybrid",
    *replace_node(f"shared.covariance.static={{_target_: {ESTIMATES}.FileNMCCovariance, states: ${{shared.states}}}}"),
    *replace_node(
        f"shared.covariance.ensemble={{_target_: {ESTIMATES}.FileEnsembleCovariance, states: ${{shared.states}}}}"
    ),
)
VARIANTS = {
    "plain": (),
    "tuned": ("model.tuning=desroziers",),
    "with an offset of the background": ("model.loss.bias_sigma=0.3",),
    "hybrid": HYBRID,
    "hardly definite": ("shared.covariance.nugget=1e-9",),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_run_predicts_without_its_file_what_it_predicts_with_it(variant: tuple[str, ...], tmp_path: Path) -> None:
    path = Path(write(tmp_path / "t.nc", weather()))
    run = train_in(tmp_path / "run", (*RUN, f"data.path={path}", *variant, "figures.at_end=false"))
    loaded = eai.load_run(run.path)
    batch, data = loaded.data.batch("test"), loaded.data
    expected = loaded.module.predict(batch)
    path.unlink()
    alone = eai.load_run(run.path)
    torch.testing.assert_close(alone.module.predict(batch), expected, rtol=0, atol=1e-9)
    with pytest.raises(ConfigError, match=r"^data\.n\.path: expected a NetCDF file.*which does not exist$"):
        _ = alone.data
    assert isinstance(data, OSSE)
    steps = data.truths("test", split_generator(data.seed, "test"))
    north, east = data.grid.degrees(batch.obs_index, batch.obs_fraction)
    climatology, scale = data.states.climatology(steps), data.states.sigma
    values = scale * batch.y + data.operator(climatology, batch)
    analysis = alone.module.analyse(
        background=(scale * batch.xb + climatology).float().unflatten(1, data.grid.shape),
        months=torch.from_numpy(data.states.fields.months[steps]),
        latitude=north,
        longitude=east,
        values=torch.where(batch.obs_mask > 0, values, torch.nan),
        sigma=scale * batch.obs_sigma,
    )
    # Values near 280 K have four digits behind the point in single precision.
    torch.testing.assert_close(analysis.flatten(1) - climatology, scale * expected.double(), rtol=0, atol=1e-3)


def test_run_without_its_file_whose_checkpoint_knows_nothing_of_it_says_what_is_missing(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "t.nc", weather()))
    run = train_in(tmp_path / "run", (*RUN, f"data.path={path}", "figures.at_end=false"))
    path.unlink()
    checkpoint = torch.load(run.best, weights_only=True)
    del checkpoint["states"]
    torch.save(checkpoint, run.best)
    with pytest.raises(ConfigError, match=r"^[\w.]+\.path: expected a NetCDF file.*which does not exist$"):
        eai.load_run(run.path)


def test_training_goes_on_with_the_same_file_alone(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "t.nc", weather()))
    small = (*RUN, f"data.path={path}", "figures.at_end=false")
    run = train_in(tmp_path / "run", small)
    write(path, weather(count=STEPS + 1))
    with pytest.raises(ConfigError, match=r"^data\.path: expected the file as it was.* 72 steps .*; got 73 steps "):
        train_in(run.path, (f"resume={run.path}", "epochs=2"))
    path.unlink()
    write(path, weather())
    train_in(run.path, (f"resume={run.path}", "epochs=2"))
    assert read_json(run.status)["state"] == "COMPLETED"


def test_data_of_ones_own_that_do_not_fit_are_refused_by_name(run: RunDirectory, shapes_unchecked: None) -> None:
    loaded = eai.load_run(run.path)
    shape = loaded.data.grid.shape
    given: dict[str, torch.Tensor] = {
        "background": torch.full((2, *shape), 280.0),
        "months": torch.tensor([1, 12]),
        "latitude": torch.full((2, 3), 33.0),
        "longitude": torch.full((2, 3), 7.0),
        "values": torch.full((2, 3), 281.0),
        "sigma": torch.full((2, 3), 0.5),
    }
    nothing = {**given, "values": given["values"].clone(), "longitude": given["longitude"].clone()}
    nothing["values"][0, 1] = nothing["longitude"][0, 1] = torch.nan
    assert loaded.module.analyse(**nothing).isfinite().all()
    for name, value, told in [
        ("background", given["background"][:, 1:], "fields of 9 × 11"),
        ("background", torch.full((2, *shape), torch.nan), "a value everywhere"),
        ("months", torch.tensor([1]), "2, one of each field"),
        ("months", torch.tensor([1, 13]), "1 to 12"),
        ("latitude", torch.full((2, 4), 33.0), r"as many as values, \(2, 3\)"),
        ("latitude", torch.full((2, 3), -33.0), "observations inside of the grid"),
        ("sigma", torch.zeros(2, 3), "above 0"),
    ]:
        with pytest.raises(ValueError, match=rf"^{name}: expected {told}"):
            loaded.module.analyse(**{**given, name: value})


def test_maps_have_degrees_and_observations_where_the_field_has_their_place(tmp_path: Path) -> None:
    data = data_of(write(tmp_path / "t.nc", weather()))
    grid, batch = data.grid, data.batch("test", 2)
    east = grid.longitude.repeat(len(grid.latitude), 1).flatten()
    figure = maps.data_pairs(grid, batch._replace(xb=east.float().expand(2, -1)))
    axes = figure.axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("", "latitude (°)")
    left, right, lower, upper = axes.images[0].get_extent()
    assert (left, right, lower, upper) == pytest.approx((-32.5, 22.5, 17.5, 62.5))
    x, y = np.asarray(axes.collections[0].get_offsets()).T
    seen = batch.obs_mask[0] > 0
    north, longitude = grid.degrees(batch.obs_index[0][seen], batch.obs_fraction[0][seen])
    np.testing.assert_allclose(y, north)
    np.testing.assert_allclose(x, longitude)
    interpolated = Interpolation(grid)(east.expand(2, -1), batch)[0][seen]
    np.testing.assert_allclose(x, interpolated, atol=1e-5)


def test_stations_of_a_csv_file_keep_their_places_and_errors_in_every_split(tmp_path: Path) -> None:
    path, stations = write(tmp_path / "t.nc", weather()), tmp_path / "stations.csv"
    stations.write_text("lat,lon,sigma\n50.5,8.2,0.2\n42,-3,0.4\n35.1,14,0.8\n30,330,0.1\n")
    network = (
        f"data.network={{_target_: eai.variational.earth_stations.EarthStations, n: ${{data.n}}, path: {stations}}}"
    )
    keep = [item for item in RUN if not item.startswith("data.network")]
    run = train_in(tmp_path / "run", (*keep, f"data.path={path}", *replace_node(network), "figures.at_end=false"))
    data = eai.load_run(run.path).data
    for split in ("train", "val", "test"):
        batch = data.batch(split)
        assert sorted((batch.obs_sigma[2] * data.states.sigma).tolist()) == pytest.approx([0.1, 0.2, 0.4, 0.8])
        north, east = data.grid.degrees(batch.obs_index[2], batch.obs_fraction[2])
        assert sorted(north.tolist()) == pytest.approx([30, 35.1, 42, 50.5])
        assert sorted(east.tolist()) == pytest.approx([-30, -3, 8.2, 14], abs=1e-5)


def observed_file(path: Path, truth: np.ndarray, units: str = "K") -> str:
    """Values of every second month at four places: two grid points, the middle of two, and one outside of the grid."""
    rows, columns = [1, 4, 7], [2, 9, 5]
    values = np.full((STEPS // 2, 4), 999.0)
    values[:, :3] = truth[::2, rows, columns] + 0.5
    values[:, 2] += (truth[::2, 7, 6] - truth[::2, 7, 5]) / 2
    east = LONGITUDE[columns] + [0, 0, (LONGITUDE[6] - LONGITUDE[5]) / 2]
    values[::3, 1] = np.nan
    values[4, :3] = np.nan
    content = xr.Dataset(
        {"obs": (("time", "station"), values.astype(np.float32), {"units": units, "coordinates": "lat lon"})},
        {
            "time": months()[::2],
            "lat": ("station", [*LATITUDE[rows], -80.0], {"units": "degrees_north"}),
            "lon": ("station", [*(east % 360), 5.0], {"units": "degrees_east"}),
        },
    )
    content.to_netcdf(path)
    return str(path)


def test_observations_of_a_file_are_those_at_the_time_and_place_of_the_truth(tmp_path: Path) -> None:
    path, observed = write(tmp_path / "t.nc", weather()), observed_file(tmp_path / "obs.nc", weather())
    data = data_of(path, network=FileObservations(observed, "obs", withheld=0.4), obs_error=ObservationError(0.6))
    assert 8 not in data.times["train"]  # its observations are all missing
    for split in ("train", "val", "test"):
        assert (data.times[split] % 2 == 0).all()
        batch = data.batch(split)
        used = (batch.obs_mask + batch.obs_withheld) > 0
        departure = (batch.y - Interpolation(data.grid)(batch.xt, batch)) * data.states.sigma
        # 280 K in single precision is 3e-5 K.
        torch.testing.assert_close(departure[used], torch.full_like(departure[used], 0.5), rtol=0, atol=1e-3)
        steps = data.truths(split, torch.Generator())
        if split != "train":
            expected = [2 if step // 2 % 3 == 0 else 3 for step in steps]
            assert used.sum(1).tolist() == expected
    assert 0 < int(batch.obs_withheld.sum()) < int(used.sum())
    places = {(int(i), float(w)) for i, w in zip(batch.obs_index[used], batch.obs_withheld[used], strict=True)}
    assert len(places) == 3  # a place is withheld always or never
    assert float(batch.obs_sigma[0, 0]) * data.states.sigma == pytest.approx(0.6)


def test_of_too_many_observations_some_are_taken(tmp_path: Path) -> None:
    path = write(tmp_path / "t.nc", weather())
    data = data_of(path, network=FileObservations(path, "t", most=6))
    one, two = data.batch("test").obs_index[:2]
    assert len(one.unique()) == 6
    assert set(one.tolist()) != set(two.tolist())


def test_observations_that_do_not_belong_to_the_truths_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.nc", weather())
    celsius = observed_file(tmp_path / "celsius.nc", weather(), units="degC")
    with pytest.raises(ValueError, match=r"^network\.variable: expected the units of the truths, K, got 'degC'"):
        data_of(path, network=FileObservations(celsius, "obs"))
    shifted = xr.open_dataset(observed_file(tmp_path / "now.nc", weather()))
    later = shifted.assign_coords(time=shifted.time + np.timedelta64(3, "D"))
    later.to_netcdf(tmp_path / "later.nc")
    with pytest.raises(ValueError, match=r"^network\.path: expected observations at times of the truths, got '36 from"):
        data_of(path, network=FileObservations(str(tmp_path / "later.nc"), "obs"))
    shifted.isel(time=slice(0, 20)).to_netcdf(tmp_path / "early.nc")
    with pytest.raises(ValueError, match=r"^network\.path: expected observations in the val period, got 'none'"):
        data_of(path, network=FileObservations(str(tmp_path / "early.nc"), "obs"))
    grid = FileGrid(path, "t", latitude=[20, 30])
    with pytest.raises(ValueError, match=r"^network\.path: expected observations inside of the grid, got 'none'"):
        data_of(
            path,
            FileGrid(path, "t", [20, 24.9 + 0.1], [10, 20]),
            network=FileObservations(str(tmp_path / "now.nc"), "obs"),
        )
    with pytest.raises(ValueError, match=r"^operator: expected Interpolation or WindowAverage.*got 'PointValue'"):
        data_of(path, grid, network=FileObservations(str(tmp_path / "now.nc"), "obs"), operator=PointValue())
    with pytest.raises(ValueError, match=r"^operator: expected a linear H for observations of a file"):
        data_of(
            path,
            grid,
            network=FileObservations(str(tmp_path / "now.nc"), "obs"),
            operator=PointwiseFunction(Interpolation(grid)),
        )
