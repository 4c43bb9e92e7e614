"""``eai-train``: train one experiment, score it beside its baselines, return the monitored score."""

from __future__ import annotations

import math

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from eai.core.cli import CONFIG_DIR, EXECUTION_WHITELIST, call, run_hydra
from eai.core.sweep.hooks import call_job, is_parallel, judged


@hydra.main(config_path=CONFIG_DIR, config_name="train", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> float | tuple[float, ...]:
    from eai.core.run.training import train

    job = HydraConfig.get()
    place, typed = job.runtime.output_dir, job.overrides.task
    if job.mode == RunMode.RUN:
        return call(lambda: train(cfg, place, typed, job))
    failed = (math.nan,) * len(cfg.objectives)
    return call_job(
        lambda: train(cfg, place, typed, job, in_sweep=True, shares_gpus=is_parallel(job)),
        failed if len(failed) > 1 else math.nan,
    )


def main() -> None:
    with judged():
        run_hydra(app)


if __name__ == "__main__":
    main()
