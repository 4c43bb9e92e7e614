"""``eai-train``: train one experiment, score it beside its baselines, return the monitored score."""

from __future__ import annotations

import logging
import math
from contextlib import suppress
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from eai.core.cli import CONFIG_DIR, EXECUTION_WHITELIST, call, run_hydra
from eai.core.config import check_top_level, is_shortened, resolve
from eai.core.directory import read_json
from eai.core.errors import ConfigError
from eai.core.sweep.hooks import call_job, is_parallel, judged

log = logging.getLogger("eai")


@hydra.main(config_path=CONFIG_DIR, config_name="train", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> float | tuple[float, ...]:
    job = HydraConfig.get()
    if job.mode == RunMode.RUN:
        try:
            return call(lambda: _train(cfg, job, in_sweep=False))
        finally:
            _leave_no_empty_folder(Path(job.runtime.output_dir))
    failed = (math.nan,) * len(cfg.objectives)
    return call_job(lambda: _train(cfg, job, in_sweep=True), failed if len(failed) > 1 else math.nan)


def _train(cfg: DictConfig, job: DictConfig, in_sweep: bool) -> float | tuple[float, ...]:
    _check_search_path(job)
    if not cfg.resume:
        check_top_level(resolve(cfg))  # before torch is imported

    from eai.core.run.run import train

    outcome = train(cfg, job.runtime.output_dir, job.overrides.task, job, in_sweep, in_sweep and is_parallel(job))
    if outcome.fresh and outcome.rank == 0:
        from eai.core.compare.comparison import summary_of_run

        metrics, expect = read_json(outcome.run.metrics), outcome.experiment.expect
        log.info("%s", summary_of_run(outcome.run, outcome.cfg, metrics, read_json(outcome.run.baselines)))
        if expect is not None and not is_shortened(outcome.cfg):
            value = metrics[expect.score]
            verdict = "reached" if expect.met_by(value) else "NOT reached"
            log.info("expected %s: %s with %.4g", expect, verdict, value)
    return outcome.objectives if len(outcome.objectives) > 1 else outcome.objectives[0]


def _check_search_path(job: DictConfig) -> None:
    for source in job.runtime.config_sources:
        if source.schema == "file" and not Path(source.path).is_dir():
            raise ConfigError(f"hydra.searchpath: expected folders, got {source.path} (no such directory)")


def _leave_no_empty_folder(folder: Path) -> None:
    """Remove the folders that Hydra made, if the run was refused before it wrote anything."""
    here = Path.cwd()
    with suppress(OSError):
        folder.rmdir()
        while folder.parent != here and folder.is_relative_to(here):
            folder = folder.parent
            folder.rmdir()


def main() -> None:
    with judged():
        run_hydra(app)


if __name__ == "__main__":
    main()
