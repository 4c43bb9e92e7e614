"""The keys of the configuration that tell runs apart, and what they are called."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from eai.core.compare.record import Record
from eai.core.directory import COSMETIC

_ENOUGH_COLUMNS = 6  # of parameters, where nothing says which were swept


def varying_keys(records: Sequence[Record]) -> tuple[str, ...]:
    """The keys that tell runs apart: what was swept or overridden, then what else differs.

    A resolved configuration repeats a value wherever it is interpolated; copies are left out.
    """
    named = [key for record in records for key in record.swept]
    named = named or [key for record in records for key in record.overrides]
    chosen = pd.DataFrame(index=range(len(records)))
    for key in dict.fromkeys(named):
        values = [canonical(record.parameter(key)) for record in records]
        if _is_parameter(key) and len(set(values)) > 1:
            chosen[key] = values
    enough = 0 if len(chosen.columns) else _ENOUGH_COLUMNS
    leaves = pd.DataFrame([{key: canonical(value) for key, value in record.leaves.items()} for record in records])
    leaves = leaves.loc[:, leaves.nunique(dropna=False) > 1].fillna("absent")
    # Which class is built says more than its arguments, and a short key is where a value was written.
    for key in sorted(map(str, leaves), key=lambda k: (not k.endswith("_target_"), k.count("."), k)):
        if any(leaves[key].equals(column.rename(key)) for _, column in chosen.items()):
            continue
        more = chosen.assign(**{key: leaves[key]})
        if len(chosen.columns) < enough or _told_apart(more) > _told_apart(chosen):
            chosen = more
    return tuple(chosen.columns)


def _told_apart(columns: pd.DataFrame) -> int:
    return len(columns.drop_duplicates()) if len(columns.columns) else 1


def _is_parameter(key: str) -> bool:
    return key not in ("seed", "task") and key.partition(".")[0] not in (*COSMETIC, "hydra")


def short_names(keys: Iterable[str], tasks: Iterable[str | None], reserved: Iterable[str]) -> dict[str, str]:
    """The shortest tail of each dotted key that no other key and no fixed column has.

    ``model.optimizer.lr`` is ``lr``, ``shared/covariance`` is ``covariance``; the task in ``data/recovery`` and
    a final ``_target_`` say nothing and are dropped.
    """
    names = set(tasks)
    parts = {key: _telling_parts(key, names) for key in keys}
    short: dict[str, str] = {}
    for key, own in parts.items():
        others = {other for other in parts.values() if other != own}
        taken = {other[-n:] for other in others for n in range(1, len(other) + 1)}
        tails = [own[-n:] for n in range(1, len(own) + 1)]
        free = [".".join(tail) for tail in tails if tail not in taken and ".".join(tail) not in reserved]
        short[key] = free[0] if free else key
    return short


def _telling_parts(key: str, tasks: set[str | None]) -> tuple[str, ...]:
    head, slash, tail = key.rpartition("/")
    if slash:
        return (head,) if tail in tasks else (*head.split("/"), tail)
    parts = tuple(key.split("."))
    return parts[:-1] if parts[-1] == "_target_" and len(parts) > 1 else parts


def canonical(value: Any) -> str:
    """Equal texts for equal values."""
    return json.dumps(value, sort_keys=True, default=str)
