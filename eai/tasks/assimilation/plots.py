"""Figures of the assimilation task: pure functions from tensors to a Figure."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from eai.core.figures import INPUT, PREDICTION, REFERENCE, TRUTH, new_figure
from eai.tasks.assimilation.data import Batch


def analyses(batch: Batch, analysis: Float[Tensor, "b n"], blue: Float[Tensor, "b n"]) -> Figure:
    """Truth, background, observations, analysis and BLUE of the first four samples."""
    figure = new_figure(10, 7)
    figure.suptitle("Analysis: as close to the BLUE (dashed) as the network gets, from background and observations")
    panels = figure.subplots(2, 2, sharex=True, sharey=True).flat
    n = batch.xb.shape[1]
    angle = np.arange(n) * 2 * math.pi / n
    for i, axes in enumerate(panels):
        if i >= len(analysis):
            axes.set_axis_off()
            continue
        seen = batch.obs_mask[i].cpu() > 0
        axes.plot(angle, batch.xt[i].cpu(), color=TRUTH, lw=2, alpha=0.5, label="truth")
        axes.plot(angle, batch.xb[i].cpu(), color=INPUT, lw=1.5, label="background")
        axes.plot(angle, analysis[i].detach().cpu(), color=PREDICTION, lw=1.8, label="analysis (network)")
        axes.plot(angle, blue[i].cpu(), color=REFERENCE, lw=1.5, ls="--", label="BLUE (exact)")
        where = angle[batch.obs_index[i].cpu()[seen].numpy()]
        axes.plot(where, batch.y[i].cpu()[seen], "o", color=TRUTH, ms=4, mfc="white", label="observations")
        axes.set(title=f"sample {i}", xlabel="position (rad)", ylabel="state")
        axes.grid(alpha=0.3)
    figure.axes[0].legend(fontsize="small")
    return figure


def covariance(matrix: Float[Tensor, "n n"]) -> Figure:
    """The background-error covariance B and its middle column."""
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    largest = float(matrix.abs().max())
    image = left.imshow(matrix.cpu().numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest)
    left.set(title="Background-error covariance B", xlabel="grid point j", ylabel="grid point i")
    figure.colorbar(image, ax=left, label="B_ij (state²)")
    middle = len(matrix) // 2
    right.plot(matrix[:, middle].cpu(), color=TRUTH)
    right.set(
        title=f"Column {middle}: how one point's error spreads", xlabel="grid point i", ylabel="covariance (state²)"
    )
    right.grid(alpha=0.3)
    return figure
