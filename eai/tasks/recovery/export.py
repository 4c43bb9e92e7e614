"""Recovered images as a dataset: ``corrupted``, ``mask``, ``truth``, ``recovered`` and the baselines' images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.export import Variable, named
from eai.tasks.recovery.data import Batch, ImageData

DIMS = ("sample", "y", "x")


def coordinates(data: ImageData) -> Mapping[str, Variable]:
    """Numbers of samples and pixels.

    Args:
        data: of the run.
    """
    sizes = {"sample": len(data.batch("test").x), "y": data.height, "x": data.width}
    told = {"sample": "number of the test image", "y": "row, from the top", "x": "column, from the left"}
    return {name: named((name,), torch.arange(size), told[name]) for name, size in sizes.items()}


def variables(
    data: ImageData, batch: Batch, estimates: Mapping[str, Float[Tensor, "b 1 h w"]]
) -> Mapping[str, Variable]:
    """Images in [0, 1], and what is known of each.

    Args:
        data: of the run.
        batch: pairs of images.
        estimates: of every method.
    """
    classes = " ".join(f"{number}:{name.replace(' ', '_')}" for number, name in enumerate(data.classes))
    return {
        "corrupted": named(DIMS, batch.y[:, 0], "what the network sees"),
        "mask": named(DIMS, batch.mask[:, 0] == 1, "1 where a pixel was seen, 0 where it is hidden"),
        "truth": named(DIMS, batch.x[:, 0], "clean image"),
        "level": named(DIMS[:1], batch.level, f"strength of the corruption: {data.corruption.unit}"),
        "label": named(DIMS[:1], batch.label, f"class ({classes})"),
        "recovered": named(DIMS, estimates["network"][:, 0], "image recovered by the network"),
        **{
            f"recovered_{name}": named(DIMS, image[:, 0], f"image recovered by {name}")
            for name, image in estimates.items()
            if name != "network"
        },
    }
