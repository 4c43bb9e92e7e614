"""The grid of a state: a ring, or a plane whose axes are periodic or bounded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eai.core.errors import require


def angles(n: int) -> Float[Tensor, " n"]:
    """The angles 2π i/n of the points of a ring, in radians, float64.

    Args:
        n: number of points.
    """
    return torch.arange(n, dtype=torch.float64) * (2 * math.pi / n)


class Grid:
    """A regular grid of n = Π n_k points in d dimensions; a state is flat, its numbers run fastest along the last axis.

    The points of an axis of extent L_k are h_k = L_k/n_k apart: at i h_k on a periodic axis, at (i + ½) h_k, in the
    middle of their cells, on a bounded one. Two points that are δ apart along an axis have the distance
    (L_k/π) sin(π δ/L_k), the chord, on a periodic axis and δ on a bounded one; the distances of axes add as √(Σ d_k²).
    A covariance that is valid in the plane for the distance is so on a bounded grid, and one that is valid in four
    dimensions is so on a doubly periodic one.

    Args:
        shape: n_k: [n] for a ring or a line, [ny, nx] for a plane.
        periodic: whether the domain closes on itself, for all axes or for each.
        extent: L_k, in the unit in which the lengths of covariances are given; null: 2π, so that the unit is the
            radian.
    """

    def __init__(
        self,
        shape: Sequence[int],
        periodic: bool | Sequence[bool] = True,
        extent: Sequence[float] | None = None,
    ) -> None:
        d = len(shape)
        require(1 <= d <= 2 and min(shape) >= 1, "shape", "[n] or [ny, nx], each at least 1", list(shape))
        closed = (periodic,) * d if isinstance(periodic, bool) else tuple(periodic)
        require(len(closed) == d, "periodic", f"true, false, or one of them for each of {d} axes", periodic)
        require(extent is None or (len(extent) == d and min(extent) > 0), "extent",
                f"null or {d} lengths above 0", extent)  # fmt: skip
        self.shape, self.periodic = tuple(shape), closed
        self.extent = (2 * math.pi,) * d if extent is None else tuple(float(length) for length in extent)
        self.n, self.d = math.prod(self.shape), d

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Grid) and (self.shape, self.periodic, self.extent) == (
            other.shape,
            other.periodic,
            other.extent,
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.periodic, self.extent))

    def __str__(self) -> str:
        size = " × ".join(map(str, self.shape))
        return size if all(self.periodic) else f"{size} (bounded)" if not any(self.periodic) else f"{size} (a channel)"

    __repr__ = __str__

    @property
    def spacing(self) -> tuple[float, ...]:
        """h_k."""
        return tuple(length / n for length, n in zip(self.extent, self.shape, strict=True))

    @property
    def diameter(self) -> float:
        """No two points of the domain are further apart than this."""
        widest = (
            length / math.pi if closed else length for length, closed in zip(self.extent, self.periodic, strict=True)
        )
        return math.hypot(*widest)

    def resized(self, shape: Sequence[int]) -> Grid:
        """The same domain with other numbers of points.

        Args:
            shape: n_k.
        """
        return Grid(shape, self.periodic, self.extent)

    def doubled(self) -> Grid:
        """A periodic grid of the same spacing, of twice the extent along bounded axes."""
        times = [1 if closed else 2 for closed in self.periodic]
        shape = [factor * size for factor, size in zip(times, self.shape, strict=True)]
        return Grid(shape, extent=[factor * length for factor, length in zip(times, self.extent, strict=True)])

    def part_of_doubled(self, field: Float[Tensor, "*b m"]) -> Float[Tensor, "*b n"]:
        """The part of a field that lies on this grid.

        Args:
            field: on the grid :meth:`doubled`.
        """
        values = field.unflatten(-1, self.doubled().shape)
        for axis, size in enumerate(self.shape, values.ndim - self.d):
            values = values.narrow(axis, 0, size)
        return values.flatten(-self.d)

    def axes(self, index: Int[Tensor, "*any"]) -> list[Int[Tensor, "*any"]]:
        """The number of a point along each axis.

        Args:
            index: of the point in a flat state.
        """
        parts = []
        for size in reversed(self.shape[1:]):
            parts.append(index % size)
            index = index // size
        return [index, *reversed(parts)]

    def flat(self, axes: Sequence[Int[Tensor, ...]]) -> Int[Tensor, ...]:
        """The index in a flat state of the point with these numbers along the axes.

        Args:
            axes: a tensor of numbers for each axis.
        """
        index = axes[0]
        for size, number in zip(self.shape[1:], axes[1:], strict=True):
            index = index * size + number
        return index

    def moved(
        self, index: Int[Tensor, "*any"], offsets: Int[Tensor, "k d"]
    ) -> tuple[Int[Tensor, "*any k"], Bool[Tensor, "*any k"]]:
        """The points so many steps away along each axis, and whether they lie in the domain; if not, its last point.

        Args:
            index: of points in a flat state.
            offsets: steps along each axis.
        """
        there, numbers = torch.ones((), dtype=torch.bool, device=index.device), []
        for number, steps, size, closed in zip(
            self.axes(index), offsets.unbind(1), self.shape, self.periodic, strict=True
        ):
            to = number[..., None] + steps
            within = to % size if closed else to.clamp(0, size - 1)
            there = there & (closed | (within == to))
            numbers.append(within)
        flat = self.flat(numbers)
        return flat, there.expand_as(flat)

    def position(self, index: Int[Tensor, "*any"], fraction: Float[Tensor, "*any d"]) -> Float[Tensor, "*any d"]:
        """Coordinates, float64, in the unit of the extent.

        Args:
            index: of the lower corner of a cell.
            fraction: how far into the cell, along each axis.
        """
        half = [0.0 if closed else 0.5 for closed in self.periodic]
        numbers = torch.stack(self.axes(index), -1) + fraction.double() + fraction.new_tensor(half)
        return numbers * torch.tensor(self.spacing, dtype=torch.float64, device=index.device)

    def locate(self, position: Float[Tensor, "*any d"]) -> tuple[Int[Tensor, "*any"], Float[Tensor, "*any d"]]:
        """The lower corner of the cell in which a place lies, and how far into it; the inverse of :meth:`position`.

        A place beyond a bounded axis's outermost points counts as on the nearest of them.

        Args:
            position: coordinates, in the unit of the extent; on a periodic axis any number.
        """
        steps = position.double() / torch.tensor(self.spacing, dtype=torch.float64, device=position.device)
        steps = steps - steps.new_tensor([0.0 if closed else 0.5 for closed in self.periodic])
        nearest = steps.round()  # the point itself, where only rounding has moved the place off it
        return self.cells(torch.where((steps - nearest).abs() < 1e-9, nearest, steps))

    def cells(self, steps: Float[Tensor, "*any d"]) -> tuple[Int[Tensor, "*any"], Float[Tensor, "*any d"]]:
        """The lower corner of the cell in which a place lies, and how far into it, float64.

        Args:
            steps: from point 0 to the place, along each axis, in grid points.
        """
        numbers, fractions = [], []
        for step, size, closed in zip(steps.unbind(-1), self.shape, self.periodic, strict=True):
            within = step % size if closed else step.clamp(0, size - 1)
            number = within.floor().clamp(max=size - 1 if closed else max(size - 2, 0))
            numbers.append(number.long())
            fractions.append(within - number)
        return self.flat(numbers), torch.stack(fractions, -1)

    def steps_on(
        self, grid: Grid, index: Int[Tensor, "*any"], fraction: Float[Tensor, "*any d"]
    ) -> Float[Tensor, "*any d"]:
        """Steps from point 0 of this grid, along each axis, to a place on another grid of the same domain, float64.

        Args:
            grid: the other one.
            index, fraction: of the place, see :meth:`position`.
        """
        finer = [a / b for a, b in zip(self.shape, grid.shape, strict=True)]
        half = fraction.new_tensor([0.0 if closed else 0.5 for closed in self.periodic], dtype=torch.float64)
        numbers = torch.stack(grid.axes(index), -1) + fraction.double()
        return (numbers + half) * half.new_tensor(finer) - half

    def apart(self, differences: Sequence[Float[Tensor, ...]]) -> list[Float[Tensor, ...]]:
        """The distance along each axis.

        Args:
            differences: of coordinates, for each axis.
        """
        return [
            (length / math.pi) * torch.sin(difference.abs() * (math.pi / length)).abs() if closed else difference.abs()
            for difference, length, closed in zip(differences, self.extent, self.periodic, strict=True)
        ]

    def distance(self, a: Float[Tensor, "... d"], b: Float[Tensor, "... d"]) -> Float[Tensor, ...]:
        """The distance between places.

        Args:
            a, b: coordinates, which broadcast against each other.
        """
        return reduce(torch.hypot, self.apart((a - b).unbind(-1)))

    def between(self, i: Int[Tensor, ...], j: Int[Tensor, ...]) -> list[Float[Tensor, ...]]:
        """The distances of grid points along each axis, float64.

        Args:
            i, j: indices in a flat state, which broadcast against each other.
        """
        steps = zip(self.axes(i), self.axes(j), self.spacing, strict=True)
        return self.apart([(a - b).double() * h for a, b, h in steps])


def as_grid(n: int | Grid) -> Grid:
    """A ring for a number of points; a grid as it is.

    Args:
        n: either of them.
    """
    return n if isinstance(n, Grid) else Grid([n])
