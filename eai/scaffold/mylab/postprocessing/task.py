"""Post-processing as a task of eai.

Scores (``val/…`` and ``test/…``, K):

* ``rmse``: root mean square error of the corrected forecast; the monitored score.
* ``mean_error``: its systematic part, mean of forecast − truth.
* ``skill`` = 1 − MSE / MSE of the raw forecast.

Baselines: ``raw``, the forecast as it is; ``mean_correction``, less its mean error in the training data;
``regression``, the linear regression on all predictors; ``optimum``, the forecast less its expected error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from eai.core.learn.data import DataModule
from eai.core.learn.figures import Drawing
from eai.core.learn.task import Task
from eai.core.palette import BLACK, ORANGE, PREDICTION, legend_below, new_figure
from mylab.postprocessing.data import Batch, bias
from mylab.postprocessing.nets import predictors


class SquaredError(nn.Module):
    """The squared error of each sample."""

    def forward(self, output: Tensor, batch: Batch) -> dict[str, Tensor]:
        return {"mse": (output - batch.truth).square()}


class PostProcessing(Task[Batch, Tensor, Tensor]):
    """Learn the correction of a forecast.

    Args:
        net: Batch → corrected forecast (b,).
        loss: of the corrected forecast.
        optimizer: called with the trainable parameters.
        scheduler: called with the optimizer.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
    ) -> None:
        super().__init__(net, loss, optimizer, scheduler)

    def forward(self, batch: Batch) -> Tensor:
        output: Tensor = self.net(batch)
        return output

    def estimate(self, batch: Batch, output: Tensor) -> Tensor:
        return output.float()

    def scores(self, batch: Batch, estimate: Tensor) -> Mapping[str, Tensor]:
        error = estimate - batch.truth
        return {"mse": error.square(), "mean_error": error, "mse_raw": (batch.forecast - batch.truth).square()}

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        return {
            "rmse": math.sqrt(means["mse"]),
            "mean_error": means["mean_error"],
            "skill": 1 - means["mse"] / means["mse_raw"],
        }

    def baselines(self, data: DataModule[Batch]) -> Mapping[str, Callable[[Batch], Tensor]]:
        train = data.batch("train")
        mean_error = (train.forecast - train.truth).mean()
        columns = torch.cat([predictors(train), torch.ones(len(train.truth), 1)], dim=1).double()
        weights = torch.linalg.lstsq(columns, train.truth.double()[:, None]).solution[:, 0].float()
        return {
            "raw": lambda batch: batch.forecast,
            "mean_correction": lambda batch: batch.forecast - mean_error.to(batch.forecast.device),
            "regression": lambda batch: predictors(batch) @ weights[:-1].to(batch.forecast.device) + weights[-1],
            "optimum": lambda batch: batch.forecast - bias(batch.forecast, batch.season, batch.height),
        }

    def figures(self, batch: Batch, estimate: Tensor) -> Mapping[str, Drawing]:
        figure = new_figure(6.5, 4.5)
        axes = figure.subplots()
        for label, forecast, colour in (("raw forecast", batch.forecast, ORANGE), ("network", estimate, PREDICTION)):
            axes.scatter(batch.truth.cpu(), (forecast - batch.truth).cpu(), s=12, color=colour, label=label)
        axes.axhline(0, color=BLACK, lw=0.8)
        axes.set(title="Errors at stations: the network's (red) should be nearer to zero", xlabel="observed (K)")
        axes.set_ylabel("forecast − observed (K)")
        legend_below(figure)
        return {"errors": figure}

    def closing_figures(self, data: DataModule[Batch], batch: Batch, estimate: Tensor) -> Mapping[str, Drawing]:
        many = self.transfer_batch_to_device(data.batch("test", 500), self.device, 0)
        return self.figures(many, self.predict(many))
