"""Slide 2.3: learning the analysis from the variational cost.

Scores (``val/…`` and ``test/…``; N samples, means over all of them):

* ``j_ratio`` = ΣJ(x_a) / ΣJ(x*), 1 at the exact minimum x* (BLUE); J is the 3D-Var cost.
* ``j_skill`` = 1 − (J − J*)/(J_b − J*): 0 for the background, 1 for the optimum.
* ``chi2`` = 2J/p, mean per observation; 1 is expected at the optimum of a consistent experiment.
* ``loss`` = the training loss (J, or the slides' own), with its terms ``loss/background`` and ``loss/observation``.
* ``rmse_background``, ``rmse_analysis``, ``rmse_optimum``: root mean square distance from the truth x_t.
* ``gap_to_optimum`` = root mean square distance of x_a from x*.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.data import DataModule
from eai.core.errors import ConfigError
from eai.core.task import Drawing, Task
from eai.tasks.assimilation import plots
from eai.tasks.assimilation.cost import Cost, VariationalCost
from eai.tasks.assimilation.data import Batch


class Assimilation(Task[Batch, Tensor, Tensor]):
    """A net from (x_b, y) to the analysis x_a, scored against the exact minimiser of the 3D-Var cost.

    Args:
        net: Batch → analysis (b, n).
        loss: the cost that is minimised; :class:`VariationalCost` or :class:`SlidesCost`.
        optimizer, scheduler: see :class:`eai.core.task.Task`.
    """

    loss: Cost

    def __init__(
        self,
        net: nn.Module,
        loss: Cost,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler)
        self.cost = VariationalCost(loss.covariance, loss.sigma_o)

    def check_data(self, data: DataModule[Batch]) -> None:
        n = getattr(data, "n", None)
        if n != self.loss.covariance.n:
            raise ConfigError(f"model.loss.covariance.n: expected data.n = {n}, got {self.loss.covariance.n}")

    def forward(self, batch: Batch) -> Float[Tensor, "b n"]:
        return self.net(batch)

    def estimate(self, batch: Batch, output: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return output

    def scores(self, batch: Batch, estimate: Float[Tensor, "b n"]) -> Mapping[str, Tensor]:
        optimum = self.cost.minimiser(batch)
        j = torch.stack(list(self.cost(estimate, batch).values())).sum(0)
        return {
            "j": j,
            "j_optimum": self.cost.minimum(batch),
            "j_background": torch.stack(list(self.cost(batch.xb, batch).values())).sum(0),
            "chi2": 2 * j / batch.obs_mask.sum(1),
            "mse_background": (batch.xb - batch.xt).square().mean(1),
            "mse_analysis": (estimate - batch.xt).square().mean(1),
            "mse_optimum": (optimum - batch.xt).square().mean(1),
            "mse_gap": (estimate - optimum).square().mean(1),
            **{f"loss_{name}": term for name, term in self.loss(estimate, batch).items()},
        }

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        j, optimum, background = means["j"], means["j_optimum"], means["j_background"]
        return {
            "j_ratio": j / optimum if optimum > 0 else math.inf,
            "j_skill": 1 - (j - optimum) / (background - optimum) if background > optimum else math.nan,
            "chi2": means["chi2"],
            "loss": means["loss_background"] + means["loss_observation"],
            "loss/background": means["loss_background"],
            "loss/observation": means["loss_observation"],
            "rmse_background": math.sqrt(means["mse_background"]),
            "rmse_analysis": math.sqrt(means["mse_analysis"]),
            "rmse_optimum": math.sqrt(means["mse_optimum"]),
            "gap_to_optimum": math.sqrt(means["mse_gap"]),
        }

    def baselines(self, data: DataModule[Batch]) -> Mapping[str, Callable[[Batch], Tensor]]:
        references: dict[str, Callable[[Batch], Tensor]] = {
            "background": lambda batch: batch.xb,
            "blue": self.cost.minimiser,
        }
        if not isinstance(self.loss, VariationalCost):
            references["loss_minimiser"] = self.loss.minimiser
        return references

    def figures(self, batch: Batch, estimate: Float[Tensor, "b n"]) -> Mapping[str, Drawing]:
        return {"analysis": plots.analyses(batch, estimate, self.cost.minimiser(batch))}

    def closing_figures(
        self, data: DataModule[Batch], batch: Batch, estimate: Float[Tensor, "b n"]
    ) -> Mapping[str, Drawing]:
        return {"background_covariance": plots.covariance(self.loss.covariance.matrix)}
