"""A small U-Net beside a dense recall of the whole image."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from eai.core.errors import require
from eai.tasks.recovery.data import Batch
from eai.tasks.recovery.nets import Reconstruction


def _two_convolutions(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(channels_out, channels_out, 3, padding=1),
        nn.GELU(),
    )


class UNet(nn.Module):
    """x̂ = sigmoid(recall(y, mask) + unet(y, mask, sigmoid(recall))).

    Recall is a dense net whose bottleneck of ``dense`` units sees the whole image: it recognises a pattern. The
    U-Net of three resolutions adds what is local. Weights of the recall belong to one image size.

    Args:
        height, width: of the images, at least 8; null with ``dense: 0``, for images of any size.
        channels: of the finest resolution; 2 and 4 times as many on the coarser ones.
        dense: units in each of the two hidden layers of the recall; 0 leaves it out.
    """

    def __init__(self, height: int | None, width: int | None, channels: int = 8, dense: int = 512) -> None:
        super().__init__()
        require(height is None or height >= 8, "height", "null or at least 8", height)
        require(width is None or width >= 8, "width", "null or at least 8", width)
        require(channels >= 1, "channels", "at least 1", channels)
        require(dense >= 0, "dense", "0 or more", dense)
        self.height, self.width, c = height, width, channels
        self.recall: nn.Sequential | None = None
        if dense:
            known = "numbers, because a recall is tied to one size (dense: 0 leaves it out)"
            require(height is not None and width is not None, "height, width", known, (height, width))
            size = cast(int, height), cast(int, width)
            pixels = size[0] * size[1]
            self.recall = nn.Sequential(
                nn.Flatten(), nn.Linear(2 * pixels, dense), nn.GELU(),
                nn.Linear(dense, dense), nn.GELU(), nn.Linear(dense, pixels), nn.Unflatten(1, (1, *size)),
            )  # fmt: skip
        self.fine, self.middle = _two_convolutions(3 if dense else 2, c), _two_convolutions(c, 2 * c)
        self.coarse = _two_convolutions(2 * c, 4 * c)
        self.to_middle, self.to_fine = _two_convolutions(6 * c, 2 * c), _two_convolutions(3 * c, c)
        self.out = nn.Conv2d(c, 1, 1)

    def forward(self, batch: Batch) -> Reconstruction:
        height, width = batch.y.shape[-2:]
        fits = self.height in (None, height) and self.width in (None, width)
        require(fits, "net", f"images of height × width = {self.height} × {self.width}", f"{height} × {width}")
        seen = torch.cat([batch.y, batch.mask], 1)
        if self.recall is None:
            return Reconstruction(torch.sigmoid(self.local(seen)))
        recalled = self.recall(seen)
        return Reconstruction(torch.sigmoid(recalled + self.local(torch.cat([seen, torch.sigmoid(recalled)], 1))))

    def local(self, h: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """The U-Net's part, before the sigmoid."""
        fine = self.fine(h)
        middle = self.middle(functional.avg_pool2d(fine, 2))
        coarse = self.coarse(functional.avg_pool2d(middle, 2))
        middle = self.to_middle(torch.cat([functional.interpolate(coarse, middle.shape[-2:]), middle], 1))
        return self.out(self.to_fine(torch.cat([functional.interpolate(middle, fine.shape[-2:]), fine], 1)))
