"""The reference methods of a comparison: one row each for every set of test data they were scored on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eai.core.compare.grouping import Comparison, Group, Spread, canonical, goodness
from eai.core.compare.tables import spell, spell_spread

BASELINE, RIVAL, OPTIMUM = "baseline", "baseline to beat", "optimum"


@dataclass(frozen=True)
class Reference:
    """The headline score of one method on one set of test data; ``place`` numbers the sets.

    ``parameters`` are those that all groups scored beside it have in common.
    """

    name: str
    role: str
    score: Spread
    parameters: dict[str, Any]
    place: int


def references(table: Comparison) -> list[Reference]:
    """The reference methods of all groups, sorted by their test score within each set of test data.

    A score is averaged over seeds, never over different test data. Where a method depends on more than data and
    seed (as the number of iterations it is given) each group has its own row; rows that read the same are one.
    """
    places: dict[str, int] = {}
    read_alike: dict[tuple[str, str], list[tuple[int, Spread, list[Group]]]] = {}
    for group in table.groups:
        places.setdefault(_test_data(group), len(places))
    for name in dict.fromkeys(name for record in table.records for name in record.baselines):
        for groups in _alike(table.groups, name):
            score = Spread.of(_by_seed(groups, name).values())
            if score.mean is not None:
                read = spell_spread(score.mean, score.sd)
                read_alike.setdefault((name, read), []).append((places[_test_data(groups[0])], score, groups))
    rows = []
    for (name, _), found in read_alike.items():
        role = {table.headline["baseline"]: RIVAL, table.headline["optimum"]: OPTIMUM}.get(name, BASELINE)
        shared = _common(table, [group for _, _, groups in found for group in groups])
        rows.append(Reference(name, role, found[0][1], shared, min(place for place, _, _ in found)))
    return sorted(rows, key=lambda row: (row.place, goodness(row.score.mean, table.test_mode)))


def _test_data(group: Group) -> str:
    leaves = group.records[0].leaves()
    return canonical({key: value for key, value in leaves.items() if key.startswith(("data.", "shared."))})


def _alike(groups: Sequence[Group], name: str) -> list[list[Group]]:
    """Groups on the same test data whose runs of equal seed agree on the method's score; else each alone."""
    sets: dict[str, list[Group]] = {}
    for group in groups:
        sets.setdefault(_test_data(group), []).append(group)
    result = []
    for members in sets.values():
        pooled = _by_seed(members, name)
        agree = all(spell(pooled[seed]) == spell(x) for g in members for seed, x in _by_seed([g], name).items())
        result += [members] if agree else [[group] for group in members]
    return result


def _by_seed(groups: Sequence[Group], name: str) -> dict[str, float]:
    scores = {}
    for record in (record for group in groups for record in group.scored):
        if (value := record.baseline(name)) is not None:
            scores[canonical(record.config.get("seed"))] = value
    return scores


def _common(table: Comparison, groups: Sequence[Group]) -> dict[str, Any]:
    values = {key: [group.parameter(key) for group in groups] for key in table.keys}
    return {key: found[0] for key, found in values.items() if len({canonical(value) for value in found}) == 1}
