"""``eai-train``: train one experiment, score it beside its baselines, return the monitored score."""

from __future__ import annotations

import logging
import math

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from eai.core.cli import CONFIG_DIR, EXECUTION_WHITELIST, call, call_job, run_hydra
from eai.core.sweep.hooks import is_parallel, judged


@hydra.main(config_path=CONFIG_DIR, config_name="train", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> float | tuple[float, ...]:
    job = HydraConfig.get()
    if job.mode == RunMode.RUN:
        return call(lambda: _train(cfg, job, in_sweep=False))
    failed = (math.nan,) * len(cfg.objectives)
    return call_job(lambda: _train(cfg, job, in_sweep=True), failed if len(failed) > 1 else math.nan)


def _train(cfg: DictConfig, job: DictConfig, in_sweep: bool) -> float | tuple[float, ...]:
    from eai.core.compare.comparison import summary_of_run
    from eai.core.run.run import train

    shares_gpus = in_sweep and is_parallel(job)
    outcome = train(cfg, job.runtime.output_dir, job.overrides.task, job, in_sweep, shares_gpus)
    if outcome.fresh and outcome.rank == 0:
        logging.getLogger("eai").info("%s", summary_of_run(outcome.run))
    return outcome.objectives if len(outcome.objectives) > 1 else outcome.objectives[0]


def main() -> None:
    with judged():
        run_hydra(app)


if __name__ == "__main__":
    main()
