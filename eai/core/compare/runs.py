"""Runs as a pandas DataFrame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eai.core.compare.grouping import comparisons, short_names
from eai.core.compare.records import Record, number, read_records

if TYPE_CHECKING:
    import pandas as pd

BEFORE = ("state", "task", "seed")
AFTER = ("monitor", "score", "headline", "test", "baseline", "optimum", "seconds", "parameters", "started", "path")


def runs(folders: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """All runs at or below ``folders``; see :func:`eai.runs`."""
    import pandas as pd

    several = [folders] if isinstance(folders, str | Path) else list(folders)
    records = read_records(several)
    keys = dict.fromkeys(key for table in comparisons(records) for key in table.keys)
    names = short_names(keys, [record.task for record in records], {*BEFORE, *AFTER})
    rows = [_row(record, names) for record in records]
    frame = pd.DataFrame(rows, columns=[*BEFORE, *dict.fromkeys(names.values()), *AFTER])
    frame["started"] = pd.to_datetime(frame["started"], utc=True, errors="coerce")
    return frame


def _row(record: Record, names: Mapping[str, str]) -> dict[str, Any]:
    headline = record.headline
    return {
        "state": record.state,
        "task": record.task,
        "seed": record.config.get("seed"),
        **{name: record.parameter(key) for key, name in names.items()},
        "monitor": record.score,
        "score": record.monitored,
        "headline": headline["score"],
        "test": record.test_score,
        "baseline": record.baseline(headline["baseline"]),
        "optimum": record.baseline(headline["optimum"]),
        "seconds": number(record.status.get("train_seconds")),
        "parameters": number(record.status.get("parameters")),
        "started": record.status.get("started"),
        "path": str(record.path),
    }
