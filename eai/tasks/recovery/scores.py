"""Per-sample scores of recovered images, and what is made of their means."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from eai.core.learn.scores import PerSample
from eai.tasks.recovery.baselines import mean_fill
from eai.tasks.recovery.corruptions import Images
from eai.tasks.recovery.data import UNKNOWN, Batch, ImageData, Patterns, pixel_mean
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.netcdf import FieldImages
from eai.tasks.recovery.patterns import CLASSES, NOISE

WINDOW = tuple(math.exp(-0.5 * (offset / 1.5) ** 2) for offset in range(-5, 6))


def psnr(mse: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """−10 log₁₀ MSE in dB, for images in [0, 1]; the MSE is floored at 1e-10, so identical images have 100 dB."""
    return -10 * torch.log10(mse.clamp(min=1e-10))


def ssim(x: Images, estimate: Images, valid: Images) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Structural similarity of each image (Wang et al. 2004), Gaussian window of 11 pixels with σ = 1.5 pixels.

    The mean over the pixels whose window lies within the image and holds known pixels alone, and whether there are any.
    In images smaller than the window, over all; there unknown pixels count as equal.
    """
    estimate = torch.where(valid == 1, estimate, x)
    if min(x.shape[-2:]) < len(WINDOW):
        found = structural_similarity_index_measure(estimate, x, data_range=1.0, reduction="none")
        assert isinstance(found, Tensor)
        return found, valid.amax((1, 2, 3))
    down, across = (_window_means(n).to(x) for n in x.shape[-2:])
    moments = down @ torch.cat([x, estimate, x * x, estimate * estimate, x * estimate]) @ across.T
    mean_x, mean_e, square_x, square_e, product = moments.chunk(5)
    variance_x, variance_e = ((s - m * m).clamp(min=0) for s, m in ((square_x, mean_x), (square_e, mean_e)))
    luminance, contrast = 0.01**2, 0.03**2
    similar = (2 * mean_x * mean_e + luminance) * (2 * (product - mean_x * mean_e) + contrast)
    largest = (mean_x**2 + mean_e**2 + luminance) * (variance_x + variance_e + contrast)
    whole = ((down > 0).to(x) @ (1 - valid) @ (across > 0).to(x).T == 0).to(x)
    mean, count = pixel_mean(similar / largest, whole)
    return mean, count.clamp(max=1)


def _window_means(n: int) -> Float[Tensor, "m n"]:
    """The matrix of weighted means over every window within n pixels: far quicker than a convolution at these sizes."""
    weights = torch.tensor(WINDOW)
    weights = weights / weights.sum()
    start = torch.arange(n - len(WINDOW) + 1)
    matrix = torch.zeros(len(start), n)
    return matrix.scatter(1, start[:, None] + torch.arange(len(WINDOW)), weights.expand(len(start), -1))


def active_units(mean: Float[Tensor, "b latent"]) -> int:
    """How many numbers of a code vary from sample to sample: those with a variance above 0.01 (Burda et al. 2016)."""
    return int((mean.var(0, correction=0) > 0.01).sum())


def fine_power(image: Images, factor: int) -> Float[Tensor, " b"]:
    """Power at wavelengths below 2 ``factor`` pixels, along rows or columns."""
    height, width = image.shape[-2:]
    row, column = torch.fft.fftfreq(height, device=image.device), torch.fft.fftfreq(width, device=image.device)
    fine = (row.abs()[:, None] > 0.5 / factor) | (column.abs() > 0.5 / factor)
    return (torch.fft.fft2(image).abs().square() * fine).sum((1, 2, 3))


def _weighted(item: PerSample, weight: Float[Tensor, " b"]) -> PerSample:
    return (item[0], item[1] * weight) if isinstance(item, tuple) else (item, weight)


