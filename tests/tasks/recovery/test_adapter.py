"""Image models of a library as nets of the recovery task."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from eai.core.errors import ConfigError
from eai.tasks.recovery.adapter import ImageModel
from eai.tasks.recovery.data import Batch
from tests.runs import Train


def batch(generator: torch.Generator) -> Batch:
    y = torch.rand(3, 1, 7, 5, generator=generator)
    mask = (torch.rand(3, 1, 7, 5, generator=generator) > 0.3).float()
    return Batch(
        y,
        mask,
        y,
        torch.zeros(3, dtype=torch.int64),
        torch.zeros(3),
        torch.zeros(3, dtype=torch.bool),
        torch.ones_like(y),
    )


def test_model_gets_the_image_and_the_mask_as_channels(generator: torch.Generator) -> None:
    images = batch(generator)
    weights = nn.Conv2d(2, 1, 1, bias=False)
    weights.weight.data = torch.tensor([0.25, 3.0]).view(1, 2, 1, 1)
    assert torch.allclose(ImageModel(weights)(images).image, 0.25 * images.y + 3 * images.mask)
    assert torch.equal(ImageModel(nn.Identity(), mask=False)(images).image, images.y)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("{_target_: torch.nn.Conv2d, in_channels: 5, out_channels: 1, kernel_size: 1}", "images of 2 channels"),
        ("{_target_: torch.nn.Conv2d, in_channels: 2, out_channels: 3, kernel_size: 1}", "expected images of shape"),
        ("{_target_: torch.nn.Conv2d, in_channels: 2, out_channels: 1, kernel_size: 3}", "expected images of shape"),
    ],
)
def test_model_that_does_not_fit_the_images_is_named(node: str, message: str, train: Train) -> None:
    overrides = (
        "task=recovery",
        "model/recovery=any",
        "~model.net.model",
        f"+model.net.model={node}",
        "data.n_train=8",
    )
    with pytest.raises(ConfigError, match=rf"^model\.net\.model: .*{message}"):
        train(*overrides, "data.n_train=8")
