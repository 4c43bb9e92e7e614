"""Data from files: which states there are, what they are scaled with, and that no split knows of another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

import eai.fields.fields
import eai.tasks.dynamics.states
from eai.core.learn.data import SPLITS, Split
from eai.core.learn.figures import caption
from eai.tasks.dynamics import export, plots_fields
from eai.tasks.dynamics.anomalies import Layout, different_places, on_sphere
from eai.tasks.dynamics.file_graph import file_points
from eai.tasks.dynamics.forecast import Forecast
from eai.tasks.dynamics.netcdf import FieldTrajectories
from tests.runs import assert_say_what_to_see
from tests.tasks.dynamics.field_files import (
    LATITUDE,
    LONGITUDE,
    noise,
    of_time,
    times,
    write,
    write_curvilinear,
    write_points,
)

N = len(LATITUDE) * len(LONGITUDE)


@pytest.fixture
def noisy(tmp_path: Path) -> str:
    """60 days of noise around 280 K, and of another variable."""
    return write(tmp_path / "noisy.nc", times(60), t=280 + 3 * noise(60), q=5 + noise(60, seed=1))


def physical(data: FieldTrajectories, split: Split) -> Tensor:
    """The newest states of a split in the variables' units, (b, t, n, c)."""
    batch = data.batch(split)
    return data.anomalies.physical(batch.u[..., : len(data.fields.variables)], batch.forcing)


def test_anomalies_of_the_training_period_are_standardised_and_return_to_the_files_values(noisy: str) -> None:
    data = FieldTrajectories(noisy, ["q", "t"], harmonics=0, nt=2, nt_test=3)
    assert data.batch("train").u.shape[2:] == (N, 2)
    u = data.batch("train").u[:, 0].double()
    last = data.batch("train").u[-1:, 1].double()
    every = torch.cat([u, last])
    torch.testing.assert_close(every.mean(0), torch.zeros(N, 2, dtype=torch.float64), rtol=0, atol=2e-5)
    torch.testing.assert_close(every.square().mean((0, 1)), torch.ones(2, dtype=torch.float64), rtol=1e-5, atol=0)
    expected = np.stack([5 + noise(60, seed=1), 280 + 3 * noise(60)], axis=-1).reshape(60, N, 2)
    first = torch.from_numpy(expected[data.starts["test"]])
    torch.testing.assert_close(physical(data, "test")[:, 0], first, rtol=1e-5, atol=1e-5)


def test_climatology_is_the_least_squares_fit_of_the_training_months_alone(tmp_path: Path) -> None:
    when = times(96, "M")
    season = 2 * np.pi * (np.arange(96) % 12) / 12
    values = 280 + noise(1) + 9 * np.cos(season)[:, None, None] + 0.3 * noise(96, seed=2)
    spoiled = values.copy()
    spoiled[70:] += 40
    of = [
        FieldTrajectories(write(tmp_path / f"{name}.nc", when, t=field), ["t"], nt=2, nt_test=3)
        for name, field in (("values", values), ("spoiled", spoiled))
    ]
    assert of[0].periods.train[-1] < 70
    torch.testing.assert_close(of[0].anomalies.coefficients, of[1].anomalies.coefficients, rtol=0, atol=0)
    steps = of[0].periods.train
    angle = 2 * np.pi * np.asarray(of[0].fields.season)[steps]
    waves = [np.ones_like(angle), np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)]
    expected, *_ = np.linalg.lstsq(
        np.stack(waves, 1), values[steps].astype(np.float32).reshape(len(steps), N), rcond=None
    )
    found = of[0].anomalies.coefficients[:, :, 0].numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    rest = values[steps].reshape(len(steps), N) - np.stack(waves, 1) @ expected
    assert of[0].anomalies.std.item() == pytest.approx(np.sqrt((rest**2).mean()), rel=1e-5)


@pytest.mark.parametrize("history", [0, 2])
def test_splits_share_no_time_in_targets_inputs_and_history(tmp_path: Path, history: int) -> None:
    when = times(80)
    path = write(tmp_path / "time.nc", when, days=of_time(when))
    data = FieldTrajectories(path, ["days"], harmonics=0, gap=3, nt=3, nt_test=4, history=history)
    seen: dict[Split, set[int]] = {}
    for split in SPLITS:
        batch = data.batch(split)
        days = batch.u.double() * data.anomalies.std + data.anomalies.coefficients[0, 0, 0]
        assert (days - days.round()).abs().max() < 1e-3
        seen[split] = set(days.round().long().unique().tolist())
    assert max(seen["train"]) + 3 < min(seen["val"])
    assert max(seen["val"]) + 3 < min(seen["test"])
    assert max(seen["test"]) == 79


def test_states_follow_each_other_by_one_step_and_history_goes_back(tmp_path: Path) -> None:
    when = times(40)
    data = FieldTrajectories(
        write(tmp_path / "time.nc", when, days=of_time(when)), ["days"], harmonics=0, nt=3, nt_test=3, history=2
    )
    batch = data.batch("val")
    days = batch.u.double() * data.anomalies.std + data.anomalies.coefficients[0, 0, 0]
    first = data.starts["val"][:, None, None]
    expected = first + np.arange(3)[:, None] - np.arange(3)
    np.testing.assert_allclose(days[:, :, 4].numpy(), expected, rtol=0, atol=1e-3)
    np.testing.assert_allclose(batch.time.numpy(), expected[:, :, 0] - data.periods.train[-1], rtol=0, atol=0)
    assert data.starts["val"][0] == data.periods.val[0] + 2


