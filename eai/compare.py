"""``eai-compare``: a leaderboard of finished runs, grouped over seeds, the baselines below."""

from __future__ import annotations

import sys

import hydra
from omegaconf import DictConfig

from eai.core.cli import CONFIG_DIR, EXECUTION_WHITELIST, call, run_hydra
from eai.core.compare.arguments import compare_overrides


@hydra.main(config_path=CONFIG_DIR, config_name="compare", execution_whitelist=EXECUTION_WHITELIST)
def app(cfg: DictConfig) -> None:
    from eai.core.compare.comparison import compare

    call(lambda: compare(cfg))


def main() -> None:
    sys.argv[1:] = compare_overrides(sys.argv[1:])
    run_hydra(app)


if __name__ == "__main__":
    main()
