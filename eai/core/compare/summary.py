"""What a sweep's directory says of its runs, brought up to date after every job."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path

from eai.core.compare.importance import importances
from eai.core.compare.page import png
from eai.core.compare.records import read_records
from eai.core.compare.several import FIGURES, figures_of, several_page
from eai.core.compare.show import as_csv
from eai.core.compare.table import Comparison, comparisons, leaderboard_frame
from eai.core.files import write_whole

log = logging.getLogger("eai")
_ATTEMPTS = 3
_SHARE = 20  # drawing takes one of so many parts of a sweep's time at most
_draw_again_at: dict[Path, float] = {}  # by sweep, of this process's clock
_importances: dict[Path, dict[str, dict[str, float]]] = {}  # by sweep, as found when its figures were drawn


def write_summary(sweep: Path, last: bool = False) -> None:
    """Write ``summary.csv``, ``report.html`` and the figures of a sweep; a failure is a warning, not an error.

    Processes that end at the same time may all call it: files are renamed into place, and one that finds that a run
    changed its state meanwhile writes again. The figures are drawn again when that takes a twentieth of the sweep's
    time at most.

    Args:
        sweep: the directory of the runs.
        last: draw in any case.
    """
    try:
        for _ in range(_ATTEMPTS):
            records = read_records([sweep])
            if not records:
                return
            tables = comparisons(records)
            write_whole(sweep / "summary.csv", as_csv(leaderboard_frame(records, tables)).encode())
            if [record.status for record in read_records([sweep])] == [record.status for record in records]:
                break
    except Exception as error:  # the jobs of a sweep matter more than its summary
        log.warning("no summary of %s: %s: %s", sweep, type(error).__name__, error)
        return
    _draw(sweep, tables, last)
    try:
        drawn = {name: (sweep / name).read_bytes() for name in FIGURES if (sweep / name).is_file()}
        page = several_page(sweep.name, records, tables, drawn, _importances.get(sweep, {}), sweep)
        write_whole(sweep / "report.html", page)
    except Exception as error:  # likewise
        log.warning("no report of %s: %s: %s", sweep, type(error).__name__, error)


def _draw(sweep: Path, tables: Sequence[Comparison], last: bool) -> None:
    """Draw the figures, and ask how much each parameter matters, if it is time."""
    started = time.monotonic()
    if not last and started < _draw_again_at.get(sweep, 0):
        return
    try:
        for name, figure in figures_of(tables).items():
            write_whole(sweep / name, png(figure))
        _importances[sweep] = importances(sweep)
    except Exception as error:  # likewise
        log.warning("no figures of %s: %s: %s", sweep, type(error).__name__, error)
    _draw_again_at[sweep] = time.monotonic() + _SHARE * (time.monotonic() - started)
