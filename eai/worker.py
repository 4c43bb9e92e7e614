"""One process of a run of several: ``torchrun … -m eai.worker <run directory>/config.yaml [<checkpoint>]``.

Started by ``eai-train`` where ``accelerator`` asks for more than one process; reads the resolved configuration and
never enters Hydra, so that no process composes, or sweeps, a second time.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path


def main() -> None:
    from eai.core.config import check_experiment
    from eai.core.directory import RunDirectory
    from eai.core.errors import EaiError, Interrupted
    from eai.core.learn.ranks import cluster_environment, joined, same_everywhere
    from eai.core.run.fit import run_rank
    from eai.core.run.processes import die_with_parent, reported
    from eai.core.run.signals import StopSignals

    die_with_parent()
    config, *checkpoint = (Path(argument) for argument in sys.argv[1:])
    _configure_log(config.parent)
    run = RunDirectory(config.parent)
    cfg = run.load_config()
    try:
        with StopSignals() as stop, reported(run, int(os.environ["RANK"])) as facts, joined(cluster_environment()):
            same_everywhere(cfg)
            facts |= run_rank(cfg, check_experiment(cfg), run, stop, checkpoint[0] if checkpoint else None)
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from stop
    except EaiError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def _configure_log(folder: Path) -> None:
    """Rank 0 writes where a single process would; the others write warnings only."""
    from eai.core.directory import no_links

    if os.environ.get("RANK") == "0":
        handlers: list[logging.Handler] = [
            logging.StreamHandler(sys.stdout),
            logging.StreamHandler(open(folder / "train.log", "a", opener=no_links)),
        ]
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=handlers)
    else:
        logging.basicConfig(level=logging.WARNING)


if __name__ == "__main__":
    main()
