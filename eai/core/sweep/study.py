"""An Optuna study that is kept in a file: what it may search, how many trials it still needs, which ones come again."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.sweep.names import is_optuna, keys_of, sweep_name

# In the attributes of a trial: the number of an earlier one with the same parameters that it stands for.
_CONTINUES = "continues"
_SQLITE = "sqlite:///"
# Packages that Optuna imports only when the first parameters are drawn.
_NEEDS = {"cmaes": "cmaes", "gp": "scipy", "qmc": "scipy"}


def keeps_study(config: DictConfig) -> bool:
    """Whether the sweep's trials are kept in a file."""
    return bool(config.hydra.sweeper.get("storage"))


def check_search(config: DictConfig) -> None:
    """Refuse an Optuna search that would fail at its first trial; other sweepers pass.

    Args:
        config: the sweep's configuration, with Hydra's.

    Raises:
        ConfigError: a direction contradicts its objective, or the sampler cannot be used here.
    """
    sweeper = config.hydra.sweeper
    if not is_optuna(config):
        return
    _check_direction(config)
    choice = str(config.hydra.runtime.choices.get("hydra/sweeper/sampler"))
    if choice == "grid":
        # Optuna's crashes when the last cell of its grid fails.
        raise ConfigError(
            "hydra/sweeper/sampler=grid: expected another sampler; -m a=1,2 b=3,4 tries all without Optuna"
        )
    if not find_spec(_NEEDS.get(choice, "optuna")):
        raise ConfigError(f"hydra/sweeper/sampler={choice}: needs the package {_NEEDS[choice]}; pip install it")
    try:
        trusted = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
        instantiate(sweeper.sampler, _execution_whitelist_=trusted)
    except Exception as error:  # whatever a sampler of Optuna refuses
        raise ConfigError(f"hydra.sweeper.sampler ({choice}): {error.__cause__ or error}") from error
    if not keys_of(config):
        raise ConfigError("hydra.sweeper.params: expected something to search, as seed=range(9); got nothing")


def _check_direction(config: DictConfig) -> None:
    direction = config.hydra.sweeper.direction
    given = list(direction) if OmegaConf.is_list(direction) else [direction]
    told = [str(getattr(item, "name", item)) for item in given]
    for name, asked in zip(config.objectives, told, strict=False):
        wanted = "maximize" if name == "score" and config.monitor.mode == "max" else "minimize"
        if asked != wanted:
            raise ConfigError(f"hydra.sweeper.direction: expected {wanted} for {name}, got {asked}")
    if len(told) != len(config.objectives):
        raise ConfigError(
            f"objectives: expected one for each of hydra.sweeper.direction={told}, got {list(config.objectives)}"
        )


def _study(storage: str | None, name: str | None) -> Any:
    """The study ``name`` in an SQLite file; None where there is no such file yet."""
    if not storage or not storage.startswith(_SQLITE) or not Path(storage.removeprefix(_SQLITE)).is_file():
        return None
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.load_study(study_name=name, storage=storage) if name in optuna.get_all_study_names(storage) else None


def _superseded(study: Any) -> set[int]:
    """The numbers of trials whose parameters were queued again."""
    return {trial.user_attrs[_CONTINUES] for trial in study.get_trials() if _CONTINUES in trial.user_attrs}


def queue_again(config: DictConfig, record: Path) -> None:
    """Queue the trials that were cut off, and with ``retry_failed`` those that failed: they come first.

    Their parameters, and so their directories, stay the same.

    Args:
        config: the sweep's configuration, with Hydra's.
        record: the ``sweep.json`` that an earlier sweep left in the directory.

    Raises:
        ConfigError: the study belongs to another search.
    """
    from optuna.trial import TrialState

    sweeper = config.hydra.sweeper
    study = _study(sweeper.get("storage"), sweeper.get("study_name"))
    if study is None:
        return
    name = sweep_name(config)
    if record.is_file() and read_json(record).get("name", name) != name:
        raise ConfigError(f"hydra.sweep.dir: {record.parent} holds another search; expected a directory of its own")
    again = (TrialState.RUNNING, TrialState.FAIL) if config.retry_failed else (TrialState.RUNNING,)
    trials, superseded = study.get_trials(), _superseded(study)
    # What is queued already, or complete, is not queued once more.
    waiting = [t.user_attrs[_CONTINUES] for t in trials if t.state == TrialState.WAITING and _CONTINUES in t.user_attrs]
    known = [t.params for t in trials if t.state == TrialState.COMPLETE or t.number in waiting]
    for trial in trials:
        if trial.state in again and trial.number not in superseded and trial.params not in known:
            study.enqueue_trial(trial.params, user_attrs={_CONTINUES: trial.number})
            known.append(trial.params)
        if trial.state == TrialState.RUNNING:
            study.tell(trial.number, state=TrialState.FAIL)


def _trials_left(total: int, storage: str | None, name: str | None) -> int:
    """How many trials the study still needs for ``total`` that ended and were not queued again; at least the queue."""
    study = _study(storage, name)
    if study is None:
        return total
    trials, superseded = study.get_trials(), _superseded(study)
    ended = sum(trial.state.is_finished() and trial.number not in superseded for trial in trials)
    return max(total - ended, sum(not trial.state.is_finished() for trial in trials))


def _sampler_seed(seed: int, storage: str | None, name: str | None) -> int:
    """A seed of its own for every continuation of a study, so that it does not draw its first trials again."""
    study = _study(storage, name)
    return seed + (len(study.get_trials()) if study else 0)


def parallel_jobs(n_jobs: int) -> int:
    """How many jobs joblib's ``n_jobs`` means here: -1 is one per core, -2 one less."""
    return int(n_jobs) if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + int(n_jobs))


OmegaConf.register_resolver("eai.trials_left", _trials_left, replace=True)
OmegaConf.register_resolver("eai.sampler_seed", _sampler_seed, replace=True)
OmegaConf.register_resolver("eai.parallel_jobs", parallel_jobs, replace=True)
