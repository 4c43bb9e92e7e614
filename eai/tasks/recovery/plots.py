"""Figures of the recovery task: pure functions from tensors to a Figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill

import numpy as np
import torch
from jaxtyping import Float, Int
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from eai.core.palette import (
    BLACK,
    BLUE,
    GREEN,
    INPUT,
    ORANGE,
    PREDICTION,
    PURPLE,
    RED,
    SKY,
    legend_below,
    new_figure,
)
from eai.core.style.wording import in_words
from eai.tasks.recovery.data import Batch, pixel_mean
from eai.tasks.recovery.patterns import CLASSES
from eai.tasks.recovery.scores import psnr

# Colour and shape both tell the class, so that either suffices.
_MARKERS = "ovs^D*P<Xp"
_COLOURS = (BLACK, ORANGE, SKY, GREEN, BLUE, RED, PURPLE, "#999999", BLACK, ORANGE)


def recoveries(batch: Batch, image: Float[Tensor, "b 1 h w"], names: Sequence[str] = CLASSES) -> Figure:
    """Original, corrupted, recovered image (grey, 0 black to 1 white) and error (−1 blue to 1 red) of each sample."""
    halves = 1 if len(image) <= 6 else 2
    rows = -(-len(image) // halves)
    figure = new_figure(5.6 * halves, 1.4 * rows + 0.8)
    figure.suptitle(
        "Recovered images: they should look like the originals (below: PSNR); the error is blue at −1, red at 1"
        if halves == 2
        else "Recovered images: they should look like the originals\n(below: PSNR; the error is blue at −1, red at 1)",
        fontsize=11,
    )
    panels = figure.subplots(rows, 4 * halves, squeeze=False)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[], frame_on=False)
    images = (batch.x, batch.y, image.detach())
    for i in range(len(image)):
        half, row = divmod(i, rows)
        triple = panels[row, 4 * half : 4 * half + 4]
        for axes, pixels, title in zip(triple[:3], images, ("original", "corrupted", "recovered"), strict=True):
            axes.imshow(_known(pixels, batch.valid, i), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            axes.set_frame_on(True)
            if row == 0:
                axes.set_title(title)
            if pixels is not batch.x:
                squares = (pixels[i : i + 1] - batch.x[i : i + 1]).square()
                axes.set_xlabel(_quality(pixel_mean(squares, batch.valid[i : i + 1])[0]), fontsize=9)
        error = _known(image.detach() - batch.x, batch.valid, i)
        triple[3].imshow(error, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        triple[3].set_frame_on(True)
        if row == 0:
            triple[3].set_title("error")
        if len(names) > 1:
            triple[0].set_ylabel(fill(names[int(batch.label[i])].replace("_", " "), 12), fontsize=9)
    return figure


def _known(image: Float[Tensor, "b 1 h w"], valid: Float[Tensor, "b 1 h w"], number: int) -> np.ndarray:
    """Values of an image for a map, NaN where it is missing."""
    return torch.where(valid == 1, image, torch.nan)[number, 0].cpu().numpy()


def _quality(mse: Float[Tensor, " 1"]) -> str:
    return f"{psnr(mse).item():.1f} dB" if mse > 0 else "identical"


def class_mse(
    label: Int[Tensor, " b"], mse: Mapping[str, Float[Tensor, " b"]], names: Sequence[str] = CLASSES
) -> Figure:
    """Mean square error of each class, a bar for each method in ``mse`` (network first), on a fixed log axis."""
    figure = new_figure(7.5, 5.0)
    axes = figure.subplots()
    position = np.arange(len(names))
    thickness = 0.8 / len(mse)
    counts = torch.bincount(label.cpu(), minlength=len(names)).clamp(min=1)
    for k, ((name, values), colour) in enumerate(zip(mse.items(), (PREDICTION, INPUT, GREEN), strict=False)):
        means = torch.bincount(label.cpu(), values.cpu().double(), minlength=len(names)) / counts
        offset = (k - (len(mse) - 1) / 2) * thickness
        axes.barh(position + offset, means.numpy(), thickness, color=colour, label=in_words(name))
    axes.set_xscale("log")
    axes.set(xlim=(1e-5, 1), ylim=(len(names) - 0.5, -0.5), xlabel="mean square error (grey value², 0 to 1)")
    axes.set_yticks(position, [name.replace("_", " ") for name in names])
    axes.set_title("Error by class, test data: shorter is better (no bar: below 1e-5)")
    axes.grid(alpha=0.3, axis="x")
    legend_below(figure)
    return figure


def latent_space(mean: Float[Tensor, "b 2"], label: Int[Tensor, " b"], names: Sequence[str] = CLASSES) -> Figure:
    """The code's mean μ of each sample by class, with the prior's one- and two-sigma circles."""
    figure = new_figure(7.5, 5.5)
    axes = figure.subplots()
    for radius in (1, 2):
        axes.add_patch(Circle((0, 0), radius, fill=False, ls="--", lw=0.8, color="#777777"))
    for name, marker, colour, k in zip(names, _MARKERS, _COLOURS, range(len(names)), strict=False):
        points = mean[label == k].detach().cpu().numpy()
        axes.scatter(
            points[:, 0], points[:, 1], s=40, marker=marker, color=colour, alpha=0.7, lw=0, label=name.replace("_", " ")
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(
        xlabel="μ₁",
        ylabel="μ₂",
        title="Codes of the test images: classes should lie apart (dashed: 1σ, 2σ of the prior)",
    )
    axes.grid(alpha=0.3)
    legend_below(figure)
    return figure


def gallery(image: Float[Tensor, "b 1 h w"], columns: int, title: str) -> Figure:
    """Images side by side, row by row, in grey from 0 (black) to 1 (white), as one mosaic with white lines."""
    rows = -(-len(image) // columns)
    height, width = image.shape[2] + 1, image.shape[3] + 1
    mosaic = np.ones((rows * height, columns * width))
    for i, pixels in enumerate(image.detach().cpu().numpy()):
        row, column = divmod(i, columns)
        mosaic[row * height : (row + 1) * height - 1, column * width : (column + 1) * width - 1] = pixels[0]
    figure = new_figure(0.9 * columns, 0.9 * rows + 0.6)
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots()
    axes.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[], frame_on=False)
    return figure
