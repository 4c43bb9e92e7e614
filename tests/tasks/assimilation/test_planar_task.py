"""The task on a plane: a run of it, its figures, what it exports, and other sizes of the grid for the same weights."""

from __future__ import annotations

import pytest
import torch

import eai
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.tasks.assimilation import export, maps
from eai.tasks.assimilation.data import Twin, grid_of
from eai.tasks.assimilation.drawings import numbers
from eai.tasks.assimilation.task import Assimilation
from eai.variational.grid import Grid
from tests.runs import Train, assert_say_what_to_see

PLANE = (
    "experiment=assimilation_2d",
    "trainer=debug",
    "data.n.shape=[9,12]",
    "data.network.p=7",
    "data.network.withheld=2",
    "data.n_train=6",
    "data.n_val=4",
    "data.n_test=5",
    "data.batch_size=3",
    "model.net.first_guess.points=[8,8]",
)


def test_run_on_a_plane_draws_its_maps_and_goes_to_other_grids(train: Train) -> None:
    run = train(*PLANE, "figures.at_end=true")
    metrics, baselines = read_json(run.metrics), read_json(run.baselines)
    assert baselines["blue"]["test/j_ratio"] == pytest.approx(1, abs=1e-6)
    assert 1 < metrics["test/j_ratio"] < baselines["background"]["test/j_ratio"]
    drawn = {path.stem for path in run.figures.glob("*.png")}
    assert {"analysis", "background_covariance", "cost_by_number", "data", "departures", "single_observation"} <= drawn
    assert_say_what_to_see(read_json(run.figures / "captions.json"))

    finer = eai.load_run(str(run.path), overrides=["data.n.shape=[18,24]", "data.n.periodic=[false,true]"])
    assert isinstance(finer.module, Assimilation)
    batch = finer.data.batch("test")
    assert finer.module.predict(batch).shape == (5, 18 * 24)
    cost = finer.module.cost
    assert cost.covariance.grid == Grid([18, 24], [False, True])
    assert (cost.total(finer.module.predict(batch), batch) < cost.total(batch.xb, batch)).all()

    # What an export holds: one name for one thing, states with the shape of the grid.
    states = {"network": batch.xb, "blue": batch.xt}
    places, found = export.coordinates(finer.data), export.variables(finer.data, batch, states)
    assert not places.keys() & found.keys()
    assert found["analysis"].values.shape == (5, 18, 24)
    assert found["analysis"].dims == ("sample", "grid_y", "grid_x")
    assert torch.equal(found["obs_fraction_x"].values[0][:7], batch.obs_fraction[0, :7, 1])
    h = cost.covariance.grid.spacing
    torch.testing.assert_close(places["grid_y"].values, (torch.arange(18.0).double() + 0.5) * h[0])
    torch.testing.assert_close(places["grid_x"].values, torch.arange(24.0).double() * h[1])


def test_task_refuses_data_on_another_grid(train: Train) -> None:
    with pytest.raises(ConfigError, match=r"covariance.*: expected .*9 × 12"):
        train(*PLANE, "shared.covariance.n=108")


def test_maps_put_observations_where_the_field_has_their_place() -> None:
    # A field that is its own x: the observed place and the colour under it agree.
    grid = Grid([5, 7], periodic=[False, True])
    place = grid.position(torch.arange(35), torch.zeros(35, 2))
    figure = maps.covariance(grid, place[:, 1].contiguous())
    image = figure.axes[0].images[0]
    left, right, down, up = image.get_extent()
    _, h_x = grid.spacing
    assert (left, right) == pytest.approx((-h_x / 2, grid.extent[1] - h_x / 2))
    assert (down, up) == pytest.approx((0.0, grid.extent[0]))
    assert image.origin == "lower"
    columns = torch.tensor(image.get_array().data)[0]  # type: ignore[union-attr]
    centres = left + (torch.arange(7) + 0.5) * h_x
    torch.testing.assert_close(columns, centres.double(), rtol=0, atol=1e-6)


def test_numbers_of_observations_are_every_second_or_spread_over_decades() -> None:
    assert numbers(18) == [1, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert numbers(200) == [1, 2, 5, 10, 20, 50, 100, 200]
    assert numbers(137) == [1, 2, 5, 10, 20, 50, 100, 137]


def test_grid_of_data_that_know_only_their_number_of_points_is_a_ring() -> None:
    data = Twin.__new__(Twin)
    data.n = 13
    assert grid_of(data) == Grid([13])
    with pytest.raises(ValueError, match=r"^data: expected data with states on a grid, got Twin"):
        grid_of(Twin.__new__(Twin))
