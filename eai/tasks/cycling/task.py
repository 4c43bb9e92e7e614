"""Slides 2.1 and 2.3 in a cycle: a network that analyses, trained on the innovations of its own forecasts.

Scores (``val/…`` and ``test/…``), over the analyses after the spin-up:

* ``rmse_analysis``, ``rmse_background``: root mean square error over the grid, mean over time, then over cycles.
* ``rmse_analysis/ratio_to_best``: ``rmse_analysis`` over that of the best reference, without oracles (test only).
* ``crps_analysis``: continuous ranked probability score of the analyses, mean over the grid, over time, then over
  cycles, in the state's units (:mod:`eai.tasks.cycling.probability`). Of an ensemble it is that of its members as they
  are, after inflation; of the Kalman filters that of their normal distribution; of all other methods, the network among
  them, which give one state, it is the mean absolute error.
* ``rmse/lead_01`` …: of forecasts from every tenth analysis.
* ``innovation``: mean of d²/σ², d = y − H(x_b), the variance of the innovations in units of R; the monitored score,
  which needs no truth. ``innovation_mean`` of d/σ; ``innovation_lag1``: correlation of d/σ at the same grid point at
  successive times, 0 at the optimum of a linear system.
* ``lost``: share of cycles of which an analysis is further from the truth than 0.8 standard deviations of the climate.
* ``model_error``: RMSE of the forecast model in one interval from the truth; 0 for a perfect model.

Reference methods, on the same cycles (:mod:`eai.tasks.cycling.references`): ``free_run``, ``optimal_interpolation``,
``var3d``, ``enkf_<N>`` (perturbed observations), ``enkf_sqrt_<N>`` (random rotations), ``letkf_<N>`` where points are
unobserved or more than 40, and where the system is linear ``kalman`` and ``kalman_steady``, the optimum.

``measurements.json`` holds ``seconds_per_analysis`` of each method beside its seconds per cycle, what was tuned, and
of ensembles ``spread_skill``, the analyses' spread over their error, √(mean of squares); 1 is consistent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from eai.core.errors import ConfigError, require
from eai.core.learn.data import DataModule
from eai.core.learn.export import Parted, Variable
from eai.core.learn.figures import Drawing
from eai.core.learn.ranks import gather, rank
from eai.core.learn.scores import PerSample
from eai.core.learn.task import Task
from eai.systems.system import System
from eai.tasks.cycling import export, plots, scores
from eai.tasks.cycling.cycle import Cycled, Estimate, cycle, innovations
from eai.tasks.cycling.data import Batch, Cycles
from eai.tasks.cycling.forecast import finished, forecast_model
from eai.tasks.cycling.losses import Loss
from eai.tasks.cycling.references import References, climate
from eai.variational.observations import ObservationOperator, PointValue

ORACLES = ("kalman", "kalman_steady")  # exact where they exist
FEW = 8  # cycles in the figures that compare methods


class Cycling(Task[Batch, Cycled, Estimate]):
    """A net for the analysis in a cycle of forecasts.

    Args:
        net: see :mod:`eai.tasks.cycling.nets`.
        loss: see :mod:`eai.tasks.cycling.losses`.
        forecast: the forecast model: a system, or the directory of a finished run of ``task=dynamics``.
        optimizer, scheduler: see :class:`eai.core.learn.task.Task`.
        leads: of the forecasts that are scored, in intervals.
    """

    watched = ("innovation", "rmse_analysis", "rmse_background", "lost", "innovation_lag1")
    loss: Loss
    climate_mean: Tensor
    climate_std: Tensor

    def __init__(
        self,
        net: nn.Module,
        loss: Loss,
        forecast: System | str,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
        leads: int = 20,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler)
        require(leads >= 1, "leads", "at least 1", leads)
        self.model, self.leads = forecast_model(forecast), leads
        self.register_buffer("climate_mean", torch.tensor(0.0))
        self.register_buffer("climate_std", torch.tensor(1.0))
        self.operator: ObservationOperator = PointValue()  # of the data, once they are known
        self._spin_up, self._ahead = 0, 1
        self._spread_skill: dict[str, float] = {}
        self._state: tuple[Tensor, Tensor] | None = None  # background and memory that the next window begins with
        self._references: tuple[DataModule[Batch], References] | None = None

    def check_data(self, data: DataModule[Batch]) -> None:
        cycles = _cycles(data)
        if self.model.n != cycles.n:
            raise ConfigError(f"model.forecast: expected a forecast on data.n = {cycles.n} points, got {self.model.n}")
        interval = getattr(self.model, "interval", None)
        if interval is not None and abs(interval - cycles.system.interval) > 1e-9:
            raise ConfigError(
                f"model.forecast: expected a forecast over data's interval of {cycles.system.interval}, got {interval}"
            )
        if self.loss.leads > cycles.ahead:
            raise ConfigError(
                f"data.ahead: expected at least {self.loss.leads}, as model.loss needs, got {cycles.ahead}"
            )

    def prepare(self, data: DataModule[Batch]) -> None:
        cycles = _cycles(data)
        self.operator = cycles.operator
        self._spin_up, self._ahead, self._references = cycles.spin_up, cycles.ahead, None
        states = climate(cycles)
        self.climate_mean.fill_(states.mean().item())
        self.climate_std.fill_(states.std().item())
        if callable(fit := getattr(self.net, "fit_scales", None)):
            sigma = data.samples["train"].all.obs_sigma.mean().item()
            fit(self.climate_mean.item(), self.climate_std.item(), sigma)

    def forward(self, batch: Batch) -> Cycled:
        first, memory = batch.start, batch.start.new_zeros(*batch.start.shape, getattr(self.net, "memory", 0))
        if self.training and self._state is not None and bool(batch.window[0] > 0):
            first, memory = (part.to(first.device) for part in self._state)
        steps = batch.y.shape[1] - self._ahead
        made = cycle(self.net, self.model, batch, first, memory, steps, self.loss.leads, self.loss.through_time)
        if self.training:
            self._state = self._kept(batch, made)
        return made

    @torch.no_grad()
    def _kept(self, batch: Batch, made: Cycled) -> tuple[Tensor, Tensor]:
        """What the next window begins with: a cycle that is lost begins anew, as at the first time.

        Lost is one whose innovations, in the second half of the window, are as large as if the analysis were further
        from the truth than 0.8 standard deviations of the climate: the truth is not looked at.
        """
        half = made.background.shape[1] // 2
        departures = innovations(self.operator, batch, made.background)[:, half:]
        mask, steps = batch.obs_mask[:, half : made.background.shape[1]], (1, 2)
        number = mask.sum(steps).clamp(min=1)
        noise = (batch.obs_sigma[:, half : made.background.shape[1]].square() * mask).sum(steps) / number
        expected = noise + (scores.LOST * self.climate_std) ** 2
        square = departures.square().sum(steps) / number
        lost = ~(square < expected)  # so is what is no number
        return (
            torch.where(lost[:, None], batch.start, made.last.detach()),
            torch.where(lost[:, None, None], torch.zeros_like(made.memory), made.memory.detach()),
        )

    def estimate(self, batch: Batch, output: Cycled) -> Estimate:
        parts = (output.analysis.detach().float(), output.background.detach().float())
        return finished(self.model, batch, *parts, self.leads)

    def scores(self, batch: Batch, estimate: Estimate) -> Mapping[str, PerSample]:
        return scores.per_cycle(self.operator, batch, estimate, self._spin_up, self.climate_std.item())

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        return scores.final_scores(means)

    def baselines(self, data: DataModule[Batch]) -> Mapping[str, Callable[[Batch], Estimate]]:
        return self._of(data).methods()

    def on_test_epoch_end(self) -> None:
        super().on_test_epoch_end()
        # Not a score: the network has no ensemble, and all methods are scored in the same keys.
        self._spread_skill = {
            method: of.pop("test/spread_skill") for method, of in self.final_scores.items() if "test/spread_skill" in of
        }
        for of in self.standard_errors.values():
            of.pop("test/spread_skill", None)
        name = "test/rmse_analysis"
        others = [of[name] for method, of in self.final_scores.items() if method not in ("model", *ORACLES)]
        for of in self.final_scores.values():
            of[f"{name}/ratio_to_best"] = of[name] / min(others)

    def measure(self, data: DataModule[Batch]) -> Mapping[str, Mapping[str, float]]:
        analyses, tuned = _cycles(data).analyses["test"], self._of(data).tuned_to()
        return {
            name: {
                "seconds_per_analysis": seconds / analyses,
                **tuned.get(name, {}),
                **({"spread_skill": self._spread_skill[name]} if name in self._spread_skill else {}),
            }
            for name, seconds in self.seconds_per_sample.items()
        }

    def coordinates(self, data: DataModule[Batch]) -> Mapping[str, Variable]:
        return export.coordinates(_cycles(data), max(self._of(data).members().values()))

    def exported(
        self, data: DataModule[Batch], batch: Batch, estimates: Mapping[str, Estimate]
    ) -> Mapping[str, Variable | Parted]:
        return {**export.variables(batch, estimates), **export.members(batch, self._of(data).ensembles())}

    def figures(self, batch: Batch, estimate: Estimate) -> Mapping[str, Drawing]:
        return {"cycle": plots.hovmoeller(batch, estimate, self._spin_up)}

    def closing_figures(self, data: DataModule[Batch], batch: Batch, estimate: Estimate) -> Mapping[str, Drawing]:
        few = self.transfer_batch_to_device(data.batch("test", FEW), self.device, 0)
        estimates = {"network": self.predict(few)} | {
            name: method(few) for name, method in self.baselines(data).items()
        }
        steps = estimate.analysis.shape[1]
        departures = {
            name: innovations(self.operator, few, one.background)[:, self._spin_up :]
            / few.obs_sigma[:, self._spin_up : steps]
            for name, one in estimates.items()
        }
        cost = {"network" if name == "model" else name: seconds / steps
                for name, seconds in self.seconds_per_sample.items()}  # fmt: skip
        return {
            "error_in_time": plots.error_in_time(few, estimates, self._spin_up),
            "error_by_lead": plots.error_by_lead(few, estimates, self._spin_up),
            "error_against_cost": plots.error_against_cost(few, estimates, cost, self._spin_up),
            "innovations": plots.innovations(departures["network"], few.obs_mask[:, self._spin_up : steps]),
            "cycle_animation": plots.animation(few, estimates["network"], self._spin_up),
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        own = tuple(part.cpu() for part in self._state) if self._state is not None else None
        checkpoint["cycles"] = gather(own)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self._state = checkpoint["cycles"][rank()]

    def _of(self, data: DataModule[Batch]) -> References:
        # Tuning takes a while: keep the result for each data.
        if self._references is None or self._references[0] is not data:
            self._references = data, References(_cycles(data), self.leads)
        return self._references[1]


def _cycles(data: DataModule[Batch]) -> Cycles:
    if not isinstance(data, Cycles):
        raise ConfigError(f"data._target_: expected data of the cycling task, got {type(data).__name__}")
    return data
