"""Analyses as a dataset: ``background``, ``analysis``, ``optimum``, ``truth``, the baselines' and the observations.

Of a file they are anomalies in the variable's units; ``climatology`` added to those of states gives the variable.
Time, latitude and longitude are those of the file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.data import DataModule, split_generator
from eai.core.learn.export import Variable, named
from eai.fields.times import minutes_since_first
from eai.tasks.assimilation.data import grid_of
from eai.tasks.assimilation.osse import OSSE
from eai.variational.batch import Batch
from eai.variational.export import observations
from eai.variational.geographic import GeographicGrid

FILE = ("sample", "latitude", "longitude")
PLACES = {"latitude": "degrees_north", "longitude": "degrees_east"}
NAMES = {"network": "analysis", "blue": "optimum", "background": "background"}


def coordinates(data: DataModule[Batch]) -> Mapping[str, Variable]:
    """Numbers of samples and observations, and the places of grid points.

    Args:
        data: of the run.
    """
    batch, grid = data.batch("test"), grid_of(data)
    numbers = {
        "sample": named(("sample",), torch.arange(len(batch.xb)), "number of the test sample"),
        "observation": named(("observation",), torch.arange(batch.y.shape[1]), "number of the observation"),
    }
    if isinstance(data, OSSE):
        return {**numbers, **_of_file(data)}
    points = grid.position(torch.arange(grid.n), torch.zeros(grid.n, grid.d)).unflatten(0, grid.shape)
    if grid.d == 1:
        places = {"x": named(("x",), points[:, 0], "angle on the ring", "radian", axis="X")}
    else:
        places = {
            "grid_y": named(("grid_y",), points[:, 0, 0], "place along y", axis="Y"),
            "grid_x": named(("grid_x",), points[0, :, 1], "place along x", axis="X"),
        }
    return {**numbers, **places}


def _of_file(data: OSSE) -> Mapping[str, Variable]:
    """Time of the test samples, places, and the climatology there."""
    steps, fields = data.truths("test", split_generator(data.seed, "test")), data.states.fields
    minutes, units, calendar = minutes_since_first(fields.times)
    climatology = data.states.climatology(steps).unflatten(1, data.grid.shape)
    told = f"{fields.long_names[0]}, mean of the training period"
    north, east = {"standard_name": "latitude", "axis": "Y"}, {"standard_name": "longitude", "axis": "X"}
    return {
        "time": named(
            ("sample",), torch.from_numpy(minutes[steps]), "time", units, standard_name="time", calendar=calendar
        ),
        "latitude": named(("latitude",), data.grid.latitude, "latitude", "degrees_north", **north),
        "longitude": named(("longitude",), data.grid.longitude, "longitude", "degrees_east", **east),
        "climatology": named(FILE, climatology, told, fields.units[0]),
    }


def variables(
    data: DataModule[Batch], batch: Batch, estimates: Mapping[str, Float[Tensor, "b n"]]
) -> Mapping[str, Variable]:
    """States on the grid, and observations with what is known of them.

    Args:
        data: of the run.
        batch: backgrounds and observations.
        estimates: of every method.
    """
    grid, unit, units, suffix = grid_of(data), 1.0, "1", ""
    dims = ("sample", "x") if grid.d == 1 else ("sample", "grid_y", "grid_x")
    there, used = ("sample", "observation"), (batch.obs_mask > 0) | (batch.obs_withheld > 0)
    if isinstance(data, OSSE):
        dims, unit, units = FILE, data.states.sigma, data.states.fields.units[0]
        suffix = f": {data.states.fields.long_names[0]}, anomaly from the climatology"
    places = {}
    if isinstance(grid, GeographicGrid):
        for name, degrees in zip(PLACES, grid.degrees(batch.obs_index, batch.obs_fraction), strict=True):
            known = torch.where(used, degrees, torch.nan)
            places[f"obs_{name}"] = named(there, known, f"{name} of the observation", PLACES[name])

    def state(values: Float[Tensor, "b n"], told: str) -> Variable:
        return named(dims, unit * values.unflatten(1, grid.shape), told + suffix, units)

    found = observations(
        there, used, unit * batch.y, batch.obs_index, batch.obs_fraction, unit * batch.obs_sigma, units=units
    )
    return {
        "truth": state(batch.xt, "truth"),
        **{
            NAMES.get(name, f"analysis_{name}"): state(values, f"analysis by {name}")
            for name, values in estimates.items()
        },
        **found,
        **places,
        "obs_assimilated": named(there, batch.obs_mask > 0, "1 where assimilated, 0 where withheld or none"),
    }
