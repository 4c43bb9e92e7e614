"""One run: begun, continued or found finished, in one process or in several. Read this first.

``train`` checks the configuration, builds data and task, takes the directory, and leaves the work to
:func:`eai.core.run.fit.run_rank`, here or in worker processes.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from eai.core.cli import log_to
from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import portable, refuse_shared, resolve
from eai.core.configuration.trainer_keys import check_trainer
from eai.core.directory import COSMETIC, RunDirectory, disk_errors_named
from eai.core.errors import ConfigError
from eai.core.files import flat_keys
from eai.core.learn.ranks import cluster_environment, from_rank_zero, joined, processes, rank, same_everywhere
from eai.core.packages import versions
from eai.core.run.build import build_data_and_task, preflight
from eai.core.run.checkpoints import check_checkpoint
from eai.core.run.fit import run_rank
from eai.core.run.gpus import process_count, reserved_gpus
from eai.core.run.loggers import check_loggers
from eai.core.run.processes import reported, root_cause, run_workers
from eai.core.run.trainer import build_callbacks, quiet_lightning
from eai.core.schema import Accelerator, Experiment
from eai.core.signals import StopSignals

log = logging.getLogger("eai")
# What may be changed with `resume=`.
CHANGEABLE = ("epochs", "validate_every_n_epochs", "trainer.", "figures.", "reporting.")


@dataclass(frozen=True)
class Wanted:
    """What a run is to do: its configuration, composed and resolved, and the checkpoint to continue from."""

    composed: DictConfig
    resolved: DictConfig
    experiment: Experiment
    overrides: Sequence[str]
    checkpoint: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        run: its directory.
        cfg: its resolved configuration.
        experiment: the checked top level.
        facts: those of ``status.json``.
        fresh: whether something was done now, rather than found finished.
        rank: of this process among those of the run.
    """

    run: RunDirectory
    cfg: DictConfig
    experiment: Experiment
    facts: dict[str, Any] = field(default_factory=dict)
    fresh: bool = True
    rank: int = 0

    @property
    def objectives(self) -> tuple[float, ...]:
        """What a sweep asked for, by default the monitored validation score of the best checkpoint."""
        try:
            known = {
                "score": self.facts["monitored"]["value"],
                "parameters": self.facts["parameters"],
                "seconds": self.facts["train_seconds"],
            }
        except KeyError as missing:
            raise ConfigError(f"{self.run.status}: has no {missing}; the run was made by an earlier version") from None
        return tuple(float(known[name]) for name in self.experiment.objectives)


