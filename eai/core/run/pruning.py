"""Stop a trial of a search that will not win, as the study's pruner sees it."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from eai.core.learn.ranks import from_rank_zero
from eai.core.run.callbacks import History
from eai.core.schema import Experiment
from eai.core.trials import Trial


class Pruning(L.Callback):
    """Report the monitored score after every validation; stop all processes if the study's pruner says so to rank 0.

    Args:
        trial: that this run is.
        experiment: for the monitored score, the number of epochs and the pruner.
        history: of the scores, those of before a resumption too.
    """

    def __init__(self, trial: Trial, experiment: Experiment, history: History) -> None:
        self._trial, self._experiment, self._history = trial, experiment, history
        self.reason: str | None = None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking:
            return  # no part of the training: that of the final weights, or a check before the first step
        experiment, done = self._experiment, trainer.current_epoch + 1
        points = [(epoch + 1, value) for epoch, value in self._history.points[experiment.monitor.score]]
        pruned = from_rank_zero(lambda: self._trial.report(points, experiment.pruner, experiment.epochs))
        if pruned and done < experiment.epochs:
            self.reason = f"by {experiment.pruner.name} after epoch {done} of {experiment.epochs}"
            trainer.should_stop = True
