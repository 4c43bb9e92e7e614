"""Where observations are: their positions, fixed or new at each time."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.variational.grid import Grid, as_grid
from eai.variational.observation_error import ObservationError
from eai.variational.observations import ObservationOperator, check_between


class ObservationNetwork:
    """Positions of the observations: distinct grid points or points between them, new in every sample or fixed.

    Args:
        p: number of observations of a sample, or the largest number if ``p_min`` is given.
        p_min: if given, the number varies uniformly from ``p_min`` to ``p``; the rest is padding.
        moving: new positions in every sample; else one random set for all.
        on_grid: on grid points; else uniform in between as well.
        void: angle (radians) of an arc, or side of a square on a plane, in which nothing is observed, its place random.
        cluster: 0 spreads observations evenly; towards 1 they crowd around a random point.
        withheld: further observations that are not assimilated, for verification.
    """

    def __init__(
        self,
        p: int = 18,
        p_min: int | None = None,
        moving: bool = True,
        on_grid: bool = True,
        void: float = 0.0,
        cluster: float = 0.0,
        withheld: int = 0,
    ) -> None:
        require(p >= 1, "p", "at least 1", p)
        require(p_min is None or 1 <= p_min <= p, "p_min", f"null or 1 ≤ p_min ≤ p = {p}", p_min)
        require(void >= 0, "void", "0 or more", void)
        require(0 <= cluster < 1, "cluster", "0 ≤ cluster < 1", cluster)
        require(withheld >= 0, "withheld", "0 or more", withheld)
        self.p, self.p_min, self.moving, self.on_grid = p, p_min, moving, on_grid
        self.void, self.cluster, self.withheld = void, cluster, withheld

    @property
    def slots(self) -> int:
        """Observations of a sample, withheld ones and padding included."""
        return self.p + self.withheld

    def check_grid(self, n: int | Grid) -> None:
        """Raise ``ValueError`` if the grid is too small for as many distinct points.

        Args:
            n: number of points of a ring, or a grid.
        """
        grid = as_grid(n)
        narrowest = min(grid.extent)
        require(self.void < narrowest, "network.void", f"below the grid's extent of {narrowest:.4g}", self.void)
        cells = math.prod(size - 1 if half else size for size, half in zip(grid.shape, self._halved(grid), strict=True))
        closed = (
            min(math.ceil((self.void + 2 * margin) / length * size), size)
            for margin, length, size in zip(self._margins(grid), grid.extent, grid.shape, strict=True)
        )
        free = cells - math.prod(closed)
        require(self.slots <= free, "network.p", f"p + withheld ≤ {free} free of {grid.n} grid points", self.slots)

    def check(self, n: int | Grid, operator: ObservationOperator) -> None:
        """Refuse a grid that is too small, or an operator that cannot observe between its points.

        Args:
            n: number of points of a ring, or a grid.
            operator: H.
        """
        check_between(operator, self.on_grid, "network.on_grid = false")
        self.check_grid(n)

    def draw(
        self, count: int, n: int | Grid, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b p"], Float[Tensor, "b p d"], Float[Tensor, "b p"], Float[Tensor, "b p"]]:
        """Index of the cell's lower corner, fraction of the cell, masks of assimilated and of withheld ones.

        Args:
            count: number of samples.
            n: number of points of a ring, or a grid.
            generator: of random numbers.
        """
        device = generator.device
        index, fraction, inside = self._places(count, as_grid(n), generator)
        # Which of the slots are withheld is random as well: places are in random order.
        assimilated = torch.ones(count, self.slots, device=device)
        assimilated[:, self.p :] = 0
        withheld = 1 - assimilated
        if self.p_min is not None:
            number = torch.randint(self.p_min, self.p + 1, (count, 1), generator=generator, device=device)
            assimilated = assimilated * (torch.arange(self.slots, device=device) < number)
        return index, fraction, assimilated * inside, withheld * inside

    def draw_all(
        self, count: int, n: int | Grid, seed: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b p"], Float[Tensor, "b p d"], Float[Tensor, "b p"], Float[Tensor, "b p"]]:
        """As :meth:`draw`; of a network that does not move the same in all splits of data, from their seed alone.

        Args:
            count: number of samples.
            n: number of points of a ring, or a grid.
            seed: of the data.
            generator: of random numbers of the split.
        """
        if self.moving:
            return self.draw(count, n, generator)
        one = self.draw(1, n, torch.Generator(generator.device).manual_seed(seed))
        index, fraction, mask, withheld = (field.expand(count, *field.shape[1:]) for field in one)
        return index, fraction, mask, withheld

    def draw_sigma(self, error: ObservationError, count: int, generator: torch.Generator) -> Float[Tensor, "b p"]:
        """σ of each observation, which batches tell.

        Args:
            error: R.
            count: number of samples.
            generator: of random numbers.
        """
        return error.draw_sigma(count, self.slots, generator)

    def _places(
        self, count: int, grid: Grid, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b p"], Float[Tensor, "b p d"], Bool[Tensor, "b p"]]:
        """Places in random order, and whether each lies in the domain."""
        device = generator.device
        index = self._indices(count, grid, generator)
        fraction = torch.zeros(count, self.slots, grid.d, device=device)
        if not self.on_grid:
            fraction = torch.rand(count, self.slots, grid.d, generator=generator, device=device)
        return index, fraction, torch.ones(count, self.slots, dtype=torch.bool, device=device)

    def _margins(self, grid: Grid) -> list[float]:
        """Half a cell where the void is closed to whole cells, since an observation lies anywhere in its own."""
        return [0.0 if self.on_grid or not self.void else h / 2 for h in grid.spacing]

    def _halved(self, grid: Grid) -> list[bool]:
        """Axes along which the last point begins no cell."""
        return [not (closed or self.on_grid) for closed in grid.periodic]

    def _indices(self, count: int, grid: Grid, generator: torch.Generator) -> Int[Tensor, "b p"]:
        """Distinct points, drawn without replacement by exponential races with rates that `cluster` and `void` set."""
        device = generator.device
        crowd, closed = torch.zeros((), device=device), torch.ones((), dtype=torch.bool, device=device)
        barred = torch.zeros((), dtype=torch.bool, device=device)
        axes = zip(
            grid.shape, grid.spacing, grid.extent, grid.periodic, self._margins(grid), self._halved(grid), strict=True
        )
        for axis, (size, h, length, periodic, margin, halved) in enumerate(axes):
            place = torch.arange(size, device=device) * h
            centre = length * torch.rand(count, 1, generator=generator, device=device)
            apart = (place - centre).remainder(length) if periodic else place - centre
            # The void lies opposite of where observations crowd.
            from_void = apart + margin - length / 2
            if not periodic:
                from_void = place + margin - (centre + length / 2).remainder(length)
            view = [count, *(size if k == axis else 1 for k in range(grid.d))]
            crowd = crowd + torch.cos(apart * ((2 if periodic else 1) * math.pi / length)).view(view)
            closed = closed & (from_void.abs() < self.void / 2 + margin).view(view)
            last = (torch.arange(size, device=device) == size - 1) & halved
            barred = barred | last.view(view[1:])
        concentration = self.cluster / (1 - self.cluster)
        # The logarithms of exponential waiting times: rates overflow for a cluster close to 1.
        uniform = torch.rand(count, grid.n, generator=generator, device=device).clamp(min=1e-12)
        race = (-uniform.log()).log() - concentration * crowd.flatten(1)
        race = torch.where((closed | barred).flatten(1), math.inf, race)
        chosen = race.argsort(1)[:, : self.slots]
        # Shuffle: points in clusters come first, and withheld observations must be as clustered as assimilated ones.
        return chosen.gather(1, torch.rand(chosen.shape, generator=generator, device=device).argsort(1))


class RegularNetwork(ObservationNetwork):
    """Every k-th grid point along each axis, the same in every sample.

    Args:
        n: number of points of a ring, or a grid; along each axis a multiple of ``every``.
        every: k; 1 observes every point.
        offset: the first observed point.
    """

    def __init__(self, n: int | Grid, every: int = 1, offset: int = 0) -> None:
        grid = as_grid(n)
        require(every >= 1 and all(size % every == 0 for size in grid.shape), "every", f"a divisor of n = {n}", every)
        require(0 <= offset < every, "offset", f"0 to {every - 1}", offset)
        super().__init__(math.prod(size // every for size in grid.shape), moving=False)
        self.every, self.offset = every, offset

    def _indices(self, count: int, grid: Grid, generator: torch.Generator) -> Int[Tensor, "b p"]:
        lines = [torch.arange(self.offset, size, self.every, device=generator.device) for size in grid.shape]
        points = grid.flat(torch.meshgrid(*lines, indexing="ij")).flatten()
        return points[None].expand(count, -1)


class ShareNetwork(ObservationNetwork):
    """A share of the grid points, drawn at random: once, or anew for every sample.

    Args:
        n: number of points of a ring, or a grid.
        share: of them that is observed, above 0; at least one is.
        moving: new positions in every sample.
    """

    def __init__(self, n: int | Grid, share: float = 0.5, moving: bool = True) -> None:
        require(0 < share <= 1, "share", "above 0, at most 1", share)
        super().__init__(max(1, round(share * as_grid(n).n)), moving=moving)
