"""An Optuna study that is kept in a file: how many trials it still needs, and those that were cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

# Marks a trial that ended with its process; the same parameters were queued again, and their run is continued.
_CONTINUED = "continued"


def _study(storage: str | None, name: str | None) -> Any:
    """The study ``name`` in an SQLite file; None where there is no such file yet."""
    if storage is None or not storage.startswith("sqlite:///") or not Path(storage[len("sqlite:///") :]).is_file():
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    known = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
    return optuna.load_study(study_name=name, storage=storage) if name in known else None


def queue_cut_off_trials(config: DictConfig) -> None:
    """Queue the trials that were running when a sweep ended: they come first, in the directories that they have."""
    sweeper = config.hydra.sweeper
    study = _study(sweeper.get("storage"), sweeper.get("study_name"))
    if study is None:
        return
    from optuna.trial import TrialState

    for trial in study.get_trials(states=[TrialState.RUNNING]):
        study.enqueue_trial(trial.params)
        study._storage.set_trial_user_attr(trial._trial_id, _CONTINUED, True)
        study.tell(trial.number, state=TrialState.FAIL)


def _trials_left(total: int, storage: str | None, name: str | None) -> int:
    """How many trials the study still needs for ``total`` that have come to their end."""
    study = _study(storage, name)
    trials = study.get_trials() if study else []
    return max(0, total - sum(t.state.is_finished() and _CONTINUED not in t.user_attrs for t in trials))


def _sampler_seed(seed: int, storage: str | None, name: str | None) -> int:
    """A seed of its own for every continuation of a study, so that it does not draw its first trials again."""
    study = _study(storage, name)
    return seed + (len(study.get_trials()) if study else 0)


OmegaConf.register_resolver("eai.trials_left", _trials_left, replace=True)
OmegaConf.register_resolver("eai.sampler_seed", _sampler_seed, replace=True)
