"""Hydra's hooks around a sweep, and the exit code that follows from its jobs.

Hydra turns an ordinary exception of a callback into a warning. Therefore a hook that matters exits with an error line
instead, and the exit code is decided in :func:`judged`, outside Hydra. Free of torch: Hydra loads it for ``--help``.
"""

from __future__ import annotations

import functools
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, EaiError, Interrupted, RunInUseError
from eai.core.files import write_json
from eai.core.schema import Experiment
from eai.core.sweep.jobs import Jobs, tell
from eai.core.sweep.names import first_jobs, keys_of, sweep_name, typed_of
from eai.core.sweep.study import Study, check_search, keeps_study, parallel_jobs

log = logging.getLogger("eai")
_locks = ExitStack()  # the lock of the sweep's directory, until this process ends
_sweeps: list[Jobs] = []  # the sweep that this process runs, once it was accepted
_stopped = False  # in a process that runs jobs for another one: take no further job

T = TypeVar("T")
_Hook = Callable[..., None]


def _never_swallowed(hook: _Hook) -> _Hook:
    @functools.wraps(hook)
    def wrapped(self: Callback, config: DictConfig, **context: Any) -> None:
        try:
            hook(self, config, **context)
        except Exception as error:
            if not isinstance(error, EaiError):
                log.exception("%s failed", hook.__name__)
            tell(f"error: {error}", error=True)
            raise SystemExit(1) from error

    return wrapped


class Sweep(Callback):
    """Prepare a sweep's directory, record its jobs, keep its summary."""

    @_never_swallowed
    def on_multirun_start(self, config: DictConfig, config_name: str | None = None, **_: Any) -> None:
        """Check the request, take the directory, and resolve what Hydra caches for all jobs.

        Args:
            config: Hydra's and the application's configuration, without the values that are swept.
            config_name: the primary configuration.
        """
        _check_request(config, config_name)
        check_search(config)
        jobs = Jobs(config)
        OmegaConf.select(config, "hydra.sweep.subdir")
        sweep = RunDirectory(jobs.folder)
        if keeps_study(config):
            Study(config).queue_again()
        else:
            try:
                _locks.enter_context(sweep.locked())
            except RunInUseError as error:
                raise ConfigError(f"hydra.sweep.dir: {str(error).partition(': ')[2]}") from None
            jobs.clear()
        sweep.path.mkdir(parents=True, exist_ok=True)
        write_json(
            sweep.path / "sweep.json",
            {"overrides": typed_of(config.hydra), "swept": keys_of(config), "name": sweep_name(config)},
        )
        _sweeps.append(jobs)
        if on_slurm(config.hydra):
            # The warning before a job's time is up: our own handler saves and requeues.
            os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"
        if is_parallel(config.hydra):
            _warn_of_crowding(config)
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                signal.signal(signum, lambda number, _: jobs.stop(number))
        else:  # between two jobs, which handle them themselves
            for signum in (signal.SIGTERM, signal.SIGUSR1):
                signal.signal(signum, lambda number, _: sys.exit(Interrupted(number).exit_code))

    @_never_swallowed
    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            jobs = Jobs(config)
            if not (jobs.folder / "sweep.json").is_file():
                raise ConfigError(f"hydra.sweep.dir: expected one directory for all jobs, got {jobs.folder} for one")
            jobs.add(config.hydra.runtime.output_dir)

    def on_job_end(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            Jobs(config).summarise()


@contextmanager
def judged() -> Iterator[None]:
    """Run the application inside; a sweep in which a job did not complete ends with exit status 1.

    Raises:
        SystemExit: with the application's own status, or 1.
    """
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as end:
        code = end.code if isinstance(end, SystemExit) else 130
        if _sweeps:
            code = _sweeps[-1].report(code if isinstance(code, int) else int(code is not None))
        raise SystemExit(code) from None
    except Exception as error:  # a launcher whose job was killed from outside
        if not _sweeps:
            raise
        log.error("error: the sweep ends early: %s: %s", type(error).__name__, error)
        raise SystemExit(_sweeps[-1].report(1)) from error
    if _sweeps and (code := _sweeps[-1].report(0)):
        raise SystemExit(code)


def call_job(function: Callable[[], T], failed: T) -> T:
    """Call a job of a sweep; return ``failed`` where it fails, so that the sweep continues.

    A signal ends the sweep. Where jobs run side by side, the process that started them ends it; on SLURM, the warning
    before the time is up requeues the job.

    Args:
        function: the job.
        failed: its result if it fails.
    """
    global _stopped
    if _stopped:
        return failed
    try:
        return function()
    except EaiError as error:
        log.error("error: %s", error)
    except Interrupted as stop:
        hydra_node = HydraConfig.get()
        if on_slurm(hydra_node) and stop.signum == signal.SIGUSR1:
            requeue()
        if not is_parallel(hydra_node):
            raise SystemExit(stop.exit_code) from stop
        _stopped = True
    except Exception:
        log.exception("the job failed")
    return failed


def is_parallel(hydra_node: Any) -> bool:
    """Whether jobs run side by side in other processes of this machine; ``hydra_node`` is Hydra's configuration."""
    return "joblib" in str(hydra_node.launcher.get("_target_"))


def on_slurm(hydra_node: Any) -> bool:
    """Whether jobs are submitted to SLURM; ``hydra_node`` is Hydra's configuration."""
    return "SlurmLauncher" in str(hydra_node.launcher.get("_target_"))


def requeue() -> None:
    """Ask SLURM to start this job again: it resumes from its checkpoint, and whoever waits for it keeps waiting."""
    if os.environ.get("SLURM_PROCID") == "0":
        array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
        # SLURM_JOB_ID of one task of an array can be the number of the whole array.
        job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "requeue", job], check=False, timeout=60)


def _check_request(config: DictConfig, config_name: str | None) -> None:
    """Refuse what every job, or every job with one of the swept choices, would fail for."""
    if config.resume or "resume" in keys_of(config):
        raise ConfigError("resume: expected a single run, got -m; resume each run by itself: eai-train resume=RUN")
    known, swept = {field.name for field in fields(Experiment)}, keys_of(config)
    for job in first_jobs(config):
        try:
            composed = hydra.compose(config_name, [*config.hydra.overrides.hydra, *job.values()])
        except (HydraException, OmegaConfBaseException) as error:
            combination = " ".join(job[key] for key in swept if key in job)
            told = " ".join(str(error).partition("Config search path")[0].split())
            raise ConfigError(f"the job {combination}: {told}") from error
        if unknown := sorted(str(key) for key in composed if key not in known):
            raise ConfigError(f"{', '.join(unknown)}: unknown key (known here: {', '.join(sorted(known))})")


def _warn_of_crowding(config: DictConfig) -> None:
    cores, jobs = os.cpu_count() or 1, parallel_jobs(config.hydra.launcher.n_jobs)
    accelerator = config.accelerator
    each = int(accelerator.threads or 1) * (accelerator.devices if isinstance(accelerator.devices, int) else 1)
    if accelerator.accelerator == "cpu" and jobs * each > cores:
        log.warning(
            "hydra.launcher.n_jobs=%d × %d threads per job exceed the %d cores: jobs will slow each other down",
            jobs,
            each,
            cores,
        )
