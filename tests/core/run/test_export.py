"""``eai-evaluate export=…``: every task's test data and estimates as a dataset that the community's tools read."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scores.continuous import mae, mse, rmse
from scores.probability import crps_for_ensemble

import eai
import eai.core.run.datasets
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.run.finished import evaluate
from tests.runs import TINY, Train, composed, train_in

SMALL = {
    "dynamics": (
        "task=dynamics", "data.nx=13", "data.modes=3", "data.n_train=9", "data.n_val=5", "data.n_test=11",
        "data.nt_test=8", "data.batch_size=2", "model.leads=[1,7]", "model/dynamics=spectral", "epochs=1",
    ),
    "recovery": (
        "task=recovery", "data/recovery=block", "data.n_train=12", "data.n_val=8", "data.n_test=11",
        "data.batch_size=2", "epochs=1", "model.classical=false",
    ),
    "assimilation": (*TINY, "data.batch_size=2", "data.network.p_min=3", "epochs=1"),
    "cycling": (
        "task=cycling", "data/cycling=ring", "data.n=10", "data.steps_val=12", "data.steps_test=30", "data.spin_up=5",
        "data.n_val=1", "data.n_test=3", "data.windows=1", "data.window=4", "data.batch_size=2", "epochs=1",
        "model.leads=2",
    ),
}  # fmt: skip
QUICK = ("figures.at_end=false", "accelerator.threads=1", "validate_every_n_epochs=1")


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDirectory]:
    """A finished run of a task, made when it is first asked for."""
    return cache(lambda task: train_in(tmp_path_factory.mktemp(task) / "run", [*SMALL[task], *QUICK]))


def exported(run: RunDirectory, path: Path, *overrides: str) -> tuple[xr.Dataset, RunDirectory]:
    cfg = composed("evaluate", [f"run={run.path}", f"export={path}", f"output={path.parent / 'scores'}", *overrides])
    result = evaluate(cfg)[1]
    assert [one.name for one in path.parent.iterdir() if "partial" in one.name] == []
    return xr.open_dataset(path, engine="zarr" if path.suffix == ".zarr" else "netcdf4"), result


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_forecasts_have_the_errors_that_eai_tells(run_of: Any, tmp_path: Path, suffix: str) -> None:
    run = run_of("dynamics")
    data, result = exported(run, tmp_path / f"out{suffix}")
    assert dict(data.sizes) == {"init_time": 11, "lead_time": 7, "x": 13}
    assert data.truth.dims == ("init_time", "lead_time", "x")
    told = {"network": read_json(result.metrics), **read_json(result.baselines)}
    assert set(told) < set(data.data_vars)
    for name, scored in told.items():
        if name != "reference":
            error = float(mse(data[name].astype(float), data.truth.astype(float)))
            assert error == pytest.approx(scored["test/mse_rollout"], rel=1e-6, abs=1e-12)
    by_lead = rmse(data.network.astype(float), data.truth.astype(float), preserve_dims=["init_time", "lead_time"])
    size = np.sqrt(np.square(data.truth.astype(float)).mean("x"))
    assert float((by_lead / size).mean()) == pytest.approx(told["network"]["test/nrmse"], rel=1e-6)
    for attribute in ("Conventions", "eai_config", "eai_git_commit", "eai_run", "history"):
        assert data.attrs[attribute]
    assert all(one.attrs["long_name"] and one.attrs["units"] for one in data.variables.values())


def test_recovered_images_have_the_error_that_eai_tells(run_of: Any, tmp_path: Path) -> None:
    data, result = exported(run_of("recovery"), tmp_path / "out.nc")
    assert {"corrupted", "mask", "truth", "recovered", "recovered_input"} <= set(data.data_vars)
    assert float(mse(data.recovered.astype(float), data.truth.astype(float))) == pytest.approx(
        read_json(result.metrics)["test/mse"], rel=1e-6
    )
    assert bool((data.corrupted.where(data["mask"] == 1, data.truth) == data.truth).all())


def test_analyses_have_the_errors_that_eai_tells_and_padding_is_missing(run_of: Any, tmp_path: Path) -> None:
    data, result = exported(run_of("assimilation"), tmp_path / "out.nc")
    metrics = read_json(result.metrics)
    for name, key in (("analysis", "rmse_analysis"), ("optimum", "rmse_optimum"), ("background", "rmse_background")):
        each = rmse(data[name].astype(float), data.truth.astype(float), preserve_dims="sample")
        assert metrics[f"test/{key}"] == pytest.approx(float(np.sqrt(np.square(each).mean())), rel=1e-6)
    missing = data.y.isnull()
    assert 0 < int(missing.sum()) < data.y.size
    assert bool((data.obs_index.where(missing, 0) <= 0).all())
    assert bool((data.obs_index.where(~missing, 0) >= 0).all())


def test_cycles_have_the_errors_that_eai_tells(run_of: Any, tmp_path: Path) -> None:
    data, result = exported(run_of("cycling"), tmp_path / "out.zarr")
    scored = {"analysis": read_json(result.metrics), "optimum": read_json(result.baselines)["kalman"]}
    for name, told in scored.items():
        after = data.isel(time=slice(5, None))
        each = rmse(after[name].astype(float), after.truth.astype(float), preserve_dims=["cycle", "time"])
        assert float(each.mean()) == pytest.approx(told["test/rmse_analysis"], rel=1e-6)
    assert data.y.dims == ("cycle", "time", "observation")


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_ensembles_have_the_crps_that_eai_tells(
    run_of: Any, tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eai.tasks.cycling.export.PART", 7 * 3 * 40 * 10)  # parts of 7 of the 30 times
    # All three cycles in a batch, as random numbers are drawn for a batch.
    data, result = exported(run_of("cycling"), tmp_path / f"out{suffix}")
    told = read_json(result.baselines)
    for name, count in (("enkf_40", 40), ("enkf_sqrt_24", 24), ("letkf_20", 20)):
        members = data[f"members_{name}"].astype(float)
        assert members.dims == ("cycle", "time", "member", "x")
        assert members.shape == (3, 30, 40, 10)
        assert int(members.notnull().sum()) == 3 * 30 * count * 10
        assert bool(members.isel(member=slice(count)).notnull().all())
        mean = members.mean("member")
        np.testing.assert_allclose(mean, data[f"analysis_{name}"], rtol=0, atol=1e-5)
        after = {"time": slice(5, None)}
        score = crps_for_ensemble(members.isel(after), data.truth.astype(float).isel(after), "member", method="ecdf")
        assert float(score) == pytest.approx(told[name]["test/crps_analysis"], rel=1e-6)
    scored = {"analysis": read_json(result.metrics), "analysis_var3d": told["var3d"]}
    for name, scores in scored.items():  # of a single state
        error = mae(data[name].astype(float).isel(after), data.truth.astype(float).isel(after))
        assert float(error) == pytest.approx(scores["test/crps_analysis"], rel=1e-6)
    assert data.member.attrs["standard_name"] == "realization"


def test_two_dimensions_and_the_sphere_have_their_own_axes(train: Train, tmp_path: Path) -> None:
    small = ("task=dynamics", "data.n_train=3", "data.n_val=2", "data.n_test=3", "data.nt_test=5", "data.batch_size=2",
             "epochs=1", *QUICK)  # fmt: skip
    grid = ("data/dynamics=advection_2d", "data.ny=9", "data.nx=11", "model/dynamics=spectral",
            "model.net.shape=[${data.ny},${data.nx}]", "data.modes=2")  # fmt: skip
    data, _ = exported(train(*small, *grid), tmp_path / "grid.nc")
    assert data.network.dims == ("init_time", "lead_time", "y", "x")
    assert data.sizes["y"] == 9
    (tmp_path / "scores").rename(tmp_path / "scores of the grid")
    sphere = ("data/dynamics=sphere", "data.level=1", "data.width=0.6", "model/dynamics=point_contraction")
    data, _ = exported(train(*small, *sphere, "model.net.width=4", run="sphere"), tmp_path / "sphere.nc")
    assert data.network.dims == ("init_time", "lead_time", "node")
    assert float(data.latitude.max()) <= 90
    assert data.latitude.attrs == {"long_name": "latitude", "units": "degrees_north", "standard_name": "latitude"}


def test_export_that_is_cut_off_or_fails_leaves_no_file(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, calls = run_of("dynamics"), 0
    written = eai.core.run.datasets.NetCDF.write

    def full(self: Any, first: int, variables: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, os.strerror(28))
        written(self, first, variables)

    monkeypatch.setattr(eai.core.run.datasets.NetCDF, "write", full)
    with pytest.raises(ConfigError, match=r"export: cannot write .*out\.nc \(No space left on device\)"):
        exported(run, tmp_path / "out.nc")
    assert calls == 2
    assert [one.name for one in tmp_path.iterdir()] == ["scores"]


def test_error_of_the_network_is_not_taken_for_one_of_the_disk(
    run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr("eai.tasks.assimilation.export.variables", broken)
    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        exported(run_of("assimilation"), tmp_path / "out.nc")
    assert [one.name for one in tmp_path.iterdir()] == ["scores"]


def test_no_more_than_a_batch_is_held_at_once(run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    written = eai.core.run.datasets.Zarr.write

    def counted(self: Any, first: int, variables: Any) -> None:
        sizes.append(len(variables["truth"].values))
        written(self, first, variables)

    monkeypatch.setattr(eai.core.run.datasets.Zarr, "write", counted)
    exported(run_of("dynamics"), tmp_path / "out.zarr")
    assert sizes == [8, 3]  # evaluation takes four times the batch size


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("out.csv", "export: expected a name that ends in .nc or .zarr, got"),
        ("there.nc", "export: expected a new name, got"),
        ("nowhere/out.nc", "export: expected a name in a folder that exists, got"),
    ],
)
def test_mistakes_are_told_before_anything_is_scored(run_of: Any, tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "there.nc").touch()
    with pytest.raises(ConfigError, match=re.escape(told)):
        exported(run_of("dynamics"), tmp_path / name)
    assert [one.name for one in tmp_path.iterdir()] == ["there.nc"]


def test_missing_package_is_named(run_of: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ConfigError, match=r"export: zarr is absent; pip install 'eai\[data\]'"):
        exported(run_of("dynamics"), tmp_path / "out.zarr")


def test_task_without_a_dataset_says_so(run_of: Any) -> None:
    run = eai.load_run(run_of("assimilation").path)
    with pytest.raises(ConfigError, match=r"export: Assimilation writes no dataset; it has no method exported\(\)"):
        super(type(run.module), run.module).exported(run.data, run.data.batch("test"), {})


def test_values_are_those_of_predict(run_of: Any, tmp_path: Path) -> None:
    run = run_of("assimilation")
    data, _ = exported(run, tmp_path / "out.nc")
    loaded = eai.load_run(run.path)
    analysis = loaded.module.predict(loaded.data.batch("test"))
    torch.testing.assert_close(torch.from_numpy(data.analysis.values), analysis, rtol=1e-6, atol=1e-6)
