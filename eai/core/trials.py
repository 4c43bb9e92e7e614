"""A trial of an Optuna study as the process that trains it sees it; the study's journal is the channel between them.

Hydra passes a job its overrides and nothing else. Which trial it is comes in an environment variable, which a job's own
processes inherit. Free of torch, and of Optuna until it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eai.core.schema import Pruner

VARIABLE = "EAI_TRIAL"


def journal_storage(path: str | Path) -> Any:
    """Optuna's storage in a journal, to which several processes may append, on one machine or on NFS.

    Args:
        path: of the file; it is made if it does not exist.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.storages.JournalStorage(JournalFileBackend(str(path)))


def optuna_pruner(settings: Pruner, epochs: int) -> Any:
    """Optuna's pruner; it counts epochs.

    Args:
        settings: its name and numbers.
        epochs: that a trial has if it is not pruned.
    """
    import optuna

    grace, factor = settings.grace_epochs, settings.reduction_factor
    if settings.name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=settings.startup_trials, n_warmup_steps=grace)
    if settings.name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=grace, reduction_factor=factor)
    if settings.name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=grace, max_resource=epochs, reduction_factor=factor)
    return optuna.pruners.NopPruner()


@dataclass(frozen=True)
class Trial:
    """Where a trial is kept.

    Attributes:
        number: of the trial.
        study: name of the study.
        journal: path of its file.
    """

    number: int
    study: str
    journal: str

    @property
    def text(self) -> str:
        """The value of the environment variable."""
        return f"{self.number} {self.study} {self.journal}"

    @classmethod
    def of_this_job(cls) -> Trial | None:
        """The trial that this process trains; None in a run that belongs to no study."""
        if not (text := os.environ.get(VARIABLE)):
            return None
        number, study, journal = text.split(" ", 2)
        return cls(int(number), study, journal)

    @cached_property
    def _storage(self) -> Any:
        return journal_storage(self.journal)

    def report(self, points: Iterable[tuple[int, float]], settings: Pruner, epochs: int) -> bool:
        """Report scores to the study; return whether its pruner would stop the trial now.

        A trial that ended meanwhile, because its process was taken for dead, goes on unobserved.

        Args:
            points: pairs of epochs done and score; what the study knows already is left out.
            settings: of the pruner.
            epochs: that a trial has if it is not pruned.
        """
        import optuna

        study = optuna.load_study(study_name=self.study, storage=self._storage)
        study_id = self._storage.get_study_id_from_name(self.study)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, self.number)
        known = self._storage.get_trial(trial_id).intermediate_values
        try:
            for step, value in points:
                if step not in known:
                    self._storage.set_trial_intermediate_value(trial_id, step, value)
            pruner = optuna_pruner(settings, epochs)
            return bool(pruner.prune(study, self._storage.get_trial(trial_id)))
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
