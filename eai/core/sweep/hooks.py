"""What happens around a sweep: its directory, its summary, signals to its jobs, and the names of those that failed.

Free of torch, since Hydra loads it for ``--help`` too.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eai.core.directory import RunDirectory, write_json
from eai.core.errors import RunInUseError
from eai.core.sweep.names import keys_of_this_sweep
from eai.core.sweep.study import queue_cut_off_trials

log = logging.getLogger("eai")
STOP_SECONDS = 13.0
_held = ExitStack()  # the lock of the sweep's directory, until this process ends


class Sweep(Callback):
    """Hydra's hooks around a sweep: prepares its directory, keeps its summary, stops its jobs, names its failures."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Everything that must be known before the first job; Hydra keeps what resolvers return here for all jobs."""
        folder = Path(config.hydra.sweep.dir)
        OmegaConf.select(config, "hydra.sweep.subdir")
        _check_direction(config)
        try:
            _held.enter_context(RunDirectory(folder).locked())
        except RunInUseError as error:
            _refuse(str(error))
        if config.hydra.sweeper.get("storage"):
            queue_cut_off_trials(config)
        else:  # a study keeps its jobs; other sweeps are told anew which ones are theirs
            for name in (folder / ".jobs").glob("*"):
                name.unlink()
        swept = keys_of_this_sweep()
        write_json(folder / "sweep.json", {"overrides": list(config.hydra.overrides.task), "swept": swept})
        if on_slurm(config):
            # The warning before a job's time is up: our own handler for it saves and requeues.
            os.environ["SUBMITIT_PREEMPT_SIGNAL"] = "USR1"
        if is_parallel(config):
            _warn_of_crowding(config)
            for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                signal.signal(signum, lambda number, frame: _stop_jobs(folder, number, frame))

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            jobs = Path(config.hydra.sweep.dir) / ".jobs"
            jobs.mkdir(parents=True, exist_ok=True)
            (jobs / Path(config.hydra.runtime.output_dir).name).touch()

    def on_job_end(self, config: DictConfig, **_: Any) -> None:
        if config.hydra.mode == RunMode.MULTIRUN:
            from eai.core.compare.leaderboard import write_summary

            write_summary(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the leaderboard, name what did not complete, and see to a failing exit code."""
        from eai.core.compare.leaderboard import leaderboard

        folder = Path(config.hydra.sweep.dir)
        jobs = sorted((folder / ".jobs").glob("*"))
        if jobs:
            print(leaderboard([folder], failures=False))
        bad = [(job.name, state) for job in jobs if (state := _state(folder / job.name)).get("state") != "COMPLETED"]
        for name, state in bad:
            reason = f": {state['reason']}" if state.get("reason") else ""
            print(f"{state.get('state', 'NOT STARTED')} {folder / name}{reason}", file=sys.stderr)
        print(
            f"{len(jobs) - len(bad)} of {len(jobs)} jobs COMPLETED in {folder}", file=sys.stderr if bad else sys.stdout
        )
        if isinstance(sys.exc_info()[1], SystemExit | KeyboardInterrupt):
            print("stopped; the same command goes on where it was", file=sys.stderr)
        elif bad:
            raise SystemExit(1)


def is_parallel(config: DictConfig) -> bool:
    """Whether jobs run side by side in other processes of this machine."""
    return "joblib" in str(config.hydra.launcher.get("_target_"))


def on_slurm(config: DictConfig) -> bool:
    """Whether jobs are submitted to SLURM."""
    return "SlurmLauncher" in str(config.hydra.launcher.get("_target_"))


def requeue() -> None:
    """Ask SLURM to start this job again: it goes on from its checkpoint, and whoever waits for it waits on."""
    if os.environ.get("SLURM_PROCID") == "0":
        array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
        # One task of an array has the number of the whole array for its own.
        job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
        subprocess.run(["scontrol", "requeue", job], check=False, timeout=60)


def _state(folder: Path) -> dict[str, Any]:
    return RunDirectory(folder).state()


def _check_direction(config: DictConfig) -> None:
    direction = config.hydra.sweeper.get("direction")
    if direction is None:
        return
    given = [direction] if not OmegaConf.is_list(direction) else list(direction)
    told = [str(getattr(item, "name", item)) for item in given]
    for name, asked in zip(config.objectives, told, strict=False):
        wanted = "maximize" if name == "score" and config.monitor.mode == "max" else "minimize"
        if asked != wanted:
            _refuse(f"hydra.sweeper.direction: expected {wanted} for {name}, got {asked}")
    if len(told) != len(config.objectives):
        _refuse(f"objectives: expected one for each of hydra.sweeper.direction={told}, got {list(config.objectives)}")


def _refuse(message: str) -> None:
    # Hydra turns an ordinary exception of a callback into a warning.
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(1)


def _warn_of_crowding(config: DictConfig) -> None:
    cores, jobs = os.cpu_count() or 1, int(config.hydra.launcher.n_jobs)
    jobs = cores if jobs < 0 else jobs
    accelerator = config.accelerator
    each = int(accelerator.threads or 1) * (accelerator.devices if isinstance(accelerator.devices, int) else 1)
    if accelerator.accelerator == "cpu" and jobs * each > cores:
        log.warning(
            "hydra.launcher.n_jobs=%d × %d threads per job is more than the %d cores: jobs will slow each other down",
            jobs,
            each,
            cores,
        )


def _stop_jobs(folder: Path, signum: int, frame: FrameType | None) -> None:
    """Pass a signal on to every job that runs on this machine, wait until all have saved, and leave."""
    told: set[int] = set()
    deadline, quiet = time.monotonic() + STOP_SECONDS, 0
    while quiet < 3 and time.monotonic() < deadline:
        running = [
            state["pid"] for job in (folder / ".jobs").glob("*") if _runs_here(state := _state(folder / job.name))
        ]
        for pid in set(running) - told:
            os.kill(pid, signum)
            told.add(pid)
        quiet = 0 if running else quiet + 1
        time.sleep(0.2)
    raise SystemExit(130 if signum == signal.SIGINT else 143)


def _runs_here(state: dict[str, Any]) -> bool:
    if state.get("state") != "RUNNING" or state.get("host") != socket.gethostname():
        return False
    try:
        os.kill(state["pid"], 0)
    except OSError:
        return False
    return True