def test_no_trajectory_crosses_a_gap_in_time(tmp_path: Path) -> None:
    when = times(90, left_out=slice(20, 27))
    data = FieldTrajectories(
        write(tmp_path / "gap.nc", when, days=of_time(when)), ["days"], harmonics=0, nt=4, nt_test=2
    )
    days = physical(data, "train")[:, :, 0, 0]
    torch.testing.assert_close(days.diff(dim=1), torch.ones_like(days[:, 1:]), rtol=0, atol=1e-3)
    # Of a run of m states m − 3 begin a trajectory.
    assert len(days) == (20 - 3) + (len(data.periods.train) - 20 - 3)


def test_land_is_left_out_of_nodes_and_graph(tmp_path: Path) -> None:
    field = 280 + noise(60)
    field[:, 1, 2:5] = np.nan
    path = write(tmp_path / "land.nc", times(60), t=field)
    data = FieldTrajectories(path, ["t"], harmonics=0, nt=2, nt_test=2)
    graph = file_points(path, ["t"], k=3)
    assert data.shape == (N - 3,)
    assert not torch.isnan(data.batch("train").u).any()
    torch.testing.assert_close(graph.positions, data.positions, rtol=0, atol=1e-12)
    whole = data.layout.everywhere(data.anomalies.physical(data.batch("val").u, data.batch("val").forcing)[:, 0, :, 0])
    expected = field.reshape(60, N)[data.starts["val"]].astype(np.float32)
    np.testing.assert_allclose(whole.numpy(), expected, rtol=1e-6, atol=1e-4)


def test_a_state_that_lacks_a_value_ends_a_trajectory(tmp_path: Path) -> None:
    field = 280 + noise(60)
    field[11, 3, 3] = np.nan
    field[12] = np.nan
    path = write(tmp_path / "clouds.nc", times(60), t=field)
    data = FieldTrajectories(path, ["t"], harmonics=0, nt=3, nt_test=2, missing_share=0.1)
    assert data.shape == (5, 7)
    steps = data.starts["train"][:, None] + np.arange(3)
    assert not {11, 12} & set(steps.ravel().tolist())
    assert set(range(11)) | set(range(13, len(data.periods.train))) == set(steps.ravel().tolist())
    assert not torch.isnan(data.batch("train").u).any()


