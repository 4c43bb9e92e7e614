"""eai: learning dynamics, recovery and assimilation, scored beside what is attainable.

Importing this package is cheap; torch and lightning load with the first function that needs them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from eai.core.run.finished import Run

__version__ = "0.1.0"
__all__ = ["__version__", "load_run", "runs"]


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


def runs(folders: str | Path | Sequence[str | Path] = "outputs") -> pd.DataFrame:
    """All runs at or below one or several folders as a pandas DataFrame, one row a run, in the order of their start.

    Columns: ``state`` (COMPLETED, FAILED, …), ``task``, ``seed``; one for each parameter in which the runs differ, by
    its shortest clear name; ``monitor`` and ``score``, name and value of the monitored validation score; ``headline``
    and ``test``, those of the headline score on the test data; in the same score ``baseline`` (a trivial method),
    ``rival_score`` of ``rival`` (the best method that costs no more than the network) and ``optimum``;
    ``seconds`` of training, trainable ``parameters``, ``started`` (UTC) and ``path``. What is not known is missing.

    Args:
        folders: to look in; symbolic links are followed.

    Raises:
        eai.core.errors.ConfigError: one of them is no folder.

    Example:
        >>> runs = eai.runs("outputs/sweeps")  # doctest: +SKIP
        >>> runs.groupby("lr")["score"].agg(["mean", "std", "count"])  # doctest: +SKIP
    """
    from eai.core.compare.table import runs as read

    return read(folders)
