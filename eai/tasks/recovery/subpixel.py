"""A linear net from a coarse image to a fine one."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn import functional

from eai.core.errors import require
from eai.tasks.recovery.data import Batch
from eai.tasks.recovery.nets import Reconstruction


class SubPixel(nn.Module):
    """x̂ = c + K * (c − ½) in each block, c its mean: linear in y by construction.

    The convolution K on the coarse grid has factor² output channels, one for each pixel of a block (Shi et al. 2016).
    It treats all blocks alike, as the best linear estimate of a field without preferred places does.

    Args:
        factor: edge of the blocks, in pixels, at least 2; height and width of the images must be its multiples.
        kernel: edge of the window, in blocks, odd.
        periodic: the images are periodic; otherwise what lies beyond their edges counts as ½.
    """

    def __init__(self, factor: int, kernel: int = 7, periodic: bool = False) -> None:
        super().__init__()
        require(factor >= 2, "factor", "at least 2", factor)
        require(kernel >= 1 and kernel % 2 == 1, "kernel", "an odd number", kernel)
        self.factor = factor
        mode: Literal["circular", "zeros"] = "circular" if periodic else "zeros"
        self.increment = nn.Conv2d(1, factor**2, kernel, padding=kernel // 2, padding_mode=mode)

    def forward(self, batch: Batch) -> Reconstruction:
        height, width = batch.y.shape[-2:]
        fits = height % self.factor == 0 and width % self.factor == 0
        require(fits, "net", f"height and width that are multiples of {self.factor}", f"{height} × {width}")
        coarse = functional.avg_pool2d(batch.y, self.factor)
        return Reconstruction(functional.pixel_shuffle(coarse + self.increment(coarse - 0.5), self.factor))