def train(
    cfg: DictConfig,
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    hydra: DictConfig | None = None,
    in_sweep: bool = False,
    shares_gpus: bool = False,
) -> Outcome:
    """Run one experiment.

    A directory whose run with this configuration is COMPLETED is left as it is; one that was cut off is continued.

    Args:
        cfg: as composed from ``conf/train.yaml``.
        run_dir: where everything is written; with ``cfg.resume``, the run to continue.
        overrides: of the command line; a resumed run checks and applies them.
        hydra: Hydra's own configuration, for ``.hydra``.
        in_sweep: a job that FAILED before is not tried again, unless ``cfg.retry_failed``; one whose configuration is
            refused leaves a directory that says so.
        shares_gpus: other jobs run beside this one: it takes GPUs that none of them has.

    Raises:
        ConfigError: the configuration cannot work; raised before anything is written.
        RunInUseError: another process works in the directory.
        NonFiniteLossError: the loss stopped being a number; the checkpoints written before stay.
        ExplodedLossError: it grew to a million times its first epoch's mean.
        RankError: one of the run's processes failed.
        DiskFullError: the last good checkpoint stays.
        Interrupted: a signal stopped the training, after ``last.ckpt`` was written.
    """
    run = RunDirectory(run_dir)
    quiet_lightning()
    with StopSignals() as stop, joined(cluster_environment()), ExitStack() as held:
        same_everywhere(cfg)
        with _failure_recorded(run, in_sweep):
            wanted = _wanted(cfg, run, overrides)
            experiment = wanted.experiment
            count = _checked_process_count(experiment.accelerator)
            if (facts := from_rank_zero(lambda: _finished(run, wanted, in_sweep))) is not None:
                log.info("%s already: %s", facts["state"], run.path)
                return Outcome(run, wanted.resolved, experiment, facts, fresh=False, rank=rank())
            built = build_data_and_task(wanted.resolved, experiment)
            check_loggers(wanted.resolved)
            build_callbacks(wanted.resolved, experiment)  # refused, if at all, before anything is written
            if count == processes():
                preflight(experiment, *built)

        stop.check()
        checkpoint, lock, facts = from_rank_zero(lambda: _begin(run, wanted, in_sweep, hydra, held))
        if facts is not None:
            return Outcome(run, wanted.resolved, experiment, facts, fresh=False, rank=rank())
        if processes() > 1:
            held.enter_context(reported(run, rank()))
        try:
            with disk_errors_named(run), reserved_gpus(experiment.accelerator if shares_gpus else None) as gpus:
                if count == processes():
                    facts = run_rank(wanted.resolved, experiment, run, stop, checkpoint, gpus, built)
                else:
                    facts = run_workers(run, experiment.accelerator, count, checkpoint, stop, lock, gpus)
        except Exception as error:
            raise root_cause(error, run) from error
        run.note(**facts)
        if pruned := facts.get("pruned"):
            log.info("PRUNED %s; resume=%s finishes it", pruned, run.path)
        return Outcome(run, wanted.resolved, experiment, facts, rank=rank())


@contextmanager
def _failure_recorded(run: RunDirectory, in_sweep: bool) -> Iterator[None]:
    """Record in its directory that a job of a sweep was refused; a single run that is refused leaves no directory."""
    try:
        yield
    except ConfigError:
        if in_sweep and not run.state() and not run.strangers():
            with run.locked(), run.tracked():
                raise
        raise


def _wanted(cfg: DictConfig, run: RunDirectory, overrides: Sequence[str]) -> Wanted:
    """Check the configuration of a new run, or of one to resume with its overrides; writes nothing."""
    if cfg.resume:
        return _resumed(cfg, run, overrides)
    run.refuse_strangers()
    typed = [item.partition("=")[0].lstrip("+~") for item in overrides]
    refuse_shared(cfg, [key for key in typed if "/" not in key and "@" not in key])
    composed = portable(cfg)
    resolved = resolve(composed)
    experiment = check_experiment(resolved)
    check_trainer(resolved)
    return Wanted(composed, resolved, experiment, overrides)


def _resumed(cfg: DictConfig, run: RunDirectory, overrides: Sequence[str]) -> Wanted:
    composed = run.load_composed()
    typed = {item.partition("=")[0]: item for item in overrides if not item.startswith("resume=")}
    for key in typed:
        if not key.lstrip("+").startswith(CHANGEABLE):
            raise ConfigError(f"{key}: cannot change in a resumed run; expected only {', '.join(CHANGEABLE)}…")
        OmegaConf.update(composed, key.lstrip("+"), OmegaConf.select(cfg, key.lstrip("+")), force_add=True)
    resolved = resolve(composed)
    experiment = check_experiment(resolved)
    check_trainer(resolved)
    checkpoint = Path(cfg.resume).resolve() if Path(cfg.resume).is_file() else run.last
    state = check_checkpoint(checkpoint, resumable=True)
    done, before = state["progress"]["epochs"], len(state["ranks"])
    if process_count(experiment.accelerator) != before:
        count = process_count(experiment.accelerator)
        raise ConfigError(f"accelerator: expected {before} processes, as before, got {count}")
    if experiment.epochs < done:
        raise ConfigError(f"epochs: expected at least {done}, which the run has behind it, got {experiment.epochs}")
    kept = [item for item in run.load_overrides() if item.partition("=")[0] not in typed]
    return Wanted(composed, resolved, experiment, [*kept, *typed.values()], checkpoint)