def test_what_is_read_for_each_batch_equals_what_is_held_in_memory(noisy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def batch() -> Tensor:
        return FieldTrajectories(noisy, ["t", "q"], harmonics=0, nt=3, nt_test=4, history=1).batch("train", 7).u

    held = batch()
    monkeypatch.setattr(eai.tasks.dynamics.states, "KEPT", 0)
    monkeypatch.setattr(eai.fields.fields, "BLOCK", 2000)
    torch.testing.assert_close(batch(), held, rtol=0, atol=1e-6)


def test_forcing_is_the_season_of_each_state_and_static_features_tell_the_place(tmp_path: Path) -> None:
    data = FieldTrajectories(
        write(tmp_path / "monthly.nc", times(72, "M"), t=280 + noise(72)), ["t"], harmonics=1, nt=2, nt_test=5
    )
    batch = data.batch("test", 3)
    season = np.asarray(data.fields.season)[data.starts["test"][:3, None] + np.arange(5)]
    np.testing.assert_allclose(batch.forcing[..., 0], np.sin(2 * np.pi * season), rtol=0, atol=1e-6)
    np.testing.assert_allclose(batch.forcing[..., 1], np.cos(2 * np.pi * season), rtol=0, atol=1e-6)
    node = 3 * len(LONGITUDE) + 5  # row 3, column 5
    north, east = np.radians(LATITUDE[3]), np.radians(LONGITUDE[5])
    expected = [np.sin(north), np.sin(east), np.cos(east)]
    np.testing.assert_allclose(batch.static[2, node], expected, rtol=0, atol=1e-6)


def test_errors_are_weighted_by_area_and_told_in_units(noisy: str) -> None:
    data = FieldTrajectories(noisy, ["t", "q"], harmonics=0, nt=2, nt_test=3)
    truth = data.batch("test").u[:, 1:]
    predicted = truth + torch.randn_like(truth)
    found = data.anomalies.square_errors(predicted, truth, [2])
    means = {name: value.mean().item() for name, value in found.items()}
    error = ((predicted - truth).double() * data.anomalies.std).numpy().reshape(*truth.shape[:2], 5, 7, 2)
    weight = np.cos(np.radians(LATITUDE))[:, None] / np.cos(np.radians(LATITUDE)).mean()
    rmse = data.anomalies.rms_errors(means)
    for channel, name in enumerate(("t", "q")):
        square = (error[..., channel] ** 2 * weight).mean((2, 3))
        assert rmse[f"rmse/{name}"] == pytest.approx(np.sqrt(square.mean()), rel=1e-5)
        assert rmse[f"rmse/{name}/lead_02"] == pytest.approx(np.sqrt(square[:, 1].mean()), rel=1e-5)


def test_a_place_counts_once_at_a_pole_and_at_both_ends_of_a_circle() -> None:
    latitude, longitude = torch.meshgrid(
        torch.tensor([-90.0, 0.0, 45.0], dtype=torch.float64),
        torch.tensor([0.0, 90.0, 180.0, 270.0, 360.0], dtype=torch.float64),
        indexing="ij",
    )
    kept = different_places(on_sphere(latitude, longitude))
    assert kept.tolist() == [0, 5, 6, 7, 8, 10, 11, 12, 13]
    layout = Layout(latitude, longitude, kept, regular=True)
    assert layout.weights.mean().item() == pytest.approx(1)
    assert layout.weights[0].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", ["curvilinear", "points"])
def test_other_places_than_a_regular_grid_are_nodes_too(tmp_path: Path, kind: str) -> None:
    path, values = tmp_path / "places.nc", 280 + noise(60)
    if kind == "points":
        data = FieldTrajectories(write_points(path, times(60), values[:, 2]), ["t"], harmonics=0, nt=2, nt_test=3)
    else:
        data = FieldTrajectories(write_curvilinear(path, times(60), values), ["t"], harmonics=0, nt=2, nt_test=3)
    size = (7,) if kind == "points" else (5, 7)
    assert (data.shape, data.space) == (size, ("node",) if kind == "points" else ("y", "x"))
    assert data.anomalies.weights.unique().tolist() == [1.0]
    graph = file_points(str(path), ["t"], k=2)
    torch.testing.assert_close(graph.positions, data.positions, rtol=0, atol=1e-12)
    # Radians along the Earth from the first place to the last, by the spherical law of cosines.
    north, east = (np.radians(d.numpy().ravel()[[0, -1]]) for d in (data.layout.latitude, data.layout.longitude))
    cosine = np.sin(north).prod() + np.cos(north).prod() * np.cos(east[1] - east[0])
    assert float(data.positions[0] @ data.positions[-1]) == pytest.approx(cosine, abs=1e-12)
    estimate = Forecast(data.batch("test").u[:, 1:], data.batch("test").u[:, 1:] + 0.1)
    drawings = {
        **plots_fields.of_samples(data.batch("test"), estimate, data.anomalies),
        **plots_fields.of_methods(data.batch("test"), {"network": estimate, "persistence": estimate}, data.anomalies),
    }
    assert_say_what_to_see({name: caption(figure) for name, figure in drawings.items()})
    for figure in drawings.values():
        assert isinstance(figure, Figure)
        figure.canvas.draw()
    exported = export.coordinates(data)
    assert exported["latitude"].dims == data.space
    written = export.variables(data, data.batch("test"), {"network": estimate})["truth"]
    assert written.dims == ("init_time", "lead_time", *data.space)
    torch.testing.assert_close(written.values.flatten(2), physical(data, "test")[:, 1:, :, 0], rtol=0, atol=1e-4)


def test_longitude_goes_east(noisy: str) -> None:
    data = FieldTrajectories(noisy, ["t"], harmonics=0, nt=2, nt_test=3)
    north, east = np.radians(LATITUDE[3]), np.radians(LONGITUDE[5])
    expected = [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)]
    np.testing.assert_allclose(data.positions[3 * len(LONGITUDE) + 5], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nt": 1}, r"nt: expected at least 2 states, got 1"),
        (
            {"nt_test": 12},
            r"nt_test: expected fewer states.*val period has 9 states, 9 without.*begin 12 in a row, got 12",
        ),
        ({"nt": 43}, r"nt: expected fewer states.*train period has 42 states, 42 without.*got 43"),
        ({"harmonics": 1}, r"harmonics: expected at most 0 \(months with training states: 2\), got 1"),
        ({"history": -1}, r"history: expected 0 or more, got -1"),
        ({"missing_share": 1.0}, r"missing_share: expected 0 ≤ missing_share < 1, got 1\.0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(noisy: str, arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FieldTrajectories(noisy, ["t"], **{"harmonics": 0, "nt": 2, "nt_test": 2, **arguments})


def test_fields_that_never_change_or_are_never_there_are_refused(tmp_path: Path) -> None:
    constant = 280 + np.zeros((60, 1, 1)) + noise(1)
    path = write(tmp_path / "constant.nc", times(60), t=280 + noise(60), same=constant)
    with pytest.raises(ValueError, match=r"variables: expected fields that change in the training period, got 'same'"):
        FieldTrajectories(path, ["t", "same"], harmonics=0, nt=2, nt_test=2)
    field = 280 + noise(60)
    field[::2] = np.nan
    path = write(tmp_path / "every_second.nc", times(60), t=field)
    with pytest.raises(ValueError, match=r"missing_share: expected so large that two places or more are left"):
        FieldTrajectories(path, ["t"], harmonics=0, nt=2, nt_test=2)
