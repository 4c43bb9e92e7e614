"""``eai-compare``: one table of finished runs, each beside its baseline and optimum."""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from eai.core.command import CONFIG_DIR, EXECUTION_WHITELIST, call, run_hydra


@hydra.main(config_path=CONFIG_DIR, config_name="compare", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> None:
    from eai.core.comparison import compare

    call(lambda: compare(cfg))


def main() -> None:
    run_hydra(app)


if __name__ == "__main__":
    main()
