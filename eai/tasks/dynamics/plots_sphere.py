"""Figures of forecasts on the sphere, as maps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from matplotlib.artist import Artist
from torch import Tensor

from eai.core.learn.figures import Drawing, Film
from eai.core.palette import new_figure
from eai.tasks.dynamics import maps
from eai.tasks.dynamics.data import Batch, Surface
from eai.tasks.dynamics.forecast import Forecast
from eai.tasks.dynamics.plots import FILM

ROWS, FRAMES = 90, 30  # of an animation


def of_samples(batch: Batch, forecast: Forecast, surface: Surface) -> Mapping[str, Drawing]:
    """Draw truth, rollout and their difference at the last lead of the first sample."""
    truth, free = _states(batch.u)[-1], _states(forecast.rollout)[-1]
    lead = batch.u.shape[1] - 1
    fields = {
        f"truth, lead {lead}": truth,
        f"network, lead {lead}": free,
        f"network − truth, lead {lead}": free - truth,
    }
    figure = maps.draw_maps(fields, *surface)
    figure.suptitle("Free rollout: the middle row should look like the top one, the bottom one should be blank")
    return {"maps": figure}


def of_rollout(batch: Batch, forecast: Forecast, surface: Surface) -> Mapping[str, Drawing]:
    """Draw the free rollout of the first sample, one frame per step."""
    truth = _states(batch.u)
    return {"rollout": animation(truth, torch.cat([truth[:1], _states(forecast.rollout)]), surface)}


def animation(truth: Float[Tensor, "t n"], free: Float[Tensor, "t n"], surface: Surface) -> Film:
    """Truth and free rollout by longitude and latitude.

    Args:
        truth, free: states.
        surface: what the nodes lie on.
    """
    picture = maps.Picture(surface, maps.plate_carree(ROWS))
    limit = truth.abs().max().item() or 1.0
    figure = new_figure(11, 3.4)
    panels = figure.subplots(1, 2, sharey=True)
    images = []
    for axes, title, states in zip(panels, ("truth", "network"), (truth, free), strict=True):
        drawn = {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit, "origin": "lower", "extent": (-180, 180, -90, 90)}
        images.append(axes.imshow(picture.of(states[0]), **drawn))
        axes.set(title=title, xlabel="longitude (°)", xticks=range(-180, 181, 60))
    panels[0].set_ylabel("latitude (°)")
    figure.colorbar(images[-1], ax=panels, label=maps.STATE, extend="both")

    def draw(t: int) -> tuple[Artist, ...]:
        for image, states in zip(images, (truth, free), strict=True):
            image.set_data(picture.of(states[t]))
        return *images, figure.suptitle(f"Free rollout after {t} steps")

    return Film(FILM, figure, draw, range(0, len(truth), -(-len(truth) // FRAMES)))


def _states(u: Float[Tensor, "b t n c"]) -> Float[Tensor, "t n"]:
    """Of the first sample and channel."""
    return torch.nan_to_num(u[0, :, :, 0].detach()).cpu()
