"""A grid of latitudes and longitudes: its places in degrees, its distances in kilometres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.variational.grid import Grid

EARTH = 6371.0  # km, radius
ROUNDING = 1e-3  # of a grid step: coordinates in single precision are the same within it


class GeographicGrid(Grid):
    """A regular grid of latitudes and longitudes, as a plane in kilometres; rows run northwards, columns eastwards.

    Along each axis points count as evenly spaced, a degree as R π/180, of longitude times the mean cosine of the
    latitudes: so far apart are they for a covariance that is a formula. :meth:`chord` is the true distance.

    Args:
        latitude: of the rows, in degrees, increasing, at least two.
        longitude: of the columns, in degrees, increasing, at least two, over at most 360.
        periodic: the columns go once round the Earth.

    Raises:
        ValueError: they are not in this order.
    """

    def __init__(self, latitude: Sequence[float], longitude: Sequence[float], periodic: bool = False) -> None:
        for name, degrees in (("latitude", latitude), ("longitude", longitude)):
            increasing = len(degrees) >= 2 and all(b > a for a, b in pairwise(degrees))
            require(increasing, name, "at least two increasing numbers of degrees", list(degrees))
        require(longitude[-1] - longitude[0] < 360, "longitude", "less than 360 degrees in all",
                longitude[-1] - longitude[0])  # fmt: skip
        self.latitude = torch.tensor(list(latitude), dtype=torch.float64)
        self.longitude = torch.tensor(list(longitude), dtype=torch.float64)
        steps = [float(degrees[-1] - degrees[0]) / (len(degrees) - 1) for degrees in (self.latitude, self.longitude)]
        self.step = (steps[0], 360 / len(longitude) if periodic else steps[1])  # degrees
        degree = EARTH * math.pi / 180
        narrower = float(self.latitude.deg2rad().cos().mean())
        shape = [len(latitude), len(longitude)]
        extent = [shape[0] * self.step[0] * degree, shape[1] * self.step[1] * degree * narrower]
        super().__init__(shape, [False, periodic], extent)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, GeographicGrid)
            and super().__eq__(other)
            and torch.equal(self.latitude, other.latitude)
            and torch.equal(self.longitude, other.longitude)
        )

    __hash__ = Grid.__hash__

    @property
    def weights(self) -> Float[Tensor, " n"]:
        """Of the points of a flat state in means over area, 1 on average: the cosine of latitude."""
        cosine = self.latitude.deg2rad().cos().repeat_interleave(len(self.longitude))
        return cosine / cosine.mean()

    def contains(self, latitude: Float[Tensor, " p"], longitude: Float[Tensor, " p"]) -> Tensor:
        """Whether places lie between the outermost points.

        Args:
            latitude, longitude: of the places, degrees; longitudes of 0 to 360 or of −180 to 180.
        """
        near = [ROUNDING * step for step in self.step]
        north = (latitude >= self.latitude[0] - near[0]) & (latitude <= self.latitude[-1] + near[0])
        width = float(self.longitude[-1] - self.longitude[0])
        return north & longitude.isfinite() & (self.periodic[1] | (self._eastward(longitude) <= width + near[1]))

    def locate_degrees(
        self, latitude: Float[Tensor, " p"], longitude: Float[Tensor, " p"]
    ) -> tuple[Int[Tensor, " p"], Float[Tensor, "p d"]]:
        """The lower corner of the cell in which a place lies, and how far into it, see :meth:`Grid.cells`.

        Args:
            latitude, longitude: of the places, degrees. A place outside of the grid counts as on its edge.
        """
        east = self.longitude - self.longitude[0]
        if self.periodic[1]:
            east = torch.cat([east, east.new_tensor([360.0])])
        steps = [_steps(self.latitude, latitude.double()), _steps(east, self._eastward(longitude))]
        return self.cells(torch.stack(steps, -1))

    def degrees(self, index: Int[Tensor, "*any"], fraction: Float[Tensor, "*any d"]) -> list[Float[Tensor, "*any"]]:
        """Latitude and longitude of places, in degrees; the inverse of :meth:`locate_degrees`.

        Args:
            index, fraction: see :meth:`Grid.position`.
        """
        found = []
        closed = torch.cat([self.longitude, self.longitude[:1] + 360])
        for number, part, values in zip(self.axes(index), fraction.unbind(-1), (self.latitude, closed), strict=True):
            values = values.to(index.device)
            after = (number + 1).clamp(max=len(values) - 1)
            found.append(values[number] + part.double() * (values[after] - values[number]))
        return found

    def chord(self, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> Float[Tensor, ...]:
        """The straight distance of grid points through the Earth, km: √(Σ (R u_i − R u_j)²), u the unit vectors.

        Args:
            i, j: indices in a flat state, which broadcast against each other.
        """
        squares: Tensor | float = 0.0
        for part in self._vectors().unbind(-1):
            squares = squares + (part[i] - part[j]).square()
        assert isinstance(squares, Tensor)
        return EARTH * squares.sqrt()

    def _vectors(self) -> Float[Tensor, "n 3"]:
        north, east = torch.meshgrid(self.latitude.deg2rad(), self.longitude.deg2rad(), indexing="ij")
        return torch.stack([north.cos() * east.cos(), north.cos() * east.sin(), north.sin()], -1).flatten(0, 1)

    def _eastward(self, longitude: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
        """Degrees from the first column, 0 to 360."""
        east = (longitude.double() - self.longitude[0]) % 360
        return torch.where(east > 360 - ROUNDING * self.step[1], 0.0, east)


def _steps(axis: Float[Tensor, " n"], place: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Where places lie on an increasing axis, in steps from its first point; linear in between."""
    before = (torch.searchsorted(axis, place.contiguous(), right=True) - 1).clamp(0, len(axis) - 2)
    return before + (place - axis[before]) / (axis[before + 1] - axis[before])
