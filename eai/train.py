"""``eai-train``: train one experiment, score it beside its baselines, return the monitored score."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from eai.core.command import CONFIG_DIR, EXECUTION_WHITELIST, call, run_hydra


@hydra.main(config_path=CONFIG_DIR, config_name="train", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> float:
    from eai.core.training import train

    return call(train, cfg)


def main() -> None:
    run_hydra(app)


if __name__ == "__main__":
    main()
