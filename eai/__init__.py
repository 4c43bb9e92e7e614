"""eai: learning dynamics, recovery and assimilation, scored beside what is attainable.

Importing this package is cheap; torch and lightning load with the first function that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eai.core.run.finished import Run

__version__ = "0.1.0"
__all__ = ["__version__", "load_run"]


def load_run(run_dir: str | Path, overrides: Sequence[str] = ()) -> Run:
    """Load a finished run for use in a notebook, whose random numbers stay as they were.

    Args:
        run_dir: the directory of the run.
        overrides: of its configuration, as ``["data.device=cpu"]``: keys below data, model, shared and accelerator.

    Returns an object with ``.config`` (the resolved configuration), ``.module`` (the task with the
    weights of the best checkpoint, in eval mode) and ``.data`` (its DataModule, set up).

    Raises:
        eai.core.errors.ConfigError: the directory is not a run, or its checkpoint cannot be read.

    Example:
        >>> run = eai.load_run("outputs/assimilation/2026-01-01_12-00-00-1a2b")  # doctest: +SKIP
        >>> batch = run.data.batch("test")  # doctest: +SKIP
        >>> analysis = run.module.predict(batch)  # doctest: +SKIP
    """
    from eai.core.run.finished import load_run as load

    return load(run_dir, overrides)
