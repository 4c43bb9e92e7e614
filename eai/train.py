"""``eai-train``: train one experiment, score it beside its baselines, return the monitored score."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from eai.core.cli import CONFIG_DIR, EXECUTION_WHITELIST, call, check_searchpath, run_hydra
from eai.core.configuration.check import check_top_level
from eai.core.configuration.resolve import resolve
from eai.core.configuration.trainer_keys import check_trainer, is_shortened
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.schema import Experiment
from eai.core.style.numerals import spell_number
from eai.core.sweep.hooks import call_job, is_parallel, judged
from eai.core.sweep.names import typed_of
from eai.core.sweep.sweeper import StudySweeper

log = logging.getLogger("eai")


@hydra.main(config_path=CONFIG_DIR, config_name="train", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> float | tuple[float, ...]:
    job = HydraConfig.get()
    if job.mode == RunMode.RUN:
        return call(lambda: _train(cfg, job, in_sweep=False))
    failed = (math.nan,) * len(cfg.objectives)
    return call_job(lambda: _train(cfg, job, in_sweep=True), failed if len(failed) > 1 else math.nan)


def _train(cfg: DictConfig, job: DictConfig, in_sweep: bool) -> float | tuple[float, ...]:
    check_searchpath(job)
    if not in_sweep and not cfg.resume:  # before torch is imported
        resolved = resolve(cfg)
        check_top_level(resolved)
        check_trainer(resolved)
        if resolved.pruner.name != "none":
            raise ConfigError(
                f"pruner: expected a search, as -m sweep=optuna, got {resolved.pruner.name} in a single run"
            )

    from eai.core.compare.report import reported
    from eai.core.run.run import train

    typed = typed_of(job)
    with reported(job.runtime.output_dir, lambda task: _defaults(job, task)):
        outcome = train(cfg, job.runtime.output_dir, typed, job, in_sweep, in_sweep and is_parallel(job))
    if outcome.fresh and outcome.rank == 0 and "pruned" not in outcome.facts:
        from eai.core.compare.text import summary_of_run

        metrics = read_json(outcome.run.metrics)
        log.info("%s", summary_of_run(outcome.run))
        as_planned = not any(item.startswith("epochs=") for item in typed)
        if as_planned and (verdict := _verdict(outcome.experiment, outcome.cfg, metrics)):
            log.info("%s", verdict)
    return outcome.objectives if len(outcome.objectives) > 1 else outcome.objectives[0]


def _defaults(job: DictConfig, task: str) -> Mapping[str, Any]:
    """The configuration of a task without overrides."""
    composed = hydra.compose(job.job.config_name, [f"task={task}"])
    return cast(Mapping[str, Any], OmegaConf.to_container(resolve(composed)))


def _verdict(experiment: Experiment, cfg: DictConfig, metrics: Mapping[str, float]) -> str | None:
    """Whether the run reached what its experiment expects; None where it expects nothing or was shortened."""
    expect = experiment.expect
    if expect is None or is_shortened(cfg):
        return None
    value = metrics[expect.score]
    return f"expected {expect}: {'reached' if expect.met_by(value) else 'NOT reached'} with {spell_number(value)}"


def main() -> None:
    with judged():
        run_hydra(app, StudySweeper)


if __name__ == "__main__":
    main()
