"""Sweeps: one directory per command, one per job, each named by what was typed; what failed is named at the end.

Free of torch, since Hydra loads it for ``--help`` too.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.rundir import COSMETIC, RunDirectory, write_json

log = logging.getLogger("eai")
STOP_SECONDS = 13.0
# Neither changes what a job does: with or without them, a command means the same sweep.
_NOT_OF_THE_SWEEP = ("retry_failed", "trials")


def short_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:6]


def swept_keys(overrides: Sequence[str], params: DictConfig | None) -> list[str]:
    """The keys that a command varies: those with several values or a range, and those of the sweeper's own search."""
    typed = [f"{key}={value}" for key, value in (params or {}).items()] + list(overrides)
    parsed = OverridesParser.create().parse_overrides(typed)
    return list(dict.fromkeys(_bare(item.get_key_element()) for item in parsed if item.is_sweep_override()))


def _bare(key: str) -> str:
    return key.lstrip("+~").partition("@")[0]


def sweep_name(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """What a sweep varies, and a hash of its command: the same command finds the same directory again."""
    command = sorted(item for item in overrides if _bare(item.partition("=")[0]) not in _NOT_OF_THE_SWEEP)
    return "_".join([*(_tail(key) for key in swept[:4]), short_hash(command)])


def job_name(cfg: DictConfig, swept: Sequence[str]) -> str:
    """The swept values of a job, and a hash of all its configuration but what only concerns reporting.

    No ``=`` and no comma, so that the name can be typed as a value on Hydra's command line.
    """
    choices = cfg.hydra.runtime.choices
    parts = []
    for key in swept:
        value = choices[key] if key in choices else OmegaConf.select(cfg, key)
        parts.append(f"{_tail(key)}-{value}")
    readable = re.sub(r"[^\w.+-]+", "-", "_".join(parts))[:100]
    names = [name for name in cfg if name not in ("hydra", *COSMETIC)]
    content: Any
    try:
        content = OmegaConf.to_container(OmegaConf.masked_copy(cfg, [n for n in cfg if n != "hydra"]), resolve=True)
        content = {name: content[name] for name in names}
    except OmegaConfBaseException:  # told, with its key, when the job starts
        content = list(cfg.hydra.overrides.task)
    return "_".join(part for part in (readable, short_hash(content)) if part)


def _tail(key: str) -> str:
    return re.split(r"[./]", key)[-1]


class Sweep(Callback):
    """Hydra's hooks around a sweep: prepares its directory, keeps its summary, stops its jobs, names its failures."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Everything that must be known before the first job; Hydra keeps what resolvers return here for all jobs."""
        folder = Path(config.hydra.sweep.dir)
        OmegaConf.select(config, "hydra.sweep.subdir")
        _check_direction(config)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (folder / ".jobs").glob("*"):
            name.unlink()
        write_json(folder / "sweep.json", {"overrides": list(config.hydra.overrides.task), "swept": _swept_keys()})
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
            from eai.core.leaderboard import write_summary

            write_summary(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the leaderboard, name what did not complete, and see to a failing exit code."""
        from eai.core.leaderboard import leaderboard

        folder = Path(config.hydra.sweep.dir)
        jobs = sorted((folder / ".jobs").glob("*"))
        if jobs:
            print(leaderboard([folder]))
        bad = [(job.name, state) for job in jobs if (state := _state(folder / job.name)).get("state") != "COMPLETED"]
        for name, state in bad:
            reason = f": {state['reason']}" if state.get("reason") else ""
            print(f"{state.get('state', 'NOT STARTED')} {folder / name}{reason}", file=sys.stderr)
        print(f"{len(jobs) - len(bad)} of {len(jobs)} jobs COMPLETED in {folder}", file=sys.stderr if bad else sys.stdout)
        if isinstance(sys.exc_info()[1], SystemExit | KeyboardInterrupt):
            print("stopped; the same command goes on where it was", file=sys.stderr)
        elif bad:
            raise SystemExit(1)


def is_parallel(config: DictConfig) -> bool:
    """Whether jobs run side by side in other processes of this machine."""
    return "joblib" in str(config.hydra.launcher.get("_target_"))


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
        running = [state["pid"] for job in (folder / ".jobs").glob("*") if _runs_here(state := _state(folder / job.name))]
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


def _hydra() -> DictConfig:
    config = HydraConfig.instance().cfg
    assert config is not None
    return config


def _swept_keys() -> list[str]:
    hydra = _hydra().hydra
    return swept_keys(hydra.overrides.task, hydra.sweeper.get("params"))


def _sweep_name() -> str:
    return sweep_name(_hydra().hydra.overrides.task, _swept_keys())


def _job_name(swept: str, *, _root_: DictConfig) -> str:
    return job_name(_root_, [key for key in swept.split("|") if key])


# Resolved once for the whole sweep, before its first job: a job has only its own overrides.
OmegaConf.register_resolver("eai.sweep_name", _sweep_name, use_cache=True, replace=True)
OmegaConf.register_resolver("eai.swept", lambda: "|".join(_swept_keys()), use_cache=True, replace=True)
OmegaConf.register_resolver("eai.job_name", _job_name, replace=True)
