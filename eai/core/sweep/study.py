"""An Optuna study that is kept in a file: what it may search, how many trials it still needs, which ones come again."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.sweep.names import is_optuna, keys_of, sweep_name
from eai.core.sweep.workers import Workers
from eai.core.trials import journal_storage

log = logging.getLogger("eai")

# In the attributes of a trial: the number of an earlier one with the same parameters that it stands for.
_CONTINUES = "continues"
_WORKER = "worker"  # and the process that works on it
_SAMPLERS = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
# Packages that Optuna imports only when the first parameters are drawn.
_NEEDS = {"cmaes": "cmaes", "gp": "scipy", "qmc": "scipy"}


def keeps_study(config: DictConfig) -> bool:
    """Whether the sweep's trials are kept in a file, as those of ``sweep=optuna`` are."""
    return str(config.hydra.sweeper.get("_target_")).endswith(".StudySweeper")


def check_search(config: DictConfig) -> None:
    """Refuse an Optuna search that would fail at its first trial; other sweepers pass.

    Args:
        config: the sweep's configuration, with Hydra's.

    Raises:
        ConfigError: a direction contradicts its objective, or the sampler cannot be used here.
    """
    if config.pruner.name != "none" and not keeps_study(config):
        raise ConfigError(f"pruner: expected a search by Optuna, as sweep=optuna, got {config.pruner.name} without one")
    if config.pruner.name != "none" and len(config.objectives) > 1:
        raise ConfigError(f"pruner: expected none with several objectives, got {config.pruner.name}")
    if not is_optuna(config):
        return
    if keeps_study(config) and "/" in str(config.hydra.sweeper.storage):
        told = config.hydra.sweeper.storage
        raise ConfigError(f"hydra.sweeper.storage: expected the name of a file in the sweep's directory, got {told}")
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
        _sampler(config, 0)
    except Exception as error:  # whatever a sampler of Optuna refuses
        raise ConfigError(f"hydra.sweeper.sampler ({choice}): {error.__cause__ or error}") from error
    if not keys_of(config):
        raise ConfigError("hydra.sweeper.params: expected something to search, as seed=range(9); got nothing")


def _directions(config: DictConfig) -> list[str]:
    direction = config.hydra.sweeper.direction
    given = list(direction) if OmegaConf.is_list(direction) else [direction]
    return [str(getattr(item, "name", item)) for item in given]


def _check_direction(config: DictConfig) -> None:
    told = _directions(config)
    for name, asked in zip(config.objectives, told, strict=False):
        wanted = "maximize" if name == "score" and config.monitor.mode == "max" else "minimize"
        if asked != wanted:
            raise ConfigError(f"hydra.sweeper.direction: expected {wanted} for {name}, got {asked}")
    if len(told) != len(config.objectives):
        raise ConfigError(
            f"objectives: expected one for each of hydra.sweeper.direction={told}, got {list(config.objectives)}"
        )


