"""A net that corrects a smooth filling of the gaps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from eai.core.errors import require
from eai.tasks.recovery.corruptions import Images
from eai.tasks.recovery.data import UNKNOWN, Batch
from eai.tasks.recovery.nets import Reconstruction
from eai.tasks.recovery.statistical import conjugate_gradients, spread, stationary_prior
from eai.tasks.recovery.unet import UNet


def pull_push(y: Images, mask: Images) -> Images:
    """Gaps filled from coarser and coarser images (Gortler et al. 1996, The Lumigraph).

    Pulled: every coarse pixel is the mean of the seen ones among four, down to a single pixel. Pushed: from the
    coarsest on, what has no seen pixel takes the bilinear interpolation of the level above. ½ where nothing is seen.

    Args:
        y: images; what is hidden is not looked at.
        mask: 1 where seen, else 0.
    """
    levels = [(y * mask, mask)]
    while max(levels[-1][0].shape[-2:]) > 1:
        value, seen = (functional.avg_pool2d(part, 2, ceil_mode=True, count_include_pad=False) for part in levels[-1])
        known = (seen > 0).to(y.dtype)
        levels.append((value / seen.clamp(min=1e-6) * known, known))
    value, known = levels.pop()
    filled = torch.where(known == 1, value, UNKNOWN)
    for value, known in reversed(levels):
        coarse = functional.interpolate(filled, value.shape[-2:], mode="bilinear", align_corners=False)
        filled = torch.where(known == 1, value, coarse)
    return filled


def _silence(layer: nn.Module) -> None:
    for weights in layer.parameters():
        nn.init.zeros_(weights)


class FillingUNet(nn.Module):
    """x̂ = p + unet((p − ½)/0.1, mask)/10 with p what is seen, its gaps filled by :func:`pull_push`.

    Untrained it is p. For images of any size.

    Args:
        channels: of the finest resolution; 2 and 4 times as many on the coarser ones.
    """

    def __init__(self, channels: int = 16) -> None:
        super().__init__()
        self.unet = UNet(None, None, channels, dense=0)
        _silence(self.unet.out)

    def forward(self, batch: Batch) -> Reconstruction:
        filled = pull_push(batch.y, batch.mask)
        return Reconstruction(filled + self.unet.local(torch.cat([10 * (filled - UNKNOWN), batch.mask], 1)) / 10)


class CorrectedInterpolation(nn.Module):
    """x̂ = p + unet((p − ½)/0.1, mask)/10 with p the optimal interpolation of the seen pixels.

    p is that of :class:`eai.tasks.recovery.statistical.OptimalInterpolation`; its mean and spectrum are taken from the
    training images and kept in the checkpoint. Untrained it is p.

    Args:
        height, width: of the images, which the spectrum is tied to; at least 8.
        channels: of the finest resolution of the U-Net.
        error: s of the interpolation, above 0.
    """

    TOLERANCE, ITERATIONS = 1e-4, 500
    mean: Tensor
    spectrum: Tensor

    def __init__(self, height: int, width: int, channels: int = 16, error: float = 0.001) -> None:
        super().__init__()
        require(height >= 8, "height", "at least 8", height)
        require(width >= 8, "width", "at least 8", width)
        require(error > 0, "error", "above 0", error)
        self.height, self.width, self.error = height, width, error
        self.register_buffer("mean", torch.tensor(UNKNOWN))
        self.register_buffer("spectrum", torch.ones(height, width // 2 + 1))
        self.unet = UNet(None, None, channels, dense=0)
        _silence(self.unet.out)

    def fit(self, train: Batch) -> None:
        """Take the mean and the spectrum from training images.

        Args:
            train: of them, many.
        """
        mean, spectrum = stationary_prior(train)
        self.mean.fill_(mean)
        self.spectrum.copy_(spectrum)

    @torch.no_grad()
    def interpolation(self, batch: Batch) -> Images:
        """p of a batch."""

        def system(v: Images) -> Images:
            return spread(v, self.spectrum) * batch.mask + self.error**2 * v

        innovation = (batch.y - self.mean) * batch.mask
        weights = conjugate_gradients(system, innovation, self.TOLERANCE, self.ITERATIONS)
        return torch.where(batch.mask == 1, batch.y, self.mean + spread(weights, self.spectrum))

    def forward(self, batch: Batch) -> Reconstruction:
        height, width = batch.y.shape[-2:]
        fits = (height, width) == (self.height, self.width)
        require(fits, "net", f"images of height × width = {self.height} × {self.width}", f"{height} × {width}")
        filled = self.interpolation(batch)
        return Reconstruction(filled + self.unet.local(torch.cat([10 * (filled - UNKNOWN), batch.mask], 1)) / 10)
