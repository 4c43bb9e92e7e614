"""Runs on a user's own fields: figures, export, and predictions where the file is not at hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from scores.continuous import rmse

import eai
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.learn.figures import caption
from eai.core.run.finished import evaluate
from eai.tasks.recovery.corruptions import RandomPixels
from eai.tasks.recovery.data import Batch
from eai.tasks.recovery.filling import CorrectedInterpolation, FillingUNet, pull_push
from eai.tasks.recovery.gaps import Clouds
from eai.tasks.recovery.netcdf import FieldImages
from eai.tasks.recovery.plots_fields import filled
from eai.tasks.recovery.statistical import OptimalInterpolation
from tests.runs import assert_say_what_to_see, composed, train_in
from tests.tasks.recovery.test_field_images import NX, NY, field_file, weather

SMALL = (
    "task=recovery", "data/recovery=netcdf", "data.variable=t", "data.n_train=24", "data.n_val=5", "data.n_test=6",
    "data.height=9", "data.width=13", "data.batch_size=8", "epochs=1", "figures.at_end=false", "model.net.channels=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, Path]:
    folder = tmp_path_factory.mktemp("fields")
    path = Path(field_file(folder / "t.nc", weather()))
    model = "model/recovery=corrected_interpolation"
    return train_in(folder / "run", (*SMALL, model, f"data.path={path}")), path


def test_run_on_fields_has_scores_in_units_and_the_references_of_gaps(trained: tuple[RunDirectory, Path]) -> None:
    run, _ = trained
    metrics, baselines = read_json(run.metrics), read_json(run.baselines)
    assert {"test/rmse", "test/rmse_hidden", "test/psnr_pooled"} <= metrics.keys()
    assert {"climatology", "nearest", "biharmonic", "optimal_interpolation", "mean_fill"} <= baselines.keys()
    # Anomalies of about 1 K.
    assert baselines["climatology"]["test/rmse_hidden"] == pytest.approx(1.0, abs=0.2)


def test_loaded_run_predicts_where_its_file_is_absent(trained: tuple[RunDirectory, Path], tmp_path: Path) -> None:
    run, path = trained
    there = eai.load_run(run.path)
    expected = there.module.predict(there.data.batch("test"))
    batch = there.data.batch("test")
    shutil.copytree(run.path, tmp_path / "elsewhere")
    hidden = path.rename(path.with_suffix(".gone"))
    try:
        here = eai.load_run(tmp_path / "elsewhere")
        with pytest.raises(ConfigError, match=r"^data\.path: expected a NetCDF file.*which does not exist$"):
            _ = here.data
        with pytest.raises(ConfigError, match=r"^data\.path: expected a NetCDF file.*which does not exist$"):
            evaluate(composed("evaluate", [f"run={run.path}", f"output={tmp_path / 'no'}"]))
    finally:
        hidden.rename(path)
    assert torch.equal(here.module.predict(batch), expected)
    for name, tensor in there.module.state_dict().items():
        torch.testing.assert_close(here.module.state_dict()[name], tensor, rtol=0, atol=0, equal_nan=True)
    assert here.module.scaling.climatology.shape == (12, NY, NX)


def test_gaps_of_new_fields_are_filled_in_their_own_units(tmp_path: Path) -> None:
    path = field_file(tmp_path / "t.nc", weather())
    run = train_in(tmp_path / "run", (*SMALL, "model/recovery=filling_unet", f"data.path={path}"))
    Path(path).unlink()
    module = eai.load_run(run.path).module
    values = torch.from_numpy(weather(seed=1)[:3].astype(np.float32))
    gaps = torch.zeros(3, NY, NX, dtype=torch.bool)
    gaps[:, 6:9, 12:15] = True
    land = module.scaling.climatology[0].isnan()
    filled_in = module.fill(values.masked_fill(gaps | land, torch.nan), torch.tensor([1, 2, 3]))
    assert torch.equal(filled_in.isnan(), land.expand(3, -1, -1))
    seen = ~gaps & ~land
    # Seen values come back: single precision of 280 K, scaled and back, is some 1e-4 K.
    torch.testing.assert_close(filled_in[seen], values[seen], rtol=0, atol=1e-3)
    # The season of 8 K comes from the climatology, the anomaly of 1 K from around the gap.
    assert (filled_in - values)[gaps].abs().max() < 5
    module.scaling = None
    with pytest.raises(ValueError, match="fill: expected a net trained on data=recovery/netcdf"):
        module.fill(values, torch.tensor([1, 2, 3]))


def test_export_has_anomalies_in_units_and_time_and_places_of_the_file(
    trained: tuple[RunDirectory, Path], tmp_path: Path
) -> None:
    run, path = trained
    out = tmp_path / "out.nc"
    evaluate(composed("evaluate", [f"run={run.path}", f"output={tmp_path / 'evaluation'}", f"export={out}"]))
    content = xr.open_dataset(out)
    source = xr.open_dataset(path)
    assert content.sizes == {"sample": 6, "y": 9, "x": 13}
    assert content.truth.attrs["units"] == content.recovered_nearest.attrs["units"] == "K"
    for number in range(6):
        one = content.isel(sample=number)
        where = {"lat": xr.DataArray(one.latitude.values), "lon": xr.DataArray(one.longitude.values)}
        expected = source.t.sel(time=one.time, method="nearest", tolerance="1s").sel(where, method="nearest").values
        np.testing.assert_allclose((one.climatology + one.truth).values, expected, atol=1e-3)
    hidden = (content["mask"] == 0) & content.truth.notnull()
    assert hidden.any()
    assert content.corrupted.isnull().where(hidden, True).all()
    told = {"recovered": read_json(run.metrics)}
    told |= {f"recovered_{name}": scores for name, scores in read_json(run.baselines).items()}
    for name, scores in told.items():
        error = float(rmse(content[name].astype(float), content.truth.astype(float)))
        assert error == pytest.approx(scores["test/rmse"], rel=1e-6)


def fields_of(tmp_path: Path, corruption: object) -> FieldImages:
    return FieldImages(corruption, field_file(tmp_path / "t.nc", weather()), "t", 9, 13, n_train=24, n_test=7)


def test_map_draws_the_south_below_and_tells_what_is_missing_from_what_is_hidden(tmp_path: Path) -> None:
    data = fields_of(tmp_path, RandomPixels(0.4))
    batch = data.batch("test")
    figure = filled(batch, batch.x, 10.0, "temperature (K)", northward=True)
    seen = figure.axes[1].images
    assert seen[0].origin == "lower"
    np.testing.assert_array_equal(np.isnan(seen[0].get_array().filled(np.nan)), batch.mask[0, 0].numpy() == 0)
    np.testing.assert_array_equal(seen[1].get_array().mask, batch.valid[0, 0].numpy() == 1)
    assert figure.axes[3].get_title() == "error, RMSE 0"
    assert_say_what_to_see({"filled": caption(figure)})


def test_filling_from_coarser_images_keeps_what_is_seen_and_constants(generator: torch.Generator) -> None:
    for height, width in ((9, 13), (1, 8), (16, 16)):
        mask = (torch.rand(3, 1, height, width, generator=generator) > 0.6).float()
        mask[:, :, 0, 0] = 1
        y = torch.rand(3, 1, height, width, generator=generator)
        found = pull_push(y, mask)
        assert torch.equal(found[mask == 1], y[mask == 1])
        assert torch.equal(found, pull_push(torch.where(mask == 1, y, 9.0), mask))
        constant = pull_push(torch.full_like(y, 0.3), mask)
        torch.testing.assert_close(constant, torch.full_like(y, 0.3), rtol=0, atol=1e-6)
    assert torch.equal(pull_push(y, torch.zeros_like(y)), torch.full_like(y, 0.5))
    quarter = torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]])
    assert pull_push(quarter, (quarter > 0).float())[0, 0].tolist() == [[1.0, 0.75], [0.75, 0.5]]


def test_untrained_corrections_are_their_first_guess(tmp_path: Path) -> None:
    data = fields_of(tmp_path, Clouds(0.4))
    batch, train = data.batch("test"), data.batch("train")
    torch.testing.assert_close(FillingUNet(3)(batch).image, pull_push(batch.y, batch.mask))
    net = CorrectedInterpolation(9, 13, channels=3, error=0.01)
    net.fit(train)
    optimal = OptimalInterpolation(train, data.corruption)(batch, torch.full((7,), 0.01))
    # Both stop at a residual of 1e-4.
    torch.testing.assert_close(net(batch).image.clamp(0, 1), optimal, rtol=0, atol=1e-4)
    with pytest.raises(ValueError, match="net: expected images of height × width = 9 × 13"):
        net(Batch(*(field[..., :9] if field.ndim == 4 else field for field in batch)))
