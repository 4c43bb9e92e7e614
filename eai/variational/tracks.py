"""Observations along inclined tracks, as of a polar-orbiting satellite."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.variational.grid import Grid, as_grid
from eai.variational.networks import ObservationNetwork


class TrackNetwork(ObservationNetwork):
    """Evenly spaced observations on straight tracks across a plane, by turns ascending and descending.

    A track crosses all of the y axis; it starts at a random x, and its observations lie at a random phase of their
    distance. On a periodic x axis it goes on at the other side. On a bounded one it may leave the domain: those of
    its observations do not exist, and a sample has fewer than ``p``.

    Args:
        p: number of observations of a sample, those beyond the domain included.
        tracks: number of tracks that share them.
        inclination: of the tracks to the x axis, in degrees, on a domain as wide as high.
        moving: new tracks in every sample; else the same for all.
        withheld: further observations that are not assimilated, for verification.
    """

    def __init__(
        self, p: int = 200, tracks: int = 4, inclination: float = 75.0, moving: bool = True, withheld: int = 0
    ) -> None:
        super().__init__(p, moving=moving, on_grid=False, withheld=withheld)
        require(1 <= tracks <= p, "tracks", f"1 to p = {p}", tracks)
        require(0 < inclination <= 90, "inclination", "above 0, at most 90 degrees", inclination)
        self.tracks, self.inclination = tracks, inclination

    def check_grid(self, n: int | Grid) -> None:
        require(as_grid(n).d == 2, "network", "a plane for tracks", f"a grid of {as_grid(n)} points")

    def _places(
        self, count: int, grid: Grid, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b p"], Float[Tensor, "b p d"], Bool[Tensor, "b p"]]:
        device = generator.device
        (height, width), (closed_y, closed_x), h = grid.extent, grid.periodic, grid.spacing
        slot = torch.arange(self.slots, device=device)
        track, each = slot % self.tracks, math.ceil(self.slots / self.tracks)
        start, phase = torch.rand(2, count, self.tracks, dtype=torch.float64, generator=generator, device=device)
        along = (slot // self.tracks + phase[:, track]) / each  # 0 to 1
        slope = 0.0 if self.inclination == 90 else width / math.tan(math.radians(self.inclination))
        ascending = 1 - 2 * (track % 2)
        # Where tracks may leave the domain they start so that they lie as densely at its sides as in its middle.
        first = width * start if closed_x else (width + slope) * start
        x = first[:, track] + slope * ascending * along
        if not closed_x:
            x = x - slope * (ascending > 0)
        y = height * along if closed_y else h[0] / 2 + (height - h[0]) * along
        index, fraction = grid.locate(torch.stack([y, x], -1))
        inside = torch.ones_like(x, dtype=torch.bool) if closed_x else (x >= h[1] / 2) & (x <= width - h[1] / 2)
        # In random order: the last ones are withheld.
        order = torch.rand(count, self.slots, generator=generator, device=device).argsort(1)
        fraction = fraction.gather(1, order[:, :, None].expand_as(fraction))
        return index.gather(1, order), fraction, inside.gather(1, order)
