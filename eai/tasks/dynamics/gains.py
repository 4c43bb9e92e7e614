"""How much a net amplifies each wavenumber in one step: what grows here is what ends long rollouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from eai.core.palette import BLACK, PREDICTION, legend_below, new_figure, plain_log
from eai.tasks.dynamics.data import Batch
from eai.tasks.dynamics.scores import power_by_wavenumber

SMALL = 1e-2  # of the data's standard deviation: the amplitude of a wave
SEEN = 1e-6  # of the most energetic wavenumber's variance: less is unseen
LARGEST_GRID, STATES = 1024, 64  # nodes up to which gains are computed; training states whose spectrum is looked at


class Gains(NamedTuple):
    """By shell round(|k|) = 1, 2, … of wavenumbers: the largest |g(k)|, and whether training data have the shell."""

    gain: Float[Tensor, " k"]
    seen: Bool[Tensor, " k"]

    def largest(self) -> dict[str, float]:
        """The largest gains, of all wavenumbers and of those that training never shows."""
        unseen = self.gain[~self.seen]
        return {
            "largest_gain": self.gain.max().item(),
            **({"largest_gain_unseen": unseen.max().item()} if len(unseen) else {}),
        }


@torch.no_grad()
def gains(step: Callable[[Tensor, Tensor], Tensor], batch: Batch, shape: tuple[int, ...]) -> Gains | None:
    """|g(k)| = ‖M(ū + w) − M(ū − w)‖ / 2‖w‖ for small waves w around the mean state ū; None on large grids.

    Args:
        step: M, one step of the net.
        batch: training data: their mean, amplitude and spectrum.
        shape: of the grid.
    """
    nodes, channels = batch.u.shape[2:]
    if nodes > LARGEST_GRID or nodes != math.prod(shape):
        return None
    states = batch.u[:, -1][:STATES].cpu().float()
    waves, shell = _waves(shape)
    amplitude = SMALL * batch.u.std().item()
    small = amplitude * waves[:, :, None].expand(-1, -1, channels)
    device = batch.u.device
    mean = batch.u.mean().item()
    static = batch.static.mean((0, 1)).expand(len(waves), nodes, -1)
    above, below = (step((mean + sign * small).to(device), static).cpu() for sign in (1, -1))
    change = ((above - below).double() / 2).flatten(1).square().sum(1)
    # Cosine and sine together: a wave that is turned keeps its gain.
    of_pair = change.view(2, -1).sum(0) / small.double().flatten(1).square().sum(1).view(2, -1).sum(0)
    largest = torch.zeros(int(shell.max()) + 1, dtype=torch.float64)
    largest = largest.scatter_reduce(0, shell, of_pair.nan_to_num(torch.inf).sqrt(), "amax")
    power = power_by_wavenumber(states, shape).mean(0)[: len(largest)]
    return Gains(largest[1:], (power > SEEN * power.max())[1:])


def _waves(shape: tuple[int, ...]) -> tuple[Float[Tensor, "w n"], Tensor]:
    """cos and sin of κ·x for each wavenumber but the mean, first all cosines, and the shell of each wavenumber."""
    axes = [torch.fft.fftfreq(size, 1 / size, dtype=torch.float64) for size in shape[:-1]]
    axes.append(torch.fft.rfftfreq(shape[-1], 1 / shape[-1], dtype=torch.float64))
    k = torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
    x = torch.stack(
        torch.meshgrid(*(torch.arange(size, dtype=torch.float64) / size for size in shape), indexing="ij")
    ).flatten(1)
    length = k.square().sum(0).sqrt()
    k, length = k[:, length > 0], length[length > 0]
    phase = 2 * math.pi * (k.T @ x)
    return torch.cat([phase.cos(), phase.sin()]).float(), length.round().long()


def draw(gains: Gains) -> Figure:
    """Gain against wavenumber; filled points were in the training data.

    Args:
        gains: of a net.
    """
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    k = np.arange(1, len(gains.gain) + 1)
    values, seen = gains.gain.clamp(1e-6, 1e3).numpy(), gains.seen.numpy()
    axes.axhline(1, color=BLACK, lw=0.8)
    axes.plot(k[seen], values[seen], "o", color=PREDICTION, ms=4, label="in the training data")
    axes.plot(k[~seen], values[~seen], "o", mfc="none", color=PREDICTION, ms=4, label="never seen in training")
    axes.set(title="Growth of a small wave in one step: above the line it grows without end")
    if values.min() < 0.1 or values.max() > 10:
        axes.set_yscale("log")
    axes.set(xlabel="wavenumber (1 per domain)", ylabel="amplification per step |g(k)| (1)")
    axes.grid(alpha=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if axes.get_yscale() == "log":
        plain_log(axes.yaxis)
    legend_below(figure)
    return figure