class Study:
    """The study of a search, in the journal of the sweep's directory.

    Args:
        config: the sweep's configuration, with Hydra's.
    """

    def __init__(self, config: DictConfig) -> None:
        sweeper = config.hydra.sweeper
        self.folder = Path(config.hydra.runtime.cwd) / config.hydra.sweep.dir
        self.journal, self.name = self.folder / sweeper.storage, str(sweeper.study_name)
        self.workers = Workers(self.folder)
        self._config = config
        self._total, self._retry = int(config.trials), bool(config.retry_failed)

    @cached_property
    def _study(self) -> Any:
        import optuna

        self.folder.mkdir(parents=True, exist_ok=True)
        study = optuna.create_study(
            study_name=self.name,
            storage=journal_storage(self.journal),
            directions=_directions(self._config),
            load_if_exists=True,
        )
        if not study.user_attrs:
            study.set_user_attr("objectives", list(self._config.objectives))
        return study

    def queue_again(self) -> None:
        """Queue the trials whose process is gone, and with ``retry_failed`` those that failed: they come first.

        Their parameters, and so their directories, stay the same.

        Raises:
            ConfigError: the directory holds another search.
        """
        if not self.journal.is_file():
            return
        record, name = self.folder / "sweep.json", sweep_name(self._config)
        if record.is_file() and read_json(record).get("name", name) != name:
            raise ConfigError(f"hydra.sweep.dir: {self.folder} holds another search; expected a directory of its own")
        with self.workers.alone():
            self._queue_again(self._retry)

    def _queue_again(self, retry: bool) -> None:
        from optuna.trial import TrialState

        study = self._study
        trials = study.get_trials(deepcopy=False)
        lost = [
            t for t in trials if t.state == TrialState.RUNNING and not self.workers.alive(t.user_attrs.get(_WORKER, ""))
        ]
        failed = [t for t in trials if t.state == TrialState.FAIL] if retry else []
        superseded = _superseded(trials)
        # What is queued already, or came to its end, is not queued once more.
        known = [t.params for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        waiting = [t.user_attrs.get(_CONTINUES) for t in trials if t.state == TrialState.WAITING]
        known += [trials[number].params for number in waiting if number is not None]
        for trial in sorted([*lost, *failed], key=lambda trial: trial.number):
            if trial.number not in superseded and trial.params not in known:
                study.enqueue_trial(trial.params, user_attrs={_CONTINUES: trial.number})
                known.append(trial.params)
        for trial in lost:
            study.tell(trial.number, state=TrialState.FAIL)

    def claim(self, space: dict[str, Any], count: int, worker: str) -> list[Any]:
        """The next trials, at most ``count``; none if the study has as many as it should, or others make them.

        A trial that ended, and was not queued again, counts; so does one that another process works on.

        Args:
            space: Optuna's distribution of each parameter.
            count: how many are wanted.
            worker: the name of this process among the :class:`Workers`.
        """
        from optuna.trial import TrialState

        claimed = []
        with self.workers.alone():
            self._queue_again(retry=False)
            trials = self._study.get_trials(deepcopy=False)
            superseded = _superseded(trials)
            made = sum(t.state != TrialState.WAITING and t.number not in superseded for t in trials)
            waiting = sum(t.state == TrialState.WAITING for t in trials)
            for _ in range(min(count, max(self._total - made, waiting))):
                self._study.sampler = _sampler(self._config, len(self._study.get_trials(deepcopy=False)))
                trial = self._study.ask(space)
                trial.set_user_attr(_WORKER, worker)
                claimed.append(trial)
        return claimed

    def tell(self, trial: Any, pruned: bool, values: tuple[float, ...] | None) -> None:
        """Record what became of a trial.

        Args:
            trial: one that :meth:`claim` gave.
            pruned: whether it was pruned.
            values: its objectives; None, or not a number, where it failed.
        """
        from optuna.exceptions import UpdateFinishedTrialError
        from optuna.trial import TrialState

        failed = values is None or any(math.isnan(value) for value in values)
        try:
            if pruned or failed:
                self._study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)
            else:
                self._study.tell(trial, list(values or ()))
        except (UpdateFinishedTrialError, ValueError) as error:  # another process took this one for dead
            log.warning("trial %d of the study was told before: %s", trial.number, error)

    def best(self) -> dict[str, Any]:
        """The best trial, or those that no other beats in all objectives, as plain values."""
        if len(self._study.directions) > 1:
            best = [{"params": dict(t.params), "values": list(t.values)} for t in self._study.best_trials]
            return {"name": "optuna", "solutions": best}
        from optuna.trial import TrialState

        if not self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            return {"name": "optuna"}
        best_trial = self._study.best_trial
        return {"name": "optuna", "best_params": dict(best_trial.params), "best_value": best_trial.value}


def _superseded(trials: Sequence[Any]) -> set[int]:
    """The numbers of trials whose parameters were queued again."""
    return {trial.user_attrs[_CONTINUES] for trial in trials if _CONTINUES in trial.user_attrs}


def _sampler(config: DictConfig, made: int) -> Any:
    """The sampler, with a seed of its own for every trial: processes draw different ones, and a study goes on as begun.

    Args:
        config: the sweep's configuration, with Hydra's.
        made: trials that the study has.
    """
    node = config.hydra.sweeper.sampler
    # A quasi-random sequence is one, from the seed that it began with.
    one = config.hydra.runtime.choices.get("hydra/sweeper/sampler") == "qmc" or node.get("seed") is None
    return instantiate(node, _execution_whitelist_=_SAMPLERS, **({} if one else {"seed": node.seed + made}))


def parallel_jobs(n_jobs: int) -> int:
    """How many jobs joblib's ``n_jobs`` means here: -1 is one per core, -2 one less."""
    return int(n_jobs) if n_jobs > 0 else max(1, (os.cpu_count() or 1) + 1 + int(n_jobs))


OmegaConf.register_resolver("eai.parallel_jobs", parallel_jobs, replace=True)
