"""Coarse images: block means or every f-th pixel, and the ways back to the fine grid."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from eai.core.errors import require
from eai.tasks.recovery.corruptions import Corruption, Images, Levels


class Downscale(Corruption):
    """y holds an image coarser by ``factor`` on the fine grid; height and width must be its multiples.

    ``mean``: y is each block's mean, in all pixels of the block, and the mask is 1 everywhere, although no
    pixel is exact. ``subsample``: the pixel ⌊f/2⌋ of each row and column of a block is kept with mask 1; all others
    are 0 with mask 0.

    Args:
        factor: f, at least 2. The level.
        kind: how blocks become pixels.
    """

    integer, unit = True, "factor"

    def __init__(self, factor: int = 4, kind: Literal["mean", "subsample"] = "mean") -> None:
        require(factor >= 2, "factor", "at least 2", factor)
        require(kind in ("mean", "subsample"), "kind", "mean or subsample", kind)
        self.factor, self.kind = factor, kind
        self.levels = (float(factor), float(factor))
        self.exact = self.hides = kind == "subsample"
        # Where a coarse value lies within its block of fine pixels, counted from 0.
        self.offset = factor // 2 if kind == "subsample" else (factor - 1) / 2

    def coarse(self, x: Images) -> Float[Tensor, "b 1 hc wc"]:
        """A x: the coarse image."""
        if self.kind == "mean":
            return functional.avg_pool2d(x, self.factor)
        first = self.factor // 2
        return x[:, :, first :: self.factor, first :: self.factor]

    def apply(self, x: Images, level: Levels, generator: torch.Generator) -> tuple[Images, Images]:
        self.check_size(x.shape[-2], x.shape[-1])
        mask = torch.ones_like(x)
        if self.kind == "subsample":
            mask = torch.zeros_like(x)
            self.coarse(mask).fill_(1)
        return self.project(x, mask), mask

    def project(self, image: Images, mask: Images) -> Images:
        if self.kind == "subsample":
            return image * mask
        return self.coarse(image).repeat_interleave(self.factor, 2).repeat_interleave(self.factor, 3)

    def check_size(self, height: int, width: int) -> None:
        fits = height % self.factor == 0 and width % self.factor == 0
        require(fits, "corruption", f"height and width that are multiples of {self.factor}", f"{height} × {width}")

    def upscale(self, y: Images, mode: Literal["nearest", "bilinear", "bicubic"]) -> Images:
        """Interpolation of the coarse values from where they lie; constant beyond the outermost."""
        coarse, (height, width) = self.coarse(y), y.shape[-2:]
        rows, columns = (
            2 * (torch.arange(n, device=y.device) - self.offset) / self.factor / max(n // self.factor - 1, 1) - 1
            for n in (height, width)
        )
        grid = torch.stack(torch.broadcast_tensors(columns[None, :], rows[:, None]), -1).to(y.dtype)
        grid = grid.expand(len(y), height, width, 2)
        return functional.grid_sample(coarse, grid, mode=mode, padding_mode="border", align_corners=True)
