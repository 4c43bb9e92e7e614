"""Recovered images as a dataset: ``corrupted``, ``mask``, ``truth``, ``recovered`` and the baselines' images.

Of fields from files they are anomalies in the variable's units, NaN where missing; ``climatology`` added to them gives
the variable itself. Time, latitude and longitude are those of the file.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.export import Variable, named
from eai.fields.times import minutes_since_first
from eai.tasks.recovery.data import UNKNOWN, Batch, ImageData
from eai.tasks.recovery.netcdf import FieldImages, places

DIMS = ("sample", "y", "x")


def coordinates(data: ImageData) -> Mapping[str, Variable]:
    """Numbers of samples and pixels.

    Args:
        data: of the run.
    """
    if isinstance(data, FieldImages):
        return _of_file(data)
    sizes = {"sample": len(data.batch("test").x), "y": data.height, "x": data.width}
    told = {"sample": "number of the test image", "y": "row, from the top", "x": "column, from the left"}
    return {name: named((name,), torch.arange(size), told[name]) for name, size in sizes.items()}


def _of_file(data: FieldImages) -> Mapping[str, Variable]:
    """Time and places of the test patches, and the climatology there."""
    windows, fields = data.windows["test"], data.fields
    minutes, units, calendar = minutes_since_first(fields.times)
    latitude, longitude = places(fields, windows, (data.height, data.width))
    months = torch.from_numpy(fields.months[windows.step])
    background = data.cut_maps(data.scaling.background(months), windows)
    time = torch.from_numpy(minutes[windows.step])
    return {
        "time": named(DIMS[:1], time, "time", units, standard_name="time", calendar=calendar),
        "latitude": named(DIMS, torch.from_numpy(latitude), "latitude", "degrees_north", standard_name="latitude"),
        "longitude": named(DIMS, torch.from_numpy(longitude), "longitude", "degrees_east", standard_name="longitude"),
        "climatology": named(DIMS, background, f"{fields.long_names[0]}, mean of the training period", fields.units[0]),
    }


def variables(
    data: ImageData, batch: Batch, estimates: Mapping[str, Float[Tensor, "b 1 h w"]]
) -> Mapping[str, Variable]:
    """Images in [0, 1], or anomalies in a variable's units, and what is known of each.

    Args:
        data: of the run.
        batch: pairs of images.
        estimates: of every method.
    """
    classes = " ".join(f"{number}:{name.replace(' ', '_')}" for number, name in enumerate(data.classes))
    units, suffix = "1", ""
    if isinstance(data, FieldImages):
        units, suffix = data.fields.units[0], f": {data.fields.long_names[0]}, anomaly from the climatology"
    seen = batch.mask if data.corruption.exact else batch.valid

    def image(pixels: Float[Tensor, "b 1 h w"], known: Float[Tensor, "b 1 h w"], told: str) -> Variable:
        if isinstance(data, FieldImages):
            extent = data.scaling.extent.to(pixels)
            pixels = torch.where(known == 1, extent * (pixels - UNKNOWN), torch.nan)
        return named(DIMS, pixels[:, 0], told + suffix, units)

    return {
        "corrupted": image(batch.y, seen, "what the network sees"),
        "mask": named(DIMS, batch.mask[:, 0] == 1, "1 where a pixel was seen, 0 where it is hidden"),
        "truth": image(batch.x, batch.valid, "clean image"),
        "level": named(DIMS[:1], batch.level, f"strength of the corruption: {data.corruption.unit}"),
        "label": named(DIMS[:1], batch.label, f"class ({classes})"),
        "recovered": image(estimates["network"], batch.valid, "image recovered by the network"),
        **{
            f"recovered_{name}": image(pixels, batch.valid, f"image recovered by {name}")
            for name, pixels in estimates.items()
            if name != "network"
        },
    }
