"""An observing system simulation experiment (OSSE) on a user's own file."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from eai.core.errors import require
from eai.core.learn.data import SPLITS, DataModule, Split
from eai.fields.unchanged import FromFile
from eai.tasks.assimilation.backgrounds import Background
from eai.tasks.assimilation.elsewhere import CHECKPOINT
from eai.tasks.assimilation.file_observations import FileObservations
from eai.tasks.assimilation.file_states import FileGrid, FileStates
from eai.variational.batch import Batch
from eai.variational.covariance_base import Covariance
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import ObservationOperator, check_between


class OSSE(FromFile, DataModule[Batch]):
    """Truths of a file, with backgrounds and observations y = H(x_t) + ε, ε ~ N(0, R), that are made from them.

    States are anomalies from the climatology of the training period in units of their standard deviation σ_x, see
    :class:`eai.tasks.assimilation.file_states.FileStates`; σ of observations is given in the variable's units and
    divided by σ_x. Truths and backgrounds of a split are of its own period; no split shares a time step with another.
    Training truths are drawn at random from their period. Those of validation and test are taken evenly; where fewer
    times than samples are there, times occur again, with other observations.

    Args:
        path, variable: of the file, see :class:`eai.tasks.assimilation.file_states.FileGrid`.
        n: the grid: all of the file's or a box.
        covariance: B that the cost assumes, on this grid.
        operator: H.
        obs_error: R that the cost assumes and ε has; σ in the variable's units.
        network: positions of the observations, or observations of a file, which then take the place of y.
        background: lagged or perturbed states.
        val_share, test_share: of the times, for validation and test; the test period is the last one.
        val_from, test_from: dates at which these periods begin, instead of shares.
        gap: time steps left out between the periods.
        climatology: ``month``, one of each month of the year, or ``mean``, one for all times.
        n_train, n_val, n_test: samples per split.
        batch_size, seed, fresh: see :class:`eai.core.learn.data.DataModule`.

    Raises:
        ValueError: the file is not such data, or a period is too short for the background.
    """

    def __init__(
        self,
        path: str,
        variable: str,
        n: FileGrid,
        covariance: Covariance,
        operator: ObservationOperator,
        obs_error: ObservationError,
        network: ObservationNetwork | FileObservations,
        background: Background,
        val_share: float = 0.15,
        test_share: float = 0.15,
        val_from: str | None = None,
        test_from: str | None = None,
        gap: int = 0,
        climatology: Literal["month", "mean"] = "month",
        n_train: int = 1600,
        n_val: int = 100,
        n_test: int = 200,
        batch_size: int = 32,
        seed: int = 0,
        fresh: bool = True,
    ) -> None:
        super().__init__(batch_size, seed, fresh)
        require(not path.endswith(CHECKPOINT), "path", "a file of fields", path)
        for name, size in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(size >= 1, name, "at least 1", size)
        require(covariance.grid == n, "covariance.n", f"the grid of the data, {n}", covariance.grid)
        if isinstance(network, ObservationNetwork):
            network.check(n, operator)
        else:
            require(operator.linear, "operator", "a linear H for observations of a file", type(operator).__name__)
            check_between(operator, False, "those of a file")
        self.grid = n
        self.covariance, self.operator, self.obs_error = covariance, operator, obs_error
        self.network, self.background = network, background
        self.states = FileStates(path, variable, n, val_share, test_share, val_from, test_from, gap, climatology)
        self.fields = self.states.fields
        self.sizes: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}
        self.times: dict[Split, np.ndarray] = {}
        self.observed = network.match(self.states) if isinstance(network, FileObservations) else None
        for split, period in zip(SPLITS, self.states.periods, strict=True):
            self.times[split] = self._truths_in(split, period)

    def _truths_in(self, split: Split, period: np.ndarray) -> np.ndarray:
        """The time steps of a period that have a background and, of a file, observations."""
        times, lag = self.states.later(period, self.background.lag), self.background.lag
        told = f"fewer steps than follow each other in the {split} period, which has {len(period)}"
        require(len(times) > 0, "background.lag", told, lag)
        if self.observed is not None:
            times = times[self.observed[times] >= 0]
            require(len(times) > 0, "network.path", f"observations in the {split} period", "none")
        return times

    def truths(self, split: Split, generator: torch.Generator) -> np.ndarray:
        """Numbers of the time steps of a split's truths.

        Args:
            split: of the three.
            generator: of random numbers, for the training data.
        """
        times, count = self.times[split], self.sizes[split]
        if split == "train":
            return times[torch.randint(len(times), (count,), generator=generator).numpy()]
        return times[np.linspace(0, len(times) - 1, count).round().astype(np.int64)]

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        steps, grid = self.truths(split, generator), self.grid
        xt = self.states.read(steps)
        xb = self.background.draw(self.states, steps, xt, self.covariance, generator)
        if isinstance(self.network, FileObservations) and self.observed is not None:
            given = self.operator, self.obs_error, self.seed, generator
            return self.network.batch(self.states, steps, self.observed[steps], (xb, xt), *given)
        assert isinstance(self.network, ObservationNetwork)
        count = len(steps)
        index, fraction, mask, withheld = self.network.draw_all(count, grid, self.seed, generator)
        sigma = self.network.draw_sigma(self.obs_error, count, generator) / self.states.sigma
        batch = Batch(xb, torch.zeros_like(mask), index, fraction, sigma, mask, withheld, xt, sigma)
        y = self.operator(xt.double(), batch) + self.obs_error.draw(batch, grid, generator)
        return batch._replace(y=y.float())
