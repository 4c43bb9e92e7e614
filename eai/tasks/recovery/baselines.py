"""Reference methods for recovering an image: functions from a batch to images (b, 1, h, w)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from jaxtyping import Float
from torch import Tensor

from eai.core.learn.data import DataModule, split_generator
from eai.tasks.recovery.bounds import exact_posterior, known_class, noisy_posterior
from eai.tasks.recovery.classical import Method, classical_methods
from eai.tasks.recovery.corruptions import Chain, GaussianNoise, SaltAndPepper
from eai.tasks.recovery.data import Batch, ImageData, Patterns
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.patterns import NOISE, class_means


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
    first = data.generate("train", split_generator(data.seed, "train", device=data.device))
    return first.x.mean(0, keepdim=True)


def references(data: ImageData, classical: bool) -> Mapping[str, Method]:
    """All methods that make sense for these data, by name; without ``classical`` those of scikit-image stay out."""
    corruption, climatology = data.corruption, pattern_mean(data)
    methods: dict[str, Method] = {
        "input": lambda batch: batch.y,
        "mean_fill": mean_fill,
        "pattern_mean": lambda batch: climatology.to(batch.x.device).expand_as(batch.x),
    }
    if isinstance(corruption, Downscale):
        upscale = corruption.upscale
        methods |= {
            "nearest": lambda batch: upscale(batch.y, "nearest"),
            "bilinear": lambda batch: upscale(batch.y, "bilinear"),
            "bicubic": lambda batch: upscale(batch.y, "bicubic"),
        }
    elif classical:
        methods |= classical_methods(corruption, data)
    return {**methods, **bounds(data)}


def bounds(data: ImageData) -> Mapping[str, Method]:
    """What is attainable where the pattern set is finite: the slides' ten."""
    if not isinstance(data, Patterns) or data.kind != "tutorial":
        return {}
    methods: dict[str, Method] = {"class_mean": class_mean}
    corruption, templates = data.corruption, class_means(data.height, data.width)
    if isinstance(corruption, (SaltAndPepper, Downscale)) or (isinstance(corruption, Chain) and not corruption.exact):
        return methods
    clip = isinstance(corruption, GaussianNoise) and corruption.clip
    known = partial(known_class, templates=templates, noise=NOISE, clip=clip, exact=corruption.exact)
    if corruption.exact:
        return methods | {"known_class": known, "template": partial(exact_posterior, templates=templates, noise=NOISE)}
    noisy = partial(noisy_posterior, templates=templates, noise=NOISE, clip=clip)
    return methods | {"known_class": known, "template": noisy}
