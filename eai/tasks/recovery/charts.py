"""Charts of all methods on test images: against the strength of the corruption, and against the wavelength."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any

import torch
from matplotlib.figure import Figure

from eai.core.learn.data import split_generator
from eai.core.palette import BLACK, GREEN, INPUT, ORANGE, PREDICTION, PURPLE, SKY, legend_below, new_figure
from eai.core.style.wording import in_words
from eai.tasks.recovery.corruptions import Images
from eai.tasks.recovery.data import UNKNOWN, Batch, ImageData, pixel_mean
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.scores import psnr

# Colour and marker of the other methods in line charts; dotted lines start again.
_METHODS = ((INPUT, "s"), (GREEN, "v"), (PURPLE, "D"), (ORANGE, "P"), (SKY, "X"))


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Of each method; the network's colour is no other's."""
    others = (
        {"color": colour, "marker": marker, "ls": line}
        for line in cycle(("-", ":", "-."))
        for colour, marker in _METHODS
    )
    network = {"color": PREDICTION, "marker": "o", "lw": 2.2, "zorder": 3}
    return {name: network if name == "network" else next(others) for name in names}


def by_level(data: ImageData, methods: Mapping[str, Callable[[Batch], Images]], device: torch.device) -> Figure:
    """Each method's pooled PSNR on 20 test images corrupted with nine strengths, in and beyond the training range."""
    low, high = data.corruption.levels
    if data.corruption.integer:
        levels = sorted({round(v) for v in torch.linspace(1, min(data.height, data.width, 1.2 * high + 4), 9).tolist()})
    else:
        levels = torch.linspace(max(0.02, 0.25 * low), min(0.95, 1.8 * high + 0.02), 9).tolist()
    clean = data.batch("test", 20)
    scores: dict[str, list[float]] = {name: [] for name in methods}
    for level in levels:
        strength = torch.full((len(clean.x),), float(level), device=clean.x.device)
        corrupted = data.again(clean, split_generator(data.seed, "test", 1, data.device), strength)
        batch = Batch(*(field.to(device) for field in corrupted))
        for name, method in methods.items():
            error, count = pixel_mean((method(batch) - batch.x).square(), batch.valid)
            scores[name].append(psnr((error * count).sum() / count.sum()).item())
    return score_by_level(levels, scores, (low, high), data.corruption.unit)


def isotropic_power(image: Images) -> tuple[list[float], list[float]]:
    """(wavelengths in pixels, mean power |x̂(k)|² / n² of the Fourier modes there) over n pixels, in rings of |k|.

    Rings are as wide as the lowest frequency of the shorter side and reach to a wavelength of two pixels.
    """
    height, width = image.shape[-2:]
    row, column = torch.fft.fftfreq(height, device=image.device), torch.fft.fftfreq(width, device=image.device)
    count = min(height, width)
    ring = ((row[:, None] ** 2 + column**2).sqrt() * count).round().long()
    power = (torch.fft.fft2(image).abs() / (height * width)).square().mean((0, 1))
    rings = range(1, count // 2 + 1)
    return [count / k for k in rings], [power[ring == k].mean().item() for k in rings]


def spectrum(data: ImageData, methods: Mapping[str, Callable[[Batch], Images]], device: torch.device) -> Figure:
    """The isotropic spectrum of the truth and of each method on test images."""
    batch = Batch(*(field.to(device) for field in data.batch("test", 200)))
    images = {"truth": batch.x, **{name: method(batch) for name, method in methods.items()}}
    images = {name: torch.where(batch.valid == 1, image, UNKNOWN) for name, image in images.items()}
    power = {name: isotropic_power(image) for name, image in images.items()}
    factor = data.corruption.factor if isinstance(data.corruption, Downscale) else 1
    return spectra(power["truth"][0], {name: values for name, (_, values) in power.items()}, factor)


def score_by_level(
    levels: Sequence[float], scores: Mapping[str, Sequence[float]], trained: tuple[float, float], unit: str
) -> Figure:
    """Pooled PSNR of each method against the strength of the corruption, the training range shaded."""
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    margin = 0.01 * (levels[-1] - levels[0])
    axes.axvspan(trained[0] - margin, trained[1] + margin, color="#DDDDDD", label="strengths in training")
    styles = _styles(name for name in scores if name != "template")
    for name, values in scores.items():
        if name == "template":
            axes.plot(levels, values, color=BLACK, ls="--", zorder=4, label="bound for every method (template)")
        else:
            axes.plot(levels, values, **styles[name], label=in_words(name))
    axes.set(
        ylim=(0, 55),
        xlabel=unit,
        ylabel="pooled PSNR (dB)",
        title="Recovery by strength of the corruption: higher is better",
    )
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def spectra(wavelengths: Sequence[float], power: Mapping[str, Sequence[float]], factor: int) -> Figure:
    """Power of each method's images against the wavelength, both axes logarithmic, truth first."""
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    axes.axvspan(min(wavelengths), 2 * factor, color="#DDDDDD", label="not resolved by the input")
    styles = {**_styles(name for name in power if name != "truth"), "truth": {"color": BLACK}}
    for name, values in power.items():
        axes.plot(wavelengths, values, **styles[name], ms=4, label=in_words(name))
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(
        ylim=(1e-8, 1e-1), xlabel="wavelength (pixels)", ylabel="power of a Fourier mode (grey value²)",
        title="Spectrum: recovered images should have as much power as the truth",
    )  # fmt: skip
    axes.invert_xaxis()
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure
