"""Maps of fields on the sphere: the whole of it by longitude and latitude, and both hemispheres as seen from afar."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from eai.core.errors import require
from eai.core.palette import BLACK, new_figure
from eai.tasks.dynamics.data import Surface
from eai.tasks.dynamics.sphere_geometry import Triangulation

STATE = "state u (dimensionless)"
ROWS = 180  # of pixels, from the south pole to the north pole
SIDES = {"from longitude 0°": 0.0, "from longitude 180°": 180.0}
GRATICULE: dict[str, Any] = {"color": BLACK, "lw": 0.4, "alpha": 0.35}


class Pixels(NamedTuple):
    """A picture of the sphere: which points it shows, and where in the picture they are.

    ``points``: shown, unit vectors.
    ``inside``: which of the pixels, the first row at the bottom, show a point.
    """

    points: Float[Tensor, "m 3"]
    inside: Bool[Tensor, "h w"]


class Picture:
    """Pixels of a triangulated sphere, linear in each triangle.

    Args:
        surface: the triangles, acute ones.
        pixels: what is shown.
    """

    def __init__(self, surface: Surface, pixels: Pixels) -> None:
        triangles = Triangulation(surface.positions.double().cpu(), surface.faces.cpu())
        self._inside, self._weight = pixels.inside.numpy(), triangles.barycentric(pixels.points[None])

    def of(self, field: Float[Tensor, " n"]) -> Float[np.ndarray, "h w"]:
        """The field at each pixel, NaN outside the sphere.

        Args:
            field: at the nodes.
        """
        picture = np.full(self._inside.shape, np.nan)
        picture[self._inside] = self._weight(field.detach().double().cpu()[None])[0].numpy()
        return picture


def draw_maps(
    fields: Mapping[str, Tensor],
    positions: Float[Tensor, "n 3"],
    faces: Int[Tensor, "f 3"],
    label: str = STATE,
) -> Figure:
    """Draw each field by longitude and latitude (plate carrée) and as two hemispheres (orthographic), all on one scale.

    Between the nodes a field is linear in each triangle. The scale reaches from minus to plus the largest absolute
    value of all fields.

    Args:
        fields: n values at the nodes by title, at least one field.
        positions: of the nodes, unit vectors.
        faces: acute triangles that cover the sphere, counter-clockwise seen from outside.
        label: of the colour bar: quantity and unit.
    """
    require(len(fields) >= 1, "fields", "at least one", len(fields))
    for title, field in fields.items():
        require(field.shape == positions.shape[:1], f"fields[{title!r}]", f"{len(positions)} values", list(field.shape))
    surface = Surface(positions, faces)
    shown = [plate_carree(ROWS), *(orthographic(ROWS, longitude) for longitude in SIDES.values())]
    pictures = [Picture(surface, pixels) for pixels in shown]
    limit = max(field.abs().max().item() for field in fields.values()) or 1.0
    figure = new_figure(12, 0.6 + 2.8 * len(fields))
    panels = figure.subplots(len(fields), 3, squeeze=False, width_ratios=[2, 1, 1])
    for row, (title, field) in zip(panels, fields.items(), strict=True):
        for axes, picture in zip(row, pictures, strict=True):
            whole = axes is row[0]
            image = axes.imshow(
                picture.of(field),
                extent=(-180, 180, -90, 90) if whole else (-1, 1, -1, 1),
                cmap="RdBu_r", vmin=-limit, vmax=limit, origin="lower", interpolation="nearest",
            )  # fmt: skip
        _label_degrees(row[0], title)
        for axes, (side, longitude) in zip(row[1:], SIDES.items(), strict=True):
            _draw_globe(axes, longitude, side)
    figure.colorbar(image, ax=panels, label=label, shrink=0.9)
    return figure


def plate_carree(rows: int) -> Pixels:
    """All latitudes in ``rows`` rows and all longitudes in twice as many columns, by equal steps of degrees."""
    degrees = (torch.arange(2 * rows, dtype=torch.float64) + 0.5) * (180 / rows) - 180
    latitude, longitude = torch.meshgrid(degrees[:rows] + 90, degrees, indexing="ij")
    return Pixels(from_degrees(longitude.flatten(), latitude.flatten()), torch.ones(rows, 2 * rows, dtype=torch.bool))


def orthographic(rows: int, longitude: float) -> Pixels:
    """The hemisphere around ``longitude`` (degrees, on the equator) as seen from afar, in rows × rows pixels."""
    across = (torch.arange(rows, dtype=torch.float64) + 0.5) * (2 / rows) - 1
    up, right = torch.meshgrid(across, across, indexing="ij")
    inside = right.square() + up.square() <= 1
    right, up = right[inside], up[inside]
    near = (1 - right.square() - up.square()).sqrt()
    cosine, sine = math.cos(math.radians(longitude)), math.sin(math.radians(longitude))
    return Pixels(torch.stack([near * cosine - right * sine, near * sine + right * cosine, up], dim=1), inside)


def from_degrees(longitude: Float[Tensor, " m"], latitude: Float[Tensor, " m"]) -> Float[Tensor, "m 3"]:
    """The points at these longitudes and latitudes."""
    longitude, latitude = longitude.deg2rad(), latitude.deg2rad()
    cosine = latitude.cos()
    return torch.stack([cosine * longitude.cos(), cosine * longitude.sin(), latitude.sin()], dim=1)


def _label_degrees(axes: Axes, title: str) -> None:
    axes.set(title=title, ylabel="latitude (°)", xticks=range(-180, 181, 60), yticks=range(-90, 91, 30))
    axes.grid(**GRATICULE)
    axes.set_xlabel("longitude (°)")
    axes.label_outer()


def _draw_globe(axes: Axes, longitude: float, title: str) -> None:
    """Meridians and parallels every 30° on the hemisphere around ``longitude``."""
    along = np.radians(np.linspace(-90, 90, 91))
    for angle in np.radians(np.arange(-60, 61, 30)):
        axes.plot(np.cos(along) * np.sin(angle), np.sin(along), **GRATICULE)
        axes.plot(np.cos(angle) * np.sin(along), np.full_like(along, np.sin(angle)), **GRATICULE)
    axes.plot(np.cos(2 * along), np.sin(2 * along), color=BLACK, lw=0.8)
    axes.set(title=title, xlim=(-1.02, 1.02), ylim=(-1.02, 1.02), aspect="equal")
    axes.set_axis_off()
