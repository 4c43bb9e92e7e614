"""Slide 2.1: learning the dynamics of a travelling wave, step by step on a graph.

Scores (``val/…`` and ``test/…``; means over all samples of the split):

* ``mse``: mean square error of the next state, each predicted from the true state before it.
* ``mse_rollout``: the same for a free rollout from the first state, mean over all leads.
* ``nrmse/lead_01`` …: RMSE / rms(truth) of the free rollout after so many steps; 0 is perfect, 1 as bad as the
  climatological mean (zero), √2 as bad as an unrelated state of the same amplitude.
* ``skill_persistence`` = 1 − mse / mse of persistence: 1 is perfect, 0 no better than the last state.

Baselines: ``persistence``, ``upwind`` (first-order, stable sub-steps) and ``exact`` (the solution operator).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.data import DataModule
from eai.core.errors import ConfigError
from eai.core.task import Drawing, Task
from eai.tasks.dynamics import plots
from eai.tasks.dynamics.baselines import persistence, upwind
from eai.tasks.dynamics.data import Batch, SingleWave
from eai.tasks.dynamics.forecast import Forecast, OneStepMSE, forecast, mse, nrmse, one_step, rollout
from eai.tasks.dynamics.nets import GCN


class Dynamics(Task[Batch, Tensor, Forecast]):
    """A net from the state at t to the state at t+1, trained on single steps and rolled out freely.

    Args:
        net: state (b, n, c) → next state (b, n, c).
        loss: of the one-step predictions.
        optimizer, scheduler: see :class:`eai.core.task.Task`.
    """

    net: GCN

    def __init__(
        self,
        net: GCN,
        loss: OneStepMSE,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler)

    def check_data(self, data: DataModule[Batch]) -> None:
        wave, net = _wave(data), self.net
        if net.nx != wave.nx:
            raise ConfigError(f"model.net.graph.nx: expected data.nx = {wave.nx}, got {net.nx}")
        needed = math.ceil(wave.courant)
        if net.reach < needed:
            raise ConfigError(
                f"model.net.graph: expected a reach of at least {needed} cells per step, because the signal of data "
                f"moves {wave.courant:.2f}; got a reach of {net.reach} ({net.layers} layers × {net.graph.reach} cells)"
            )

    def forward(self, batch: Batch) -> Float[Tensor, "b l n c"]:
        return one_step(self.net, batch.u)

    def estimate(self, batch: Batch, output: Float[Tensor, "b l n c"]) -> Forecast:
        return Forecast(output, rollout(self.net, batch.u[:, 0], batch.u.shape[1] - 1))

    def scores(self, batch: Batch, estimate: Forecast) -> Mapping[str, Tensor]:
        truth = batch.u[:, 1:]
        by_lead = nrmse(estimate.rollout, truth)
        return {
            "mse": mse(estimate.one_step, truth),
            "mse_rollout": mse(estimate.rollout, truth),
            "mse_persistence": mse(batch.u[:, :-1], truth),
            **{f"nrmse/lead_{lead:02d}": value for lead, value in enumerate(by_lead.T, start=1)},
        }

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        reference = means["mse_persistence"]
        scores = {name: mean for name, mean in means.items() if name != "mse_persistence"}
        return scores | {"skill_persistence": 1 - means["mse"] / reference if reference > 0 else math.nan}

    def baselines(self, data: DataModule[Batch]) -> Mapping[str, Callable[[Batch], Forecast]]:
        wave = _wave(data)
        return {
            "persistence": partial(forecast, persistence),
            "upwind": partial(forecast, upwind(wave.cells)),
            "exact": partial(forecast, wave.step),
        }

    def figures(self, batch: Batch, estimate: Forecast) -> Mapping[str, Drawing]:
        return {"one_step": plots.one_step(batch, estimate)}

    def closing_figures(self, data: DataModule[Batch], batch: Batch, estimate: Forecast) -> Mapping[str, Drawing]:
        wave, graph, truth = _wave(data), self.net.graph, batch.u[:, 1:]
        methods = self.baselines(data)
        rollouts = {"network": estimate.rollout} | {
            name: methods[name](batch).rollout for name in ("persistence", "upwind")
        }
        return {
            "waves": plots.waves(wave.x, wave.trajectory()[:, :, 0]),
            "distances": plots.distances(graph),
            "adjacency": plots.adjacency(graph),
            "circle": plots.circle(graph),
            "nrmse": plots.nrmse_by_lead({name: nrmse(u, truth).mean(0) for name, u in rollouts.items()}),
            "hovmoeller": plots.hovmoeller(batch, estimate),
            "rollout": plots.animation(batch, estimate),
        }


def _wave(data: DataModule[Batch]) -> SingleWave:
    if not isinstance(data, SingleWave):
        raise ConfigError(f"data._target_: expected data of the dynamics task, got {type(data).__name__}")
    return data
