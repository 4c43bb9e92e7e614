"""``eai-evaluate``: score a finished run again, if wished on other data."""

from __future__ import annotations

import logging

import hydra
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from eai.core.cli import CONFIG_DIR, EXECUTION_WHITELIST, call, run_hydra
from eai.core.directory import RunDirectory

# Overrides of a run that is not known before the command line is read: these nodes take any key,
# and `evaluate` checks them against the run's own configuration.
overrides = OmegaConf.create()
for node in ("shared", "data", "model", "accelerator"):
    overrides[node] = DictConfig({}, flags={"struct": False})
ConfigStore.instance().store(name="run_overrides", node=overrides)


@hydra.main(config_path=CONFIG_DIR, config_name="evaluate", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> float:
    return call(lambda: _evaluate(cfg))


def _evaluate(cfg: DictConfig) -> float:
    if not OmegaConf.is_missing(cfg, "run"):
        RunDirectory.open(cfg.run)  # before torch is imported

    from eai.core.compare.report import write_report
    from eai.core.compare.text import summary_of_run
    from eai.core.run.finished import evaluate

    score, result = evaluate(cfg)
    write_report(result)
    logging.getLogger("eai").info("%s", summary_of_run(result))
    return score


def main() -> None:
    run_hydra(app)


if __name__ == "__main__":
    main()
