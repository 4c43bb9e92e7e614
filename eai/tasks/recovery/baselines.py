"""Reference methods for recovering an image: functions from a batch to images (b, 1, h, w)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from eai.core.data import DataModule, split_generator
from eai.tasks.recovery.data import Batch
from eai.tasks.recovery.patterns import class_means


def mean_fill(batch: Batch) -> Float[Tensor, "b 1 h w"]:
    """y, with each hidden pixel replaced by the mean of the image's seen pixels (by 0 if it has none)."""
    count = batch.mask.sum((1, 2, 3), keepdim=True)
    mean = (batch.y * batch.mask).sum((1, 2, 3), keepdim=True) / count.clamp(min=1)
    return batch.y * batch.mask + mean * (1 - batch.mask)


def class_mean(batch: Batch) -> Float[Tensor, "b 1 h w"]:
    """E[x | class], by an oracle that is told the class and sees no pixel.

    Its error is zero in the nine fixed classes; in the noise class it is the variance of the noise, 1/12
    outside the circle, which is irreducible for whoever does not see those pixels.
    """
    height, width = batch.x.shape[-2:]
    return class_means(height, width).to(batch.x.device)[batch.label][:, None]


def pattern_mean(data: DataModule[Batch]) -> Float[Tensor, "1 1 h w"]:
    """The mean of the training images, of the first epoch where they are new in each: the climatology."""
    return data.generate("train", split_generator(data.seed, "train")).x.mean(0, keepdim=True)
