"""Where observations are: their positions, fixed or new at each time."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.variational.observations import ObservationOperator, PointValue


class ObservationNetwork:
    """Positions of the observations: distinct grid points or points between them, new in every sample or fixed.

    Args:
        p: number of observations of a sample, or the largest number if ``p_min`` is given.
        p_min: if given, the number varies uniformly from ``p_min`` to ``p``; the rest is padding.
        moving: new positions in every sample; else one random set for all.
        on_grid: on grid points; else uniform in between as well.
        void: angle (radians) of an arc in which nothing is observed, its place random.
        cluster: 0 spreads observations evenly; towards 1 they crowd around a random point of the ring.
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
        require(0 <= void < 2 * math.pi, "void", "0 ≤ void < 2π", void)
        require(0 <= cluster < 1, "cluster", "0 ≤ cluster < 1", cluster)
        require(withheld >= 0, "withheld", "0 or more", withheld)
        self.p, self.p_min, self.moving, self.on_grid = p, p_min, moving, on_grid
        self.void, self.cluster, self.withheld = void, cluster, withheld

    @property
    def slots(self) -> int:
        """Observations of a sample, withheld ones and padding included."""
        return self.p + self.withheld

    def check_grid(self, n: int) -> None:
        """Raise ``ValueError`` if the grid is too small for as many distinct points."""
        free = n - math.ceil((self.void + 2 * self._margin(n)) / (2 * math.pi) * n)
        require(self.slots <= free, "network.p", f"p + withheld ≤ {free} free of {n} grid points", self.slots)

    def check(self, n: int, operator: ObservationOperator) -> None:
        """Refuse a grid that is too small, or an operator that cannot observe between its points.

        Args:
            n: grid points.
            operator: H.
        """
        require(
            self.on_grid or not any(isinstance(part, PointValue) for part in operator.modules()),
            "operator",
            "Interpolation or WindowAverage for observations between grid points (network.on_grid = false)",
            "PointValue",
        )
        self.check_grid(n)

    def draw(
        self, count: int, n: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "b p"], Float[Tensor, "b p"], Float[Tensor, "b p"], Float[Tensor, "b p"]]:
        """Index of the grid point to the left, fraction of the cell, masks of assimilated and of withheld ones."""
        device = generator.device
        index = self._indices(count, n, generator)
        fraction = torch.zeros(count, self.slots, device=device)
        if not self.on_grid:
            fraction = torch.rand(count, self.slots, generator=generator, device=device)
        # Which of the slots are withheld is random as well: indices are in random order.
        assimilated = torch.ones(count, self.slots, device=device)
        assimilated[:, self.p :] = 0
        withheld = 1 - assimilated
        if self.p_min is not None:
            number = torch.randint(self.p_min, self.p + 1, (count, 1), generator=generator, device=device)
            assimilated = assimilated * (torch.arange(self.slots, device=device) < number)
        return index, fraction, assimilated, withheld

    def _margin(self, n: int) -> float:
        """Half a cell where the void is closed to whole cells, since an observation lies anywhere in its own."""
        return 0.0 if self.on_grid or not self.void else math.pi / n

    def _indices(self, count: int, n: int, generator: torch.Generator) -> Int[Tensor, "b p"]:
        """Distinct points, drawn without replacement by exponential races with rates that `cluster` and `void` set."""
        device = generator.device
        angle = torch.arange(n, device=device) * (2 * math.pi / n)
        centre = 2 * math.pi * torch.rand(count, 1, generator=generator, device=device)
        apart = (angle - centre).remainder(2 * math.pi)
        concentration = self.cluster / (1 - self.cluster)
        # The logarithms of exponential waiting times: rates overflow for a cluster close to 1.
        uniform = torch.rand(count, n, generator=generator, device=device).clamp(min=1e-12)
        race = (-uniform.log()).log() - concentration * torch.cos(apart)
        margin = self._margin(n)
        race = torch.where((apart + margin - math.pi).abs() < self.void / 2 + margin, math.inf, race)
        chosen = race.argsort(1)[:, : self.slots]
        # Shuffle: points in clusters come first, and withheld observations must be as clustered as assimilated ones.
        return chosen.gather(1, torch.rand(chosen.shape, generator=generator, device=device).argsort(1))


class RegularNetwork(ObservationNetwork):
    """Every k-th grid point, the same in every sample.

    Args:
        n: grid points, a multiple of ``every``.
        every: k; 1 observes every point.
        offset: the first observed point.
    """

    def __init__(self, n: int, every: int = 1, offset: int = 0) -> None:
        require(every >= 1 and n % every == 0, "every", f"a divisor of n = {n}", every)
        require(0 <= offset < every, "offset", f"0 to {every - 1}", offset)
        super().__init__(n // every, moving=False)
        self.every, self.offset = every, offset

    def _indices(self, count: int, n: int, generator: torch.Generator) -> Int[Tensor, "b p"]:
        points = torch.arange(self.offset, n, self.every, device=generator.device)
        return points[None].expand(count, -1)


class ShareNetwork(ObservationNetwork):
    """A share of the grid points, drawn at random: once, or anew for every sample.

    Args:
        n: grid points.
        share: of them that is observed, above 0; at least one is.
        moving: new positions in every sample.
    """

    def __init__(self, n: int, share: float = 0.5, moving: bool = True) -> None:
        require(0 < share <= 1, "share", "above 0, at most 1", share)
        super().__init__(max(1, round(share * n)), moving=moving)
