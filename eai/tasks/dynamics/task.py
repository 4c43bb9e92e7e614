"""Slide 2.1: learning the dynamics of a field, step by step on a graph, and rolling it out freely.

Scores (``val/…`` and ``test/…``; means over all samples of the split; lead times in steps):

* ``mse``: mean square error of the next state, each predicted from the true state before it.
* ``mse_rollout``: the same for a free rollout from the first state, mean over all leads.
* ``nrmse``: mean over all leads of RMSE / rms(truth) of the free rollout; the monitored score.
* ``nrmse/lead_01`` …: at one lead; 0 is perfect, 1 as bad as a forecast of zero, √2 as bad as an unrelated state of the
  same amplitude. A rollout that leaves all bounds counts as 1000.
* ``acc/lead_01`` …: correlation of the anomalies from climatology, the mean of the training data.
* ``skill_persistence/lead_01`` … = 1 − MSE / MSE of persistence, at one lead; ``skill_persistence``: of single steps.
* ``gmean_100``, ``gmean_200``: geometric mean over the first 100 and 200 leads of the mean nRMSE at each; only where
  there are as many.
* ``useful_lead_time``: steps until the anomaly correlation first falls below 0.6, at most the horizon.
* ``amplitude_error/mode_01`` …, ``phase_error/mode_01`` … (on periodic grids): per wavenumber (in 2-D: shell of
  wavenumbers) of the first step; ``| |û_p|/|û_t| − 1 |`` and ``|arg û_p û_t*|`` in radians, weighted with the truth's
  variance.
* ``mass_drift``: ``|mean of the last rolled-out state − mean of the truth| / rms(truth)``.

Of data from files (:class:`eai.tasks.dynamics.netcdf.FieldTrajectories`) the states are anomalies in units of their
standard deviation σ, and ``nrmse`` is their RMSE: 1 is an error of the size of the training period's anomalies. Beside
it stand ``rmse/<variable>`` and ``rmse/<variable>/lead_01`` …, the root of the mean square error over nodes and
forecasts in the variable's units. Both weigh the nodes of a regular grid by the cosine of latitude. There is no
``reference``, and there are no scores by wavenumber; the baselines are those of
:func:`eai.tasks.dynamics.statistical.references`.

``measurements.json`` has the network's ``largest_gain``, the most that a small wave grows in one step, and
``largest_gain_unseen``, of the wavenumbers that the training data do not have: above 1 they grow in a rollout.

Baselines: ``persistence``, ``climatology``, and classical schemes at the same resolution: ``upwind``,
``lax_wendroff``, semi-Lagrangian ones with 2 (``…_linear``), 4 (``…_cubic``), 6, 8 and 12 points, at variable speed
``semi_lagrangian_trigonometric``, for Burgers ``weno5`` and ``spectral``; stencils ``least_squares_…`` of so many
points along each axis, fitted on the training data; ``reference``, the solution of the equation: exact, or numerical
and resolved where no formula is known. Advection is linear in u, and so by construction are its schemes, the fitted
stencils and the learned stencil of ``model/dynamics=stencil``: they cannot be wrong in what a network must learn first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import ConfigError, require
from eai.core.learn.data import DataModule, widened
from eai.core.learn.export import Variable
from eai.core.learn.figures import Drawing
from eai.core.learn.scores import PerSample
from eai.core.learn.task import Task
from eai.tasks.dynamics import (
    elsewhere,
    export,
    gains,
    interface,
    plots,
    plots_fields,
    plots_scores,
    plots_sphere,
    scores,
)
from eai.tasks.dynamics.anomalies import Anomalies
from eai.tasks.dynamics.baselines import climatological_mean, references
from eai.tasks.dynamics.data import Batch, Solved, Surface, Trajectories
from eai.tasks.dynamics.forecast import Forecast, RolloutMSE, Unroll, Windows, forecast
from eai.tasks.dynamics.history import newest, of_newest

COMPARED = 32  # trajectories in the figures that compare methods


class Dynamics(Task[Batch, Windows, Forecast]):
    """A net from the state at t to the state at t+1, trained on short rollouts and judged by long ones.

    Args:
        net: any module from the state (b, n, c) and static features (b, n, s) to the next state (b, n, c). What else it
            may say of itself is optional, see :mod:`eai.tasks.dynamics.interface`.
        loss: of the rollouts over a few steps.
        unroll: which rollouts the net is trained on.
        optimizer, scheduler: see :class:`eai.core.learn.task.Task`.
        leads: at which the scores by lead are given; null for all.
    """

    climatology: Tensor

    def __init__(
        self,
        net: nn.Module,
        loss: RolloutMSE,
        unroll: Unroll,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
        leads: Sequence[int] | None = None,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler)
        require(leads is None or (len(leads) > 0 and min(leads) >= 1), "leads", "lead times of at least 1", leads)
        self.unroll, self.leads, self._modes = unroll, leads, 0
        graph = interface.graph_of(net)
        self._shape: tuple[int, ...] = graph.shape if graph else ()  # of the data's grid, once they are known
        self._surface: Surface | None = None
        self.anomalies: Anomalies | None = None  # of data from files
        self._history = 0
        self.register_buffer("climatology", torch.zeros(()))
        # Fitting the stencils is slow: keep the result for each data.
        self._references: tuple[DataModule[Batch], Mapping[str, Callable[[Batch], Forecast]]] | None = None

    def check_data(self, data: DataModule[Batch]) -> None:
        fields = _trajectories(data)
        interface.check_grid(self.net, fields)
        val = data.batch("val", 1)
        for kind, horizon in (("training", fields.horizon), ("validation", val.u.shape[1] - 1)):
            if self.unroll.steps > horizon:
                raise ConfigError(
                    f"model.unroll.steps: expected at most {horizon}, the steps of a {kind} trajectory of data; "
                    f"got {self.unroll.steps}"
                )
        if not self._leads(horizon):
            raise ConfigError(f"model.leads: expected one of 1 to {horizon}, the steps of data, got {self.leads}")
        interface.check_call(self.net, self.step, self.transfer_batch_to_device(val, self.device, 0))

    def prepare(self, data: DataModule[Batch]) -> None:
        batch, self._references = _trajectories(data).fitting(), None
        fields = _trajectories(data)
        self._modes = min(fields.modes, min(fields.shape) // 2) if fields.positions is None else 0
        self._shape, self._surface, self.anomalies = fields.shape, fields.surface, fields.anomalies
        self._history = fields.history
        self.climatology.copy_(climatological_mean(batch))
        interface.fit_scales(self.net, batch)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if self.anomalies is not None:
            checkpoint[elsewhere.KEY] = elsewhere.kept(self.anomalies, self._history)

    def make_room(self, checkpoint: Mapping[str, Any]) -> None:
        if (found := elsewhere.restored(checkpoint)) is not None:
            self.anomalies, self._history = found
            interface.check_call(self.net, self.step, elsewhere.example(*found))

    def forecast_fields(self, states: Float[Tensor, "h c *shape"], times: np.ndarray) -> Float[Tensor, "l c *shape"]:
        """Forecast fields of the kind that the net was trained on, in their units; NaN where there is no node.

        Args:
            states, times: see :func:`eai.tasks.dynamics.elsewhere.batch_of`; the last ``l`` times are those forecast.

        Raises:
            ValueError: the net was not trained on data=dynamics/netcdf, or these are no such states.
        """
        if self.anomalies is None:
            raise ValueError("forecast_fields: expected a net trained on data=dynamics/netcdf, which has fields")
        batch = elsewhere.batch_of(self.anomalies, self._history, states, times)
        forecast = self.predict(self.transfer_batch_to_device(batch, self.device, 0))
        return self.anomalies.maps(forecast.rollout, batch.forcing[:, 1:])[0].float()

    def forward(self, batch: Batch) -> Windows:
        epoch = self.current_epoch if self.training else 0
        return self.unroll(self.net, batch, epoch, self.training)

    def estimate(self, batch: Batch, output: Windows) -> Forecast:
        return Forecast(*(newest(u, self._history) for u in forecast(self.step, batch)))

    def predict(self, batch: Batch) -> Forecast:
        with torch.no_grad():
            return Forecast(*(newest(u, self._history) for u in forecast(self.step, batch)))

    def step(self, u: Float[Tensor, "b n c"], static: Float[Tensor, "b n s"]) -> Float[Tensor, "b n c"]:
        """Apply the net in its own precision and return the next state in that of ``u``."""
        dtype = next((weight.dtype for weight in self.net.parameters()), u.dtype)
        return self.net(u.to(dtype), static.to(dtype)).to(u.dtype)

    def scores(self, batch: Batch, estimate: Forecast) -> Mapping[str, PerSample]:
        batch = of_newest(widened(batch), self._history)
        truth, fields = batch.u[:, 1:], self.anomalies
        leads, nrmse = self._leads(truth.shape[1]), scores.nrmse if fields is None else fields.nrmse
        error = nrmse(estimate.rollout, truth)
        values = scores.per_sample(batch.u, estimate.one_step, estimate.rollout, error, leads, self.climatology)
        if fields is not None:
            return values | fields.square_errors(estimate.rollout, truth, leads)
        if not self._modes:
            return values
        return values | scores.mode_errors(estimate.one_step[:, 0], truth[:, 0], self._shape, self._modes)

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        return scores.final_scores(means) | (self.anomalies.rms_errors(means) if self.anomalies else {})

    def baselines(self, data: DataModule[Batch]) -> Mapping[str, Callable[[Batch], Forecast]]:
        if self._references is None or self._references[0] is not data:
            self._references = data, references(_trajectories(data), self.climatology)
        return self._references[1]

    def measure(self, data: DataModule[Batch]) -> Mapping[str, Mapping[str, float]]:
        found = self._gains(data)
        return {"model": found.largest()} if found else {}

    def _gains(self, data: DataModule[Batch]) -> gains.Gains | None:
        fields = _trajectories(data)
        if fields.positions is not None:
            return None
        return gains.gains(self.step, self.transfer_batch_to_device(fields.fitting(), self.device, 0), fields.shape)

    def coordinates(self, data: DataModule[Batch]) -> Mapping[str, Variable]:
        return export.coordinates(_trajectories(data))

    def exported(
        self, data: DataModule[Batch], batch: Batch, estimates: Mapping[str, Forecast]
    ) -> Mapping[str, Variable]:
        return export.variables(_trajectories(data), of_newest(batch, self._history), estimates)

    def figures(self, batch: Batch, estimate: Forecast) -> Mapping[str, Drawing]:
        if self.anomalies is not None:
            return plots_fields.of_samples(of_newest(batch, self._history), estimate, self.anomalies)
        if self._surface is not None:
            return plots_sphere.of_samples(batch, estimate, self._surface)
        return plots.of_samples(batch, estimate, self._shape)

    def closing_figures(self, data: DataModule[Batch], batch: Batch, estimate: Forecast) -> Mapping[str, Drawing]:
        fields, graph = _trajectories(data), interface.graph_of(self.net)
        many = self.transfer_batch_to_device(data.batch("test", COMPARED), self.device, 0)
        forecasts = {"network": self.predict(many)} | {
            name: method(many) for name, method in self.baselines(data).items()
        }
        if not isinstance(fields, Solved):
            many = of_newest(many, self._history)
            return plots_fields.of_methods(many, forecasts, self.anomalies) if self.anomalies else {}
        found = self._gains(data)
        return {
            **({"gain": gains.draw(found)} if found else {}),
            **plots_scores.of_methods(fields, many, forecasts),
            **(
                plots_sphere.of_rollout(batch, estimate, fields.surface)
                if fields.surface
                else plots.of_rollout(batch, estimate, fields)
            ),
            **(plots_scores.of_graph(graph) if graph else {}),
        }

    def _leads(self, horizon: int) -> list[int]:
        return [lead for lead in self.leads or range(1, horizon + 1) if lead <= horizon]


def _trajectories(data: DataModule[Batch]) -> Trajectories:
    if not isinstance(data, Trajectories):
        raise ConfigError(f"data._target_: expected data of the dynamics task, got {type(data).__name__}")
    return data
