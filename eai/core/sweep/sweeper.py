"""Hydra's sweeper for searches by Optuna: one study, any number of processes that work on it, trials that are pruned.

Several processes may run the same command: each asks the study for its next trial when it is free, and together they
make exactly ``trials`` of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from eai.core.directory import RunDirectory
from eai.core.sweep.space import search_space
from eai.core.sweep.study import Study
from eai.core.trials import VARIABLE, Trial


class StudySweeper(Sweeper):
    """Ask a study for parameters, launch a job for each trial, tell the study what became of it.

    Args:
        params: overrides by key, which the command line's replace.
        n_jobs: trials that the launcher gets at a time.
        others: of ``hydra.sweeper``; the study reads them from the configuration.
    """

    def __init__(self, params: DictConfig | None = None, n_jobs: int = 1, **others: Any) -> None:
        self._params: Mapping[Any, Any] = params or {}
        self._at_a_time = n_jobs
        self.config: DictConfig | None = None
        self._launcher: Launcher | None = None

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.config, self.hydra_context = config, hydra_context
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        assert self.config is not None
        assert self._launcher is not None
        space, shared = search_space([*(f"{key!s}={value}" for key, value in self._params.items()), *arguments])
        study, launched = Study(self.config), 0
        with study.workers.joined() as worker:
            while trials := study.claim(space, self._at_a_time, worker):
                jobs = [self._overrides(study, trial, shared) for trial in trials]
                returns = self._launcher.launch(jobs, initial_job_idx=launched)
                launched += len(returns)
                for trial, returned in zip(trials, returns, strict=True):
                    study.tell(trial, *_outcome(returned))
        OmegaConf.save(OmegaConf.create(study.best()), study.folder / "optimization_results.yaml")

    @staticmethod
    def _overrides(study: Study, trial: Any, shared: Sequence[str]) -> list[str]:
        """A job's overrides, with the trial in an environment variable: no directory's name depends on that."""
        told = Trial(trial.number, study.name, str(study.journal.absolute())).text
        quoted = told.replace("\\", "\\\\").replace('"', '\\"')
        parameters = [f"{key}={value}" for key, value in trial.params.items()]
        return [*parameters, *shared, f'+hydra.job.env_set.{VARIABLE}="{quoted}"']


def _outcome(returned: JobReturn) -> tuple[bool, tuple[float, ...] | None]:
    """Whether the job's trial was pruned, and its objectives; None where it failed."""
    try:
        value: Any = returned.return_value
        values = tuple(float(one) for one in (value if isinstance(value, list | tuple) else (value,)))
    except Exception:  # whatever a job may raise or return; its own log says it
        return False, None
    assert returned.hydra_cfg is not None
    folder = Path(returned.hydra_cfg.hydra.runtime.output_dir)
    return RunDirectory(folder).state().get("state") == "PRUNED", values
