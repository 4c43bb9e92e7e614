"""Maps of recovered fields in the variable's units."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from eai.core.palette import new_figure
from eai.tasks.recovery.corruptions import Images
from eai.tasks.recovery.data import UNKNOWN, Batch

MISSING, HIDDEN = "#B8A98F", "#E6E6E6"  # land is brown, a gap light grey
SHOWN = 3  # samples: as many as a page has room for


def filled(batch: Batch, image: Images, extent: float, name: str, northward: bool) -> Figure:
    """Anomalies of a few samples: truth, what is seen, what is recovered, and the error on a scale of a third.

    Args:
        batch: pairs of images.
        image: recovered.
        extent: range of the variable's anomalies that becomes 1, in its units.
        name: of the variable, with its units.
        northward: the first row is the southernmost one, and drawn at the bottom.
    """
    count, (height, width) = min(SHOWN, len(image)), image.shape[-2:]
    wide = width > 3 * height
    across, down = (1, 4 * count) if wide else (4, count)
    figure = new_figure(9.0, down * (max(0.55, 8.0 * height / width + 0.3) if wide else 2.2 * height / width + 0.4) + 1)
    figure.suptitle(
        f"Anomaly of {name}: recovered should look like the truth\n(brown: missing in the data; grey: hidden)"
    )
    panels = figure.subplots(down, across, squeeze=False).reshape(count, 4)
    how: dict[str, Any] = {"interpolation": "nearest", "aspect": "auto", "origin": "lower" if northward else "upper"}
    colours = colormaps["RdBu_r"].with_extremes(bad=HIDDEN)
    limit = 0.3 * extent  # three standard deviations of the training anomalies
    for number, row in enumerate(panels):
        for axes, (title, values, most) in zip(row, _maps(batch, image, number, extent, limit), strict=True):
            drawn = axes.imshow(values, cmap=colours, vmin=-most, vmax=most, **how)
            missing = np.ma.masked_where(batch.valid[number, 0].cpu().numpy() == 1, np.ones_like(values))
            axes.imshow(missing, cmap=ListedColormap([MISSING]), **how)
            axes.set(xticks=[], yticks=[])
            if wide or number == 0 or title.startswith("error"):
                axes.set_title(
                    f"{number + 1}: {title}" if wide else title, fontsize=9, loc="left" if wide else "center"
                )
            if wide or number == count - 1:
                bar = figure.colorbar(drawn, ax=axes, location="right" if wide else "bottom", pad=0.01, extend="both")
                bar.ax.tick_params(labelsize=7 if wide else 9)
    return figure


def _maps(batch: Batch, image: Images, number: int, extent: float, limit: float) -> list[tuple[str, np.ndarray, float]]:
    """Title, values in units (NaN where hidden) and largest value of the colours."""

    def values(pixels: Images, offset: float) -> Float[np.ndarray, "h w"]:
        return (extent * (pixels[number, 0].detach() - offset)).cpu().numpy()

    seen = np.where(batch.mask[number, 0].cpu().numpy() == 1, values(batch.y, UNKNOWN), np.nan)
    error = image - batch.x
    rmse = torch.sqrt((error[number].square() * batch.valid[number]).sum() / batch.valid[number].sum().clamp(min=1))
    return [
        ("truth", values(batch.x, UNKNOWN), limit),
        ("seen", seen, limit),
        ("recovered", values(image, UNKNOWN), limit),
        (f"error, RMSE {extent * rmse.item():.2g}", values(error, 0), limit / 3),
    ]
