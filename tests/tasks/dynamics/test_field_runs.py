"""Runs on a file: scores in units, figures, exported datasets, and statistics that stay those of the training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scores.continuous import rmse

import eai
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.run.finished import evaluate
from eai.tasks.dynamics.elsewhere import batch_of
from tests.docs.pages import REPOSITORY, python_blocks
from tests.runs import Train, assert_equal, assert_same_result, composed, train_in
from tests.tasks.dynamics.field_files import LATITUDE, LONGITUDE, noise, times, write, write_curvilinear, write_points

COUNT = 84
RUN = (
    "task=dynamics", "data/dynamics=netcdf", "model/dynamics=history", "data.nt=3", "data.nt_test=4", "data.history=1",
    "model.net.net.width=5", "model.net.net.layers=1", "model.net.net.graph.k=3", "model.leads=[1,3]",
    "accelerator.threads=1", "validate_every_n_epochs=1",
)  # fmt: skip


def monthly(path: Path, seed: int = 0, warmer: float = 0.0) -> str:
    """Seven years of a seasonal cycle and noise that lasts, on land and sea, of two variables."""
    away = np.zeros((COUNT, 5, 7))
    for step, new in enumerate(noise(COUNT, seed)):
        away[step] = 0.7 * away[step - 1] + new
    season = np.cos(2 * np.pi * np.arange(COUNT) / 12)[:, None, None]
    t = 280 + warmer + 9 * season + away
    t[:, 2, 3:5] = np.nan
    return write(path, times(COUNT, "M"), t=t, q=5 + 2 * season + 0.1 * away + 0.05 * noise(COUNT, seed + 1))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    folder = tmp_path_factory.mktemp("fields")
    path = monthly(folder / "fields.nc")
    data = (f"data.path={path}", "data.variables=[t,q]", "model.net.net.state_channels=4", "epochs=1")
    return train_in(folder / "run", [*RUN, *data])


def test_every_method_is_scored_in_units_and_beside_the_others(run: RunDirectory) -> None:
    metrics, baselines = read_json(run.metrics), read_json(run.baselines)
    assert all(scores.keys() == metrics.keys() for scores in baselines.values())
    assert {"persistence", "climatology", "linear_inverse_model", "recent_mean", "autoregression"} <= baselines.keys()
    assert {f"test/rmse/{name}{lead}" for name in "tq" for lead in ("", "/lead_01", "/lead_03")} <= metrics.keys()
    assert not any("mode" in name for name in metrics)
    # Anomalies of t have a deviation of √(1/(1 − 0.49)) K; those of q less than a fifth of it.
    climatology = baselines["climatology"]
    assert 1.0 < climatology["test/rmse/t"] < 2.0
    assert climatology["test/rmse/q"] < 0.2
    assert {path.name for path in run.figures.glob("*.png")} >= {
        f"{kind}_{name}.png" for kind in ("maps", "rmse", "errors") for name in "tq"
    }


def test_exported_forecasts_have_dates_places_units_and_the_errors_that_eai_tells(
    run: RunDirectory, tmp_path: Path
) -> None:
    target = tmp_path / "forecasts.nc"
    result = evaluate(composed("evaluate", [f"run={run.path}", f"export={target}", f"output={tmp_path / 'scores'}"]))[1]
    found = xr.open_dataset(target)
    assert dict(found.sizes) == {"init_time": len(found.init_time), "lead_time": 3, "latitude": 5, "longitude": 7}
    np.testing.assert_allclose(found.latitude, LATITUDE)
    np.testing.assert_allclose(found.longitude, LONGITUDE)
    assert found.network_t.attrs["units"] == "K"
    file = xr.open_dataset(eai.load_run(run.path).config.data.path)
    for lead in (1, 3):
        at = found.valid_time.sel(lead_time=lead)
        expected = file.t.sel(time=at.values).values
        np.testing.assert_allclose(found.truth_t.sel(lead_time=lead), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(found.initial_t, file.t.sel(time=found.init_time.values), rtol=0, atol=1e-5)
    assert np.isnan(found.network_t[:, :, 2, 3:5]).all()
    assert int(np.isnan(found.network_t).sum()) == 2 * found.network_t[:, :, 0, 0].size
    weights = np.cos(np.radians(found.latitude))
    told = {"network": read_json(result.metrics), **read_json(result.baselines)}
    for name in ("network", "persistence", "autoregression"):
        error = rmse(found[f"{name}_t"], found.truth_t, weights=weights, preserve_dims="lead_time")  # by lead
        for lead in (1, 3):
            assert float(error.sel(lead_time=lead)) == pytest.approx(told[name][f"test/rmse/t/lead_0{lead}"], rel=1e-6)


def test_another_file_is_scaled_with_the_statistics_of_the_training(run: RunDirectory, tmp_path: Path) -> None:
    warmer = monthly(tmp_path / "warmer.nc", warmer=4.0)
    one, two = eai.load_run(run.path), eai.load_run(run.path, overrides=[f"data.path={warmer}"])
    std = one.module.anomalies.std.float()
    assert torch.equal(two.module.anomalies.std, one.module.anomalies.std)
    difference = (two.data.batch("test").u - one.data.batch("test").u)[..., 0]
    torch.testing.assert_close(difference, (4.0 / std[0]).expand_as(difference), rtol=1e-3, atol=0)
    saved = torch.load(run.best, weights_only=True)["state_dict"]
    assert {name for name in saved if name.startswith("anomalies.")} == {"anomalies.coefficients", "anomalies.std"}


@contextmanager
def without(path: Path) -> Iterator[None]:
    """Take a file away for a while."""
    hidden = path.rename(path.with_suffix(".gone"))
    try:
        yield
    finally:
        hidden.rename(path)


NO_FILE = r"^data\.path: expected a NetCDF file.*fields\.nc, which does not exist$"


def test_run_loaded_without_its_file_predicts_the_same(run: RunDirectory, tmp_path: Path) -> None:
    there = eai.load_run(run.path)
    batch, path = there.data.batch("test"), Path(there.config.data.path)
    shutil.copytree(run.path, tmp_path / "elsewhere")
    with without(path):
        here = eai.load_run(tmp_path / "elsewhere")
        with pytest.raises(ConfigError, match=NO_FILE):
            _ = here.data
        with pytest.raises(ConfigError, match=NO_FILE):
            evaluate(composed("evaluate", [f"run={run.path}", f"output={tmp_path / 'no'}"]))
        with pytest.raises(ConfigError, match=NO_FILE):
            train_in(tmp_path / "new", [*RUN, f"data.path={path}", "data.variables=[t,q]", "epochs=1"])
        path.write_bytes(b"no such file")  # damaged is not absent
        with pytest.raises(ConfigError, match=r"^data\.path: expected a readable NetCDF file"):
            eai.load_run(tmp_path / "elsewhere")
    for one, two in zip(here.module.predict(batch), there.module.predict(batch), strict=True):
        assert torch.equal(one, two)
    assert_equal(here.module.state_dict(), there.module.state_dict())
    assert_equal(*(dict(one.module.scores(batch, one.module.predict(batch))) for one in (here, there)))
    assert torch.equal(here.module.net.graph.area, there.module.net.graph.area)
    assert here.config == there.config


def test_states_of_ones_own_are_forecast_as_the_page_says_where_the_file_is_not(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (block,) = [one for one in python_blocks(REPOSITORY / "docs/howto/files.md") if "forecast_fields" in one]
    there = eai.load_run(run.path)
    path, batch = Path(there.config.data.path), there.data.batch("test")
    april = 12 * 6 + 3  # of 2007; the newest state is that of May
    number = there.data.starts["test"].tolist().index(april + 1)
    expected = there.data.anomalies.maps(there.module.predict(batch).rollout, batch.forcing[:, 1:])[number]
    known = xr.open_dataset(path)[["t", "q"]].isel(time=slice(april, april + 2)).load()
    assert known.time.values[0] == np.datetime64("2007-04-01")
    np.save(tmp_path / "states.npy", known.to_array("variable").transpose("time", ...).values)
    monkeypatch.chdir(tmp_path)
    with without(path):
        said: dict[str, Any] = {}
        exec(block.replace("outputs/dynamics/<run>", str(run.path)), said)
    forecasts, states, times, module = said["forecasts"], said["states"], said["times"], said["run"].module
    assert forecasts.shape == (3, 2, 5, 7)
    # Single precision of 280 K.
    torch.testing.assert_close(forecasts, expected.float(), rtol=0, atol=1e-4, equal_nan=True)
    own = batch_of(module.anomalies, 1, states, times)
    for ours, theirs in zip((own.u[:, 0], *own[1:3]), (batch.u[:, 0], *batch[1:3]), strict=True):
        assert torch.equal(ours[0], theirs[number])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, t: (x[:1], t), r"^states: expected .*places\) = \(2, 2, 5, 7\), got \(1, 2, 5, 7\)$"),
        (lambda x, t: (x, t[:2]), "^times: expected those of 2 states and of at least one forecast, got 2$"),
        (lambda x, t: (x.index_fill(3, torch.tensor(0), torch.nan), t), "^states: .*, got 'none at 5 of 33 nodes'$"),
    ],
)
def test_states_that_do_not_fit_are_refused_in_one_line(run: RunDirectory, change: Any, message: str) -> None:
    states, when = torch.zeros(2, 2, 5, 7), times(4, "M")
    with pytest.raises(ValueError, match=message):
        eai.load_run(run.path).module.forecast_fields(*change(states, when))


def test_net_without_a_file_forecasts_no_fields(train: Train) -> None:
    tiny = ("data.nx=13", "data.modes=3", "data.n_train=3", "data.n_val=2", "data.n_test=2", "model/dynamics=spectral")
    module = eai.load_run(train("task=dynamics", *tiny, "epochs=1", "figures.at_end=false").path).module
    with pytest.raises(ValueError, match="forecast_fields: expected a net trained on data=dynamics/netcdf"):
        module.forecast_fields(torch.zeros(1, 1, 13), times(2))


def test_run_of_an_earlier_version_says_that_it_needs_its_file(run: RunDirectory, tmp_path: Path) -> None:
    shutil.copytree(run.path, tmp_path / "old")
    old = RunDirectory(tmp_path / "old")
    checkpoint = torch.load(old.best, weights_only=True)
    del checkpoint["fields"]
    torch.save(checkpoint, old.best)
    assert eai.load_run(old.path).data.shape == (33,)
    with without(Path(eai.load_run(run.path).config.data.path)), pytest.raises(ConfigError, match=NO_FILE):
        eai.load_run(old.path)


@pytest.mark.parametrize("kind", ["curvilinear", "points"])
def test_graph_made_again_from_a_checkpoint_is_the_one_of_the_file(tmp_path: Path, kind: str) -> None:
    values = noise(COUNT)
    values[:, 1, 2] = np.nan
    path = tmp_path / "fields.nc"
    if kind == "points":
        write_points(path, times(COUNT, "M"), values.reshape(COUNT, -1))
    else:
        write_curvilinear(path, times(COUNT, "M"), values)
    graph = "path: '${data.path}', variables: '${data.variables}', k: 3"
    lazy = (
        "model/dynamics=pyg", "~model.net.graph",
        f"+model.net.graph={{_target_: eai.tasks.dynamics.file_graph.file_points, {graph}}}", "data.harmonics=1",
    )  # fmt: skip
    made = train_in(tmp_path / "run", [
        "task=dynamics", "data/dynamics=netcdf", f"data.path={path}", "data.variables=[t]", "data.nt_test=4",
        "model.net.static_features=5", "model.leads=[1,3]", "epochs=1", "accelerator.threads=1",
        "validate_every_n_epochs=1", "figures.at_end=false", *lazy,
    ])  # fmt: skip
    there = eai.load_run(made.path)
    batch = there.data.batch("test")
    with without(path):
        here = eai.load_run(made.path)
    for one, two in zip(here.module.net.graph, there.module.net.graph, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(two))
    assert torch.equal(here.module.predict(batch).rollout, there.module.predict(batch).rollout)


def test_an_interrupted_run_goes_on_to_the_same_result(run: RunDirectory, train: Train, tmp_path: Path) -> None:
    path = monthly(tmp_path / "fields.nc")
    data = (*RUN, f"data.path={path}", "data.variables=[t]", "model.net.net.state_channels=2", "figures.at_end=false")
    whole = train(*data, "epochs=2", "model.scheduler=null", run="whole")
    train(*data, "epochs=1", "model.scheduler=null", run="half")
    resumed = train_in(tmp_path / "half", [f"resume={tmp_path / 'half'}", "epochs=2"])
    assert_same_result(resumed, whole)
