"""Runs that differ in their seed only, as one group; groups of one task, as one table."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eai.core.compare.records import Record, number
from eai.core.directory import COSMETIC

_ENOUGH_COLUMNS = 6


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of ``n`` values; ``sd`` is None with fewer than two."""

    mean: float | None
    sd: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread:
        known = [value for value in values if value is not None]
        return cls(
            number(statistics.fmean(known)) if known else None,
            number(statistics.stdev(known)) if len(known) > 1 else None,
            len(known),
        )


@dataclass(frozen=True)
class Group:
    """Runs equal in all of the resolved configuration but ``seed``; one per seed."""

    records: tuple[Record, ...]

    @property
    def scored(self) -> list[Record]:
        return [record for record in self.records if record.completed]

    @property
    def states(self) -> str:
        """``COMPLETED`` if all are, or as ``2 of 3, 1 FAILED``."""
        others = Counter(record.state for record in self.records if not record.completed)
        if not others:
            return "COMPLETED"
        counts = [f"{n} {state}" for state, n in sorted(others.items())]
        return ", ".join([f"{len(self.scored)} of {len(self.records)}", *counts])

    @property
    def best(self) -> Record | None:
        """The run with the best monitored score."""
        known = [record for record in self.scored if record.monitored is not None]
        return min(known, key=lambda record: goodness(record.monitored, record.mode), default=None)

    @property
    def monitored(self) -> Spread:
        return Spread.of(record.monitored for record in self.records)

    @property
    def tested(self) -> Spread:
        return Spread.of(record.tested for record in self.records)

    def mean_of(self, fact: str) -> float | None:
        """The mean of a number in ``status.json``, as ``train_seconds``."""
        return Spread.of(number(record.status.get(fact)) for record in self.scored).mean

    def parameter(self, key: str) -> Any:
        return self.records[0].parameter(key)


@dataclass(frozen=True)
class Comparison:
    """Groups that can be ranked: one task, one monitored and one headline score."""

    task: str | None
    score: str | None
    mode: str
    headline: Mapping[str, str | None]
    test_mode: str
    groups: tuple[Group, ...]
    keys: tuple[str, ...]

    @property
    def records(self) -> list[Record]:
        return [record for group in self.groups for record in group.records]


def goodness(value: float | None, mode: str) -> tuple[bool, float]:
    """A key that sorts the best first and what is unknown last."""
    return value is None, (-(value or 0.0) if mode == "max" else (value or 0.0))


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """Tables of groups, the groups sorted by their mean monitored score, or the headline score where none is known.

    A run without a configuration is in none of them.
    """
    tables: dict[tuple[str | None, ...], list[Record]] = {}
    for record in records:
        if record.config:
            tables.setdefault((record.task, record.score, record.mode, record.headline["score"]), []).append(record)
    result = []
    for (task, score, _, _), members in sorted(tables.items(), key=lambda item: [str(name) for name in item[0]]):
        mode, test_mode, groups = members[0].mode, members[0].headline_mode, _groups(members)
        groups.sort(key=lambda g: (goodness(g.monitored.mean, mode), goodness(g.tested.mean, test_mode)))
        keys = varying_keys(groups)
        result.append(Comparison(task, score, mode, members[0].headline, test_mode, tuple(groups), keys))
    return result


def _groups(records: Sequence[Record]) -> list[Group]:
    """A seed that was run several times counts once: the newest that completed, else the newest."""
    members: dict[str, dict[str, Record]] = {}
    for record in sorted(records, key=lambda r: (r.completed, str(r.status.get("started")))):
        seed = canonical(record.config.get("seed", str(record.path)))
        members.setdefault(canonical(record.leaves()), {})[seed] = record
    kept = {id(record) for seeds in members.values() for record in seeds.values()}
    order = {id(record): place for place, record in enumerate(records) if id(record) in kept}
    return [Group(tuple(sorted(seeds.values(), key=lambda r: order[id(r)]))) for seeds in members.values()]


def canonical(value: Any) -> str:
    """Equal texts for equal values."""
    return json.dumps(value, sort_keys=True, default=str)


def varying_keys(groups: Sequence[Group]) -> tuple[str, ...]:
    """The keys that tell the groups apart: what was swept or overridden, then what else differs.

    A resolved configuration repeats a value wherever it is interpolated; copies are left out.
    """
    records = [group.records[0] for group in groups]
    named = [key for record in records for key in record.swept]
    named = named or [key for record in records for key in record.overrides]
    columns: dict[str, tuple[str, ...]] = {}
    for key in dict.fromkeys(named):
        values = tuple(canonical(record.parameter(key)) for record in records)
        if _is_parameter(key) and len(set(values)) > 1:
            columns[key] = values
    enough = 0 if columns else _ENOUGH_COLUMNS
    leaves = [record.leaves() for record in records]
    # Which class is built says more than its arguments, and a short key is where a value was written.
    everything = dict.fromkeys(key for node in leaves for key in node)
    for key in sorted(everything, key=lambda k: (not k.endswith("_target_"), k.count("."))):
        values = tuple(canonical(node.get(key)) for node in leaves)
        if len(set(values)) == 1 or values in columns.values():
            continue
        told_apart = len(set(zip(*columns.values(), strict=True))) if columns else 1
        with_it = len(set(zip(*columns.values(), values, strict=True)))
        if len(columns) < enough or with_it > told_apart:
            columns[key] = values
    return tuple(columns)


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
        tails = [own[-n:] for n in range(1, len(own) + 1)]
        taken = {other[-n:] for other in others for n in range(1, len(other) + 1)}
        free = [".".join(tail) for tail in tails if tail not in taken and ".".join(tail) not in reserved]
        short[key] = free[0] if free else key
    return short


def _telling_parts(key: str, tasks: set[str | None]) -> tuple[str, ...]:
    head, slash, tail = key.rpartition("/")
    if slash:
        return (head,) if tail in tasks else (*head.split("/"), tail)
    parts = tuple(key.split("."))
    return parts[:-1] if parts[-1] == "_target_" and len(parts) > 1 else parts
