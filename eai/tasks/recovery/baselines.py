"""Reference methods for recovering an image: functions from a batch to images (b, 1, h, w)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.data import split_generator
from eai.tasks.recovery.bounds import exact_posterior, known_class, noisy_posterior
from eai.tasks.recovery.calibration import Calibrated, Method
from eai.tasks.recovery.classical import classical_methods
from eai.tasks.recovery.corruptions import GaussianNoise, Images, Levels
from eai.tasks.recovery.data import UNKNOWN, Batch, ImageData, Patterns
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.netcdf import FieldImages
from eai.tasks.recovery.patterns import NOISE, class_means
from eai.tasks.recovery.statistical import Analogues, LinearRegression, OptimalInterpolation

# Error s of optimal interpolation, scale s of analogues: in units of σ where noise is Gaussian, else of grey values.
ERRORS, NOISE_FACTORS = (0.01, 0.03, 0.1, 0.2, 0.4), (0.6, 0.7, 0.85, 1.0, 1.2)
FIELD_ERRORS = (0.0003, 0.001, 0.003, 0.01, 0.03, 0.1)  # of s, where anomalies have a standard deviation of 0.1
SCALES, NOISE_SCALES = (0.1, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0), (1.0, 2.0, 3.0, 5.0, 7.0, 10.0)
PENALTIES = (1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)  # λ of the linear regression, in grey values²
REGRESSED_PIXELS = 4096  # a regression of more would take minutes to fit
CALIBRATION_SAMPLES = 100


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


def known_mean(batch: Batch) -> Float[Tensor, "1 1 h w"]:
    """The mean of the images where they are known, ½ where none is."""
    count = batch.valid.sum(0, keepdim=True)
    return torch.where(count > 0, (batch.x * batch.valid).sum(0, keepdim=True) / count.clamp(min=1), UNKNOWN)


def references(data: ImageData, classical: bool) -> Mapping[str, Method]:
    """All methods that make sense for these data, by name; without ``classical`` those of scikit-image stay out.

    What learns from training images sees those of the first epoch, where they are new in each. Where y is x already,
    whatever makes use of y would be perfect, which tells nothing: what is left sees no pixel.
    """
    corruption = data.corruption
    train = data.generate("train", split_generator(data.seed, "train", device=data.device))
    mean = known_mean(train)
    blind: dict[str, Method] = {"pattern_mean": lambda batch: mean.to(batch.x.device).expand_as(batch.x)}
    if isinstance(data, FieldImages):
        blind = {"climatology": lambda batch: torch.full_like(batch.y, UNKNOWN)}
    if corruption.exact and not corruption.hides:
        return {**blind, **bounds(data)}
    methods: dict[str, Method] = {"input": lambda batch: batch.y, "mean_fill": mean_fill, **blind}
    if isinstance(corruption, Downscale):
        upscale = corruption.upscale
        methods |= {
            "nearest": lambda batch: upscale(batch.y, "nearest"),
            "bilinear": lambda batch: upscale(batch.y, "bilinear"),
            "bicubic": lambda batch: upscale(batch.y, "bicubic"),
        }
    elif classical:
        methods |= classical_methods(corruption, data)
    return {**methods, **learned(data, train), **bounds(data)}


def learned(data: ImageData, train: Batch) -> Mapping[str, Method]:
    """What training images give without a network."""
    corruption = data.corruption
    told, coarse = isinstance(corruption, GaussianNoise), isinstance(corruption, Downscale)

    def calibrated(method: Callable[[Batch, Levels], Images], grid: Sequence[float], per_level: bool = told) -> Method:
        return Calibrated(method, grid, data, per_level, CALIBRATION_SAMPLES)

    errors = NOISE_FACTORS if told else FIELD_ERRORS if isinstance(data, FieldImages) else ERRORS
    optimal = calibrated(OptimalInterpolation(train, corruption), errors)
    methods: dict[str, Method] = {"optimal_interpolation" if corruption.hides or coarse else "wiener": optimal}
    if not corruption.hides and data.height * data.width <= REGRESSED_PIXELS:
        methods["linear_regression"] = calibrated(LinearRegression(train), PENALTIES, per_level=False)
    if not coarse:
        invariant = isinstance(data, Patterns) and data.kind != "tutorial"
        analogues = Analogues(train.x, corruption, invariant)
        methods["analogues"] = calibrated(analogues, NOISE_SCALES if told else SCALES)
    return methods


def bounds(data: ImageData) -> Mapping[str, Method]:
    """What is attainable where the pattern set is finite, the slides' ten, and the corruption names its likelihood."""
    if not isinstance(data, Patterns) or data.kind != "tutorial":
        return {}
    methods: dict[str, Method] = {"class_mean": class_mean}
    corruption, templates = data.corruption, class_means(data.height, data.width)
    if corruption.exact and not corruption.hides:
        return methods
    known = partial(known_class, templates=templates, noise=NOISE, likelihood=corruption.likelihood)
    if corruption.exact:
        return methods | {"known_class": known, "template": partial(exact_posterior, templates=templates, noise=NOISE)}
    if corruption.likelihood is None:
        return methods
    noisy = partial(noisy_posterior, templates=templates, noise=NOISE, likelihood=corruption.likelihood)
    return methods | {"known_class": known, "template": noisy}
