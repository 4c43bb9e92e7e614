"""One process of a run of several: ``torchrun … -m eai.worker <run directory>/config.yaml [<checkpoint>]``.

Started by ``eai-train`` where ``accelerator`` asks for more than one process; reads the resolved configuration and
never enters Hydra, so that no process composes, or sweeps, a second time.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from eai.core.cli import log_to


def main() -> None:
    from eai.core.configuration.check import check_experiment
    from eai.core.directory import RunDirectory
    from eai.core.errors import EaiError, Interrupted
    from eai.core.learn.ranks import cluster_environment, joined, same_everywhere
    from eai.core.run.fit import run_rank
    from eai.core.run.processes import die_with_parent, reported
    from eai.core.signals import StopSignals

    die_with_parent()
    config, *checkpoint = (Path(argument) for argument in sys.argv[1:])
    run = RunDirectory(config.parent)
    cfg = run.load_config()
    try:
        with (
            _configure_log(config.parent),
            StopSignals() as stop,
            reported(run, int(os.environ["RANK"])) as facts,
            joined(cluster_environment()),
        ):
            same_everywhere(cfg)
            facts |= run_rank(cfg, check_experiment(cfg), run, stop, checkpoint[0] if checkpoint else None)
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from stop
    except EaiError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error


def _configure_log(folder: Path) -> AbstractContextManager[None]:
    """Rank 0 writes where a single process would; the others write warnings only."""
    first = os.environ.get("RANK") == "0"
    level = logging.INFO if first else logging.WARNING
    logging.basicConfig(level=level, format="%(message)s", stream=sys.stdout if first else sys.stderr)
    return log_to(folder / "train.log") if first else nullcontext()


if __name__ == "__main__":
    main()
