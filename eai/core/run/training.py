"""One run from its configuration to its score: begun, continued or found finished, in one process or in several."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eai.core.config import check_experiment, resolve
from eai.core.directory import COSMETIC, RunDirectory, disk_full_named, flat_keys
from eai.core.errors import ConfigError
from eai.core.learn.ranks import cluster_environment, from_rank_zero, joined, processes, rank
from eai.core.run.checkpoints import check_checkpoint
from eai.core.run.fit import fit_and_score
from eai.core.run.gpus import process_count, reserved_gpus
from eai.core.run.processes import reported, root_cause, run_workers, same_everywhere
from eai.core.run.signals import StopSignals

log = logging.getLogger("eai")
# What may be changed with `resume=`.
CHANGEABLE = ("trainer.", "figures.", "reporting.")


@dataclass(frozen=True)
class Start:
    """How a run begins: with which configuration, from which checkpoint; or that it is ``finished``, and with what."""

    cfg: DictConfig
    checkpoint: Path | None = None
    lock: int | None = None
    finished: dict[str, Any] | None = None


def train(
    cfg: DictConfig,
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    hydra: DictConfig | None = None,
    in_sweep: bool = False,
    shares_gpus: bool = False,
) -> float | tuple[float, ...]:
    """Run one experiment; return its monitored validation score (best checkpoint), or the ``objectives`` asked for.

    A directory whose run with this configuration is COMPLETED is left as it is; one that was cut off is continued.

    Args:
        cfg: as composed from ``conf/train.yaml``.
        run_dir: where everything is written; with ``cfg.resume``, the run to continue.
        overrides: of the command line; a resumed run checks and applies them.
        hydra: Hydra's own configuration, for ``.hydra``.
        in_sweep: a job that FAILED before is not tried again, unless ``cfg.retry_failed``.
        shares_gpus: other jobs run beside this one: it takes GPUs that none of them has.

    Raises:
        ConfigError: the configuration cannot work; raised before any training.
        RunInUseError: another process works in the directory.
        NonFiniteLossError: the loss stopped being a number; the checkpoints written before stay.
        RankError: one of the run's processes failed.
        DiskFullError: the last good checkpoint stays.
        Interrupted: a signal stopped the training, after ``last.ckpt`` was written.
    """
    run = RunDirectory(run_dir)
    with StopSignals() as stop, joined(cluster_environment()), ExitStack() as held:
        if processes() > 1:
            same_everywhere(cfg)
        start = from_rank_zero(lambda: _begin(run, cfg, overrides, hydra, in_sweep, held))
        facts = start.finished
        if facts is None:
            if processes() > 1:
                held.enter_context(reported(run, rank()))
            try:
                with disk_full_named(run):
                    facts = _work(start, run, stop, shares_gpus)
            except Exception as error:
                raise root_cause(error, run) from error
            run.note(**facts)
    return _objectives(facts, cfg, run)


def _begin(
    run: RunDirectory,
    cfg: DictConfig,
    overrides: Sequence[str],
    hydra: DictConfig | None,
    in_sweep: bool,
    held: ExitStack,
) -> Start:
    """Take the directory and find out what is to be done there; ``held`` keeps its lock and its status."""
    # In a sweep that was killed, a job may still run: its result is this job's too.
    lock = held.enter_context(run.locked(wait=in_sweep))
    if not cfg.resume and (facts := _what_is_there(run, cfg, in_sweep)):
        return Start(cfg, finished=facts)
    # The directory's status speaks of this run from here on, also of a configuration that fails.
    run.remove_leftovers()
    held.enter_context(run.tracked())
    checkpoint: Path | None
    if cfg.resume:
        saved, checkpoint = _resumed(cfg, run, overrides)
    else:
        saved = resolve(cfg)
        checkpoint = run.last if run.last.is_file() else None
        if hydra is not None:
            run.save_composed(cfg, hydra)
    run.save_config(saved)
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    return Start(saved, checkpoint, lock)


def _what_is_there(run: RunDirectory, cfg: DictConfig, in_sweep: bool) -> dict[str, Any] | None:
    """The status of a run of this configuration that is COMPLETED; None if there is something to do.

    Raises:
        ConfigError: the directory holds another run, or one that FAILED and is not to be tried again.
    """
    before = run.state()
    state = before.get("state")
    if state == "FAILED" and in_sweep and not cfg.retry_failed:
        raise ConfigError(f"FAILED before ({before.get('reason')}); retry_failed=true tries again")
    # What failed before it learned anything may be followed by something else in the same place.
    if state == "COMPLETED" or (before and run.last.is_file()):
        told = _differences(run, resolve(cfg))
        if told:
            raise ConfigError(f"hydra.run.dir: {run.path} holds a run with another configuration: {told}")
    if state == "COMPLETED":
        log.info("COMPLETED already: %s", run.path)
        return before
    return None


def _work(start: Start, run: RunDirectory, stop: StopSignals, shares_gpus: bool) -> dict[str, Any]:
    experiment = check_experiment(start.cfg)
    accelerator = experiment.accelerator
    wanted = process_count(accelerator)
    if processes() == 1 and accelerator.num_nodes > 1:
        raise ConfigError(
            f"accelerator.num_nodes: expected srun or torchrun to start a process per device on "
            f"{accelerator.num_nodes} nodes, got a single process"
        )
    if processes() > 1 and wanted != processes():
        raise ConfigError(
            f"accelerator: expected devices × num_nodes = {processes()}, the processes that were started, got {wanted}"
        )
    with reserved_gpus(accelerator if shares_gpus else None) as gpus:
        if wanted == processes():
            return fit_and_score(start.cfg, experiment, run, stop, start.checkpoint, gpus)
        return run_workers(run, accelerator, wanted, start.checkpoint, stop, start.lock, gpus)


def _resumed(cfg: DictConfig, run: RunDirectory, overrides: Sequence[str]) -> tuple[DictConfig, Path]:
    """The configuration of the run to resume, with what may change, and the checkpoint to go on from."""
    saved = run.load_config()
    for override in overrides:
        key = override.partition("=")[0]
        if key == "resume":
            continue
        if not key.startswith(CHANGEABLE):
            raise ConfigError(f"{key}: cannot change in a resumed run; expected only {', '.join(CHANGEABLE)}…")
        OmegaConf.update(saved, key, OmegaConf.select(cfg, key))
    return saved, Path(cfg.resume).resolve() if Path(cfg.resume).is_file() else run.last


def _differences(run: RunDirectory, cfg: DictConfig) -> str:
    """What ``cfg`` asks for other than the run's own configuration, in words; empty if nothing."""
    there, here = (_essential(config) for config in (run.load_config(), cfg))
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    told = [f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in keys]
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")


def _essential(cfg: DictConfig) -> dict[str, Any]:
    flat = flat_keys(OmegaConf.to_container(cfg))
    return {key: value for key, value in flat.items() if key.partition(".")[0] not in COSMETIC}


def _objectives(facts: dict[str, Any], cfg: DictConfig, run: RunDirectory) -> float | tuple[float, ...]:
    try:
        known = {
            "score": facts["monitored"]["value"],
            "parameters": facts["parameters"],
            "seconds": facts["train_seconds"],
        }
    except KeyError as missing:
        raise ConfigError(f"{run.status}: has no {missing}; the run was made by an earlier version") from None
    values = tuple(float(known[name]) for name in cfg.objectives)
    return values[0] if len(values) == 1 else values
