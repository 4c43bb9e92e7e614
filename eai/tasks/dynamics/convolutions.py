"""Convolution nets on a ring that others forecast with: peers of our own nets, behind the adapter for image models."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require


class DilatedResNet(nn.Module):
    """Residual blocks of circular convolutions that look ever further and come back (Stachenfeld et al. 2022).

    Args:
        in_channels, out_channels: c + s and c.
        hidden_channels: of all layers between.
        blocks: number of residual blocks.
        dilations: of the convolutions of a block, in points.
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 1,
        hidden_channels: int = 32,
        blocks: int = 2,
        dilations: Sequence[int] = (1, 2, 4, 8, 4, 2, 1),
    ) -> None:
        super().__init__()
        require(hidden_channels >= 1, "hidden_channels", "at least 1", hidden_channels)
        require(blocks >= 1, "blocks", "at least 1", blocks)
        require(len(dilations) >= 1 and min(dilations) >= 1, "dilations", "numbers of at least 1", list(dilations))
        self.lift = _convolution(in_channels, hidden_channels)
        self.blocks = nn.ModuleList(
            nn.Sequential(*(part for dilation in dilations
                            for part in (_convolution(hidden_channels, hidden_channels, dilation), nn.ReLU())))
            for _ in range(blocks)
        )  # fmt: skip
        self.project = nn.Conv1d(hidden_channels, out_channels, 1)

    def forward(self, x: Float[Tensor, "b i n"]) -> Float[Tensor, "b o n"]:
        h = self.lift(x)
        for block in self.blocks:
            h = h + block(h)
        return self.project(h)


class UNet(nn.Module):
    """Two circular convolutions at each of several resolutions, down and back up (Ronneberger et al. 2015).

    Args:
        in_channels, out_channels: c + s and c.
        hidden_channels: at the full resolution; twice as many at each halving.
        levels: halvings. Where the number of points is not divisible by 2^levels, the last one counts alone.
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 1, hidden_channels: int = 16, levels: int = 2) -> None:
        super().__init__()
        require(hidden_channels >= 1, "hidden_channels", "at least 1", hidden_channels)
        require(levels >= 1, "levels", "at least 1", levels)
        widths = [hidden_channels * 2**level for level in range(levels + 1)]
        self.first = _two_convolutions(in_channels, widths[0])
        self.down = nn.ModuleList(_two_convolutions(a, b) for a, b in pairwise(widths))
        self.lift = nn.ModuleList(nn.ConvTranspose1d(b, a, 2, stride=2) for a, b in pairwise(widths))
        self.up = nn.ModuleList(_two_convolutions(2 * a, a) for a in widths[:-1])
        self.project = nn.Conv1d(widths[0], out_channels, 1)

    def forward(self, x: Float[Tensor, "b i n"]) -> Float[Tensor, "b o n"]:
        h, kept = self.first(x), []
        for down in self.down:
            kept.append(h)
            h = down(nn.functional.max_pool1d(h, 2, ceil_mode=True))
        for lift, up, before in zip(reversed(self.lift), reversed(self.up), reversed(kept), strict=True):
            h = up(torch.cat([before, lift(h)[..., : before.shape[2]]], dim=1))
        return self.project(h)


def _convolution(inputs: int, outputs: int, dilation: int = 1) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, 3, padding=dilation, dilation=dilation, padding_mode="circular")


def _two_convolutions(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_convolution(inputs, outputs), nn.GELU(), _convolution(outputs, outputs), nn.GELU())
