"""Twin cycles: a truth, observations of it at every analysis time, and a first background that knows neither."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import Blocks, DataModule, Split
from eai.core.learn.ranks import processes
from eai.systems.system import System
from eai.variational import batch as variational
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import ObservationOperator


class Batch(NamedTuple):
    """Observations of b cycles at t times in p slots; n grid points. ``truth`` is for scores and ``supervised`` alone.

    In training a batch is one window of every cycle, and the next batch the window after it; the first of an epoch has
    ``window`` 0 and begins from ``start``. Times beyond the window's own are there for losses that look ahead.
    """

    y: Float[Tensor, "b t p"]
    obs_index: Int[Tensor, "b t p"]  # as in eai.variational.batch.Batch
    obs_fraction: Float[Tensor, "b t p d"]
    obs_sigma: Float[Tensor, "b t p"]
    obs_mask: Float[Tensor, "b t p"]
    start: Float[Tensor, "b n"]  # a state of the model's climate: the background of the first time
    window: Int[Tensor, " b"]  # number of the window in its cycle; 0: a cold start
    truth: Float[Tensor, "b t n"]


def at(batch: Batch, times: int | slice, background: Float[Tensor, "*b n"]) -> variational.Batch:
    """The observations at one time, or at several in one dimension with the samples, as those nets and costs take them.

    Args:
        batch: the cycles.
        times: an index, or a slice of them.
        background: (b, n), or (b, t, n) of the slice. In place of the truth stands NaN.
    """
    fields = (batch.y, batch.obs_index, batch.obs_fraction, batch.obs_sigma, batch.obs_mask)
    one = [field[:, times] for field in fields]
    if isinstance(times, slice):
        one, background = [field.flatten(0, 1) for field in one], background.flatten(0, 1)
    y, index, fraction, sigma, mask = one
    unknown = background.new_full((), torch.nan).expand_as(background)
    return variational.Batch(background, y, index, fraction, sigma, mask, torch.zeros_like(mask), unknown, sigma)


class Cycles(DataModule[Batch]):
    """Cycles of a system, observed at every analysis time: y = H(x_t) + ε, ε ~ N(0, R).

    In every epoch ``batch_size`` cycles (of each process) begin cold and go through ``windows`` windows of ``window``
    analyses; a training step is one window of all of them. Validation and test have whole cycles, scored after
    ``spin_up`` analyses.

    Args:
        system: what forecasts assume; it may differ from the truth's.
        network: positions of the observations; where it moves, they are new at each time.
        operator: H.
        obs_error: R.
        true_system: of the truth; None: ``system``.
        n: grid points.
        window: analyses of a training step.
        windows: of a cycle in an epoch of training.
        ahead: further times of observations after the last analysis, for losses that look ahead.
        n_val, n_test: cycles of validation and test.
        steps_val, steps_test: analyses of each.
        spin_up: analyses at the start of a cycle that are not scored.
        batch_size: cycles in training, of each process.
        seed, fresh, device: see :class:`eai.core.learn.data.DataModule`.
    """

    def __init__(
        self,
        system: System,
        network: ObservationNetwork,
        operator: ObservationOperator,
        obs_error: ObservationError,
        true_system: System | None = None,
        n: int = 40,
        window: int = 12,
        windows: int = 100,
        ahead: int = 1,
        n_val: int = 16,
        n_test: int = 32,
        steps_val: int = 400,
        steps_test: int = 1200,
        spin_up: int = 200,
        batch_size: int = 32,
        seed: int = 0,
        fresh: bool = True,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        super().__init__(batch_size, seed, fresh, device)
        for name, one in (("system", system), ("true_system", true_system or system)):
            require(one.n == n, name, f"size n = {n}", one.n)
        for name, size in (("window", window), ("windows", windows), ("ahead", ahead), ("n_val", n_val),
                           ("n_test", n_test)):  # fmt: skip
            require(size >= 1, name, "at least 1", size)
        require(spin_up >= 0, "spin_up", "0 or more", spin_up)
        for name, size in (("steps_val", steps_val), ("steps_test", steps_test)):
            require(size >= spin_up + 2, name, f"at least spin_up + 2 = {spin_up + 2}", size)
        require(network.withheld == 0, "network.withheld", "0: a cycle verifies against its next observations",
                network.withheld)  # fmt: skip
        network.check(n, operator)
        self.system, self.true_system = system, true_system or system
        self.network, self.operator, self.obs_error = network, operator.to(device), obs_error
        self.n, self.window, self.windows, self.ahead, self.spin_up = n, window, windows, ahead, spin_up
        self.cycles: dict[Split, int] = {"val": n_val, "test": n_test}
        self.analyses: dict[Split, int] = {"train": windows * window, "val": steps_val, "test": steps_test}

    @property
    def uniform(self) -> bool:
        """Whether every analysis has the same observations and errors: a gain can then be computed once."""
        return not self.network.moving and self.network.p_min is None and self.obs_error.sigma_max is None

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        count = self.cycles.get(split, self.batch_size * processes())
        times = self.analyses[split] + self.ahead
        first = self.true_system.random_states(count, generator)
        truth = self.true_system.trajectory(first, times, generator)
        start = self.system.random_states(count, generator)
        whole = self._observe(truth, start, generator)
        return _windows(whole, self.window, self.windows, self.ahead) if split == "train" else whole

    def _observe(self, truth: Float[Tensor, "b t n"], start: Float[Tensor, "b n"], generator: torch.Generator) -> Batch:
        count, times, n = truth.shape
        if self.network.moving:
            drawn = self.network.draw(count * times, n, generator)
        else:
            # The same network in all splits: from the data's seed alone.
            drawn = self.network.draw(1, n, torch.Generator(generator.device).manual_seed(self.seed))
        index, fraction, mask = (field.expand(count * times, *field.shape[1:]) for field in drawn[:3])
        sigma = self.network.draw_sigma(self.obs_error, count * times, generator)
        flat, zeros = truth.flatten(0, 1), torch.zeros_like(mask)
        every = variational.Batch(flat, zeros, index, fraction, sigma, mask, zeros, flat, sigma)
        y = self.operator(flat, every) + self.obs_error.draw(every, n, generator)
        y, index, fraction, sigma, mask = (
            part.unflatten(0, (count, times)) for part in (y.float(), index, fraction, sigma, mask)
        )
        window = torch.zeros(count, dtype=torch.long, device=generator.device)
        return Batch(y, index, fraction, sigma, mask, start.float(), window, truth.float())

    def train_dataloader(self) -> Blocks[Batch]:
        loader = self._loader("train", self.batch_size)  # in order: windows follow each other
        loader.sampler.start_at(*self.start)
        return Blocks(loader, self.single_steps)


def _windows(whole: Batch, window: int, windows: int, ahead: int) -> Batch:
    """Cut cycles (b, t, …) into windows (w · b, window + ahead, …), the first windows of all cycles first."""
    times = torch.arange(windows, device=whole.y.device)[:, None] * window
    times = times + torch.arange(window + ahead, device=whole.y.device)
    count = len(whole.y)

    def cut(field: Tensor) -> Tensor:
        return field[:, times].transpose(0, 1).flatten(0, 1)

    number = torch.arange(windows, device=whole.y.device).repeat_interleave(count)
    series = {name: cut(getattr(whole, name)) for name in Batch._fields if name not in ("start", "window")}
    return Batch(**series, start=whole.start.repeat(windows, 1), window=number)
