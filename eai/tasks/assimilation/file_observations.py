"""Observations that are read from a file, in place of those that are made from the truth."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.fields import open_fields
from eai.tasks.assimilation.file_states import FileStates
from eai.variational.batch import Batch
from eai.variational.observation_error import ObservationError
from eai.variational.observations import ObservationOperator


class FileObservations:
    """Values of a variable at points or on any grid, NaN where there was no observation, at the times of the truths.

    y = (v − H(c))/σ_x, c the climatology of the truths: v is in their units. σ is that of ``shared.obs_error``, in
    the same units. Places outside of the grid, and times of truths without any observation, are left out. The errors
    are those of the file, of which the truth need not know.

    Args:
        path: see :class:`eai.tasks.assimilation.file_states.FileGrid`; of the truths' file or another.
        variable: its name.
        most: the largest number of observations of a sample; of more, so many are taken at random.
        withheld: share of the places, chosen at random once, that are not assimilated, for verification; below 1.

    Raises:
        ValueError: the file is not such data.
    """

    def __init__(self, path: str, variable: str, most: int = 500, withheld: float = 0.0) -> None:
        require(most >= 1, "most", "at least 1", most)
        require(0 <= withheld < 1, "withheld", "0 or more, below 1", withheld)
        self.fields, self.most, self.withheld = open_fields(path, [variable]), most, withheld

    def match(self, states: FileStates) -> np.ndarray:
        """Find the step of this file at each time of the truths; −1 where there is no observation on the grid.

        Args:
            states: of the truths.

        Raises:
            ValueError: units differ, or there is no common time or place.
        """
        own, truths, grid = self.fields, states.fields, states.grid
        require(own.units == truths.units, "network.variable", f"the units of the truths, {truths.units[0]}",
                own.units[0])  # fmt: skip
        latitude, longitude = (torch.from_numpy(d.reshape(-1)) for d in (own.latitude, own.longitude))
        self._inside = torch.nonzero(grid.contains(latitude, longitude))[:, 0]
        require(len(self._inside) > 0, "network.path", "observations inside of the grid", "none")
        self._place = grid.locate_degrees(latitude[self._inside], longitude[self._inside])
        steps = {time: step for step, time in enumerate(own.times.tolist())}
        found = np.array([steps.get(time, -1) for time in truths.times.tolist()])
        there = np.unique(found[found >= 0])
        told = f"{len(own)} from {own.times[0]} to {own.times[-1]}"
        require(len(there) > 0, "network.path", "observations at times of the truths", told)
        empty = [there[:0]]
        for block in own.blocks(there):
            empty.append(block[~self._read(block).isfinite().any(1).numpy()])
        own.close()
        return np.where(np.isin(found, np.concatenate(empty)), -1, found)

    def _read(self, steps: np.ndarray) -> Float[Tensor, "b k"]:
        return torch.from_numpy(self.fields.read(steps)[:, 0]).flatten(1)[:, self._inside]

    def batch(
        self,
        states: FileStates,
        truths: np.ndarray,
        own: np.ndarray,
        pair: tuple[Float[Tensor, "b n"], Float[Tensor, "b n"]],
        operator: ObservationOperator,
        error: ObservationError,
        seed: int,
        generator: torch.Generator,
    ) -> Batch:
        """The samples at so many time steps.

        Args:
            states: of the truths.
            truths: time steps of the truths.
            own: time steps of this file at the same times.
            pair: backgrounds and truths.
            operator: H, linear.
            error: R, σ in the variable's units.
            seed: of the choice of places that are withheld.
            generator: of the choice where there are more than ``most``.
        """
        values, order = self._taken(own, generator)
        used = values.isfinite()
        away = torch.rand(len(self._inside), generator=torch.Generator().manual_seed(seed)) < self.withheld
        kept = away[order]
        index, fraction = (part[order] for part in self._place)
        sigma = error.draw_sigma(len(own), order.shape[1], generator) / states.sigma
        mask, withheld = (used & ~kept).float(), (used & kept).float()
        y = torch.where(used, values, 0.0)
        batch = Batch(pair[0], y, index, fraction.float(), sigma, mask, withheld, pair[1], sigma)
        departure = (y.double() - operator(states.climatology(truths), batch)) / states.sigma
        return batch._replace(y=torch.where(used, departure, 0.0).float())

    def _taken(self, own: np.ndarray, generator: torch.Generator) -> tuple[Float[Tensor, "b p"], Int[Tensor, "b p"]]:
        """At most ``most`` values of each time step, and the places inside of the grid that they are of."""
        values, orders = [], []
        for block in self.fields.blocks(own):
            whole = self._read(block)
            absent = whole.isnan()
            order = (torch.rand(whole.shape, generator=generator) + 2.0 * absent).argsort(1)[:, : self.most]
            values.append(whole.gather(1, order))
            orders.append(order)
        self.fields.close()
        found, taken = torch.cat(values), torch.cat(orders)
        p = int(found.isfinite().sum(1).max())  # those that are absent come last
        return found[:, :p], taken[:, :p]
