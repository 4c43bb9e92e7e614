"""``eai-train``: train one experiment, score it beside its baselines, return the monitored score."""

from __future__ import annotations

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from eai.core.command import CONFIG_DIR, EXECUTION_WHITELIST, call, run_hydra


@hydra.main(config_path=CONFIG_DIR, config_name="train", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> float | tuple[float, ...]:
    from eai.core.training import train

    job = HydraConfig.get()
    return call(lambda: train(cfg, job.runtime.output_dir, job.overrides.task, job))


def main() -> None:
    run_hydra(app)


if __name__ == "__main__":
    main()