class Scoring:
    """The scores that the task's docstring defines, for given data; without data, those of the slides' patterns."""

    def __init__(self, data: ImageData | None) -> None:
        self.classes = CLASSES if data is None else data.classes
        self.noise = NOISE if data is None else data.noise
        self.extrapolates = isinstance(data, Patterns) and data.n_extrapolation > 0
        self.levels = (data.test_levels or []) if data else []
        self.extent: float | None = None
        self.variable, self.northward = "", False  # its name with units; whether its first row is in the south
        if isinstance(data, FieldImages):
            self.extent = float(data.scaling.extent)
            self.variable = f"{data.fields.long_names[0].replace('_', ' ')} ({data.fields.units[0]})"
            self.northward = bool(data.fields.latitude[0, 0] < data.fields.latitude[-1, 0])
        self.downscale = data.corruption if data and isinstance(data.corruption, Downscale) else None

    def per_sample(self, batch: Batch, estimate: Images) -> Mapping[str, PerSample]:
        squares = (estimate - batch.x).square()
        mse, count = pixel_mean(squares, batch.valid)
        share = count / batch.valid[0].numel()
        images = {
            "mse": (mse, share),
            "psnr_mean": (psnr(mse), count.clamp(max=1)),
            "ssim": ssim(batch.x, estimate, batch.valid),
        }
        scores: dict[str, PerSample] = {
            **images,
            "mse_hidden": pixel_mean(squares, batch.valid - batch.mask),
            "mse_seen": pixel_mean(squares, batch.mask),
        }
        if self.noise is not None:
            fixed = (batch.label != self.noise).to(mse.dtype)
            scores |= {f"{name}_reducible": _weighted(item, fixed) for name, item in images.items()}
        for level in self.levels:
            near = torch.isclose(batch.level, torch.tensor(level, device=batch.level.device)).to(mse.dtype)
            scores[f"mse/level_{level:g}"] = (mse, share * near)
        if len(self.classes) > 1:
            scores |= self._by_class(batch, images)
        scores |= self._of_downscaling(batch, estimate)
        if not self.extrapolates:
            return scores
        beyond = batch.beyond.to(mse.dtype)
        apart = {f"{name}/extrapolation": _weighted(item, beyond) for name, item in images.items()}
        return {name: _weighted(item, (~batch.beyond).to(mse.dtype)) for name, item in scores.items()} | apart

    def _by_class(self, batch: Batch, images: Mapping[str, PerSample]) -> dict[str, PerSample]:
        references = {"input": batch.y, "fill": mean_fill(batch)}
        values = dict(images)
        for name, image in references.items():
            values[f"reference_{name}"] = pixel_mean((image - batch.x).square(), batch.valid)
        of_class = {label: (batch.label == k).to(batch.x.dtype) for k, label in enumerate(self.classes)}
        return {f"{name}/{c}": _weighted(item, mine) for name, item in values.items() for c, mine in of_class.items()}

    def _of_downscaling(self, batch: Batch, estimate: Images) -> dict[str, PerSample]:
        if self.downscale is None:
            return {}
        misfit = self.downscale.coarse(torch.where(batch.valid == 1, estimate - batch.x, 0.0))
        known, truth = (torch.where(batch.valid == 1, image, UNKNOWN) for image in (estimate, batch.x))
        return {
            "consistency": misfit.square().mean((1, 2, 3)),
            "power_estimate": fine_power(known, self.downscale.factor),
            "power_truth": fine_power(truth, self.downscale.factor),
        }

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        scores = dict(means)
        if "mse_hidden" not in scores:
            scores.pop("mse_seen", None)
        negative = 0
        for label in self.classes:
            references = [scores.pop(f"reference_{name}/{label}", 0.0) for name in ("input", "fill")]
            if min(references) > 0:
                scores[f"skill/{label}"] = 1 - scores[f"mse/{label}"] / min(references)
                negative += scores[f"skill/{label}"] < 0
        if len(self.classes) > 1:
            scores["negative_skill_classes"] = float(negative)
        if "consistency" in scores:
            scores["consistency"] = math.sqrt(scores["consistency"])
            scores["spectrum_ratio"] = scores.pop("power_estimate") / max(scores.pop("power_truth"), 1e-30)
        if self.extent is not None:
            errors = {"rmse": "mse", "rmse_hidden": "mse_hidden"}
            scores |= {name: self.extent * math.sqrt(scores[key]) for name, key in errors.items() if key in scores}
        names = {"mse": "psnr_pooled", "mse_reducible": "psnr_pooled_reducible", "mse_hidden": "psnr_hidden"}
        names |= {key: key.replace("mse", "psnr_pooled", 1) for key in scores if key.startswith("mse/")}
        for key, name in names.items():
            if key in scores:
                scores[name] = psnr(torch.tensor(scores[key], dtype=torch.float64)).item()
        return scores