def _checked_process_count(accelerator: Accelerator) -> int:
    """Count the processes that a run asks for; raise ``ConfigError`` if another number was started."""
    wanted = process_count(accelerator)
    if processes() == 1 and accelerator.num_nodes > 1:
        raise ConfigError(
            f"accelerator.num_nodes: expected srun or torchrun to start a process per device on "
            f"{accelerator.num_nodes} nodes, got a single process"
        )
    if "fsdp" in accelerator.strategy and wanted > 1:
        raise ConfigError(
            f"accelerator.strategy: expected a strategy that keeps the weights whole, as ddp, for {wanted} processes, "
            f"got {accelerator.strategy}"
        )
    if processes() > 1 and wanted != processes():
        raise ConfigError(
            f"accelerator: expected devices × num_nodes = {processes()}, the processes that were started, got {wanted}"
        )
    return wanted


def _finished(run: RunDirectory, wanted: Wanted, in_sweep: bool) -> dict[str, Any] | None:
    """The status of a run of this configuration that is done; None if there is something to do.

    COMPLETED is done, and in its search a trial that was PRUNED.

    Raises:
        ConfigError: the directory holds another run, or one that FAILED and is not to be tried again.
    """
    before = run.state()
    state = before.get("state")
    if wanted.checkpoint is not None:
        return None
    if state == "FAILED" and in_sweep and not wanted.experiment.retry_failed:
        raise ConfigError(f"FAILED before ({before.get('reason')}); retry_failed=true tries again")
    # A run that failed before its first checkpoint may be replaced by another.
    if state == "COMPLETED" or (before and run.last.is_file()):
        told = _differences(run, wanted.resolved)
        if told:
            raise ConfigError(f"hydra.run.dir: {run.path} holds a run with another configuration: {told}")
    return before if state == "COMPLETED" or (in_sweep and state == "PRUNED") else None


def _begin(
    run: RunDirectory, wanted: Wanted, in_sweep: bool, hydra: DictConfig | None, held: ExitStack
) -> tuple[Path | None, int, dict[str, Any] | None]:
    """Take the directory; return the checkpoint to go on from, the lock, and the status if it is COMPLETED after all.

    ``held`` keeps the lock and the run's own status.
    """
    # A job that outlived a killed sweep may still run: wait, and take its result.
    lock = held.enter_context(run.locked(wait=in_sweep))
    if (facts := _finished(run, wanted, in_sweep)) is not None:
        return None, lock, facts
    run.remove_leftovers()
    held.enter_context(log_to(run.path / "train.log"))
    held.enter_context(run.tracked())
    leaves = flat_keys(OmegaConf.to_container(wanted.resolved))
    run.note(packages=versions(str(value) for key, value in leaves.items() if key.endswith("_target_")))
    with disk_errors_named(run):
        run.save_composed(wanted.composed, wanted.overrides, hydra)
        run.save_config(wanted.resolved)
    checkpoint = wanted.checkpoint or (run.last if run.last.is_file() else None)
    if checkpoint is not None:
        check_checkpoint(checkpoint, resumable=True)
    return checkpoint, lock, None


def _differences(run: RunDirectory, cfg: DictConfig) -> str:
    """Say how ``cfg`` differs from the run's own configuration; empty if it does not."""
    there, here = (_essential(config) for config in (run.load_config(), cfg))
    keys = [key for key in sorted(there.keys() | here.keys()) if there.get(key) != here.get(key)]
    told = [f"{key} is {there.get(key)!r} there, {here.get(key)!r} here" for key in keys]
    return "; ".join(told[:3]) + (f"; and {len(told) - 3} more" if len(told) > 3 else "")


def _essential(cfg: DictConfig) -> dict[str, Any]:
    flat = flat_keys(OmegaConf.to_container(cfg))
    return {key: value for key, value in flat.items() if key.partition(".")[0] not in COSMETIC}
