"""Runs as pandas tables: a row a run, a row a group of seeds, a row a reference method.

Read :func:`runs` for what a notebook gets, :func:`comparisons` for what is ranked, :func:`leaderboard_frame` for the
form of ``eai-compare --csv``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from eai.core.compare.keys import canonical, short_names, varying_keys
from eai.core.compare.record import Record, number
from eai.core.compare.records import read_records
from eai.core.compare.text import spell, spell_spread

_FIRST = ("state", "task", "seed")
_LAST = ("monitor", "score", "headline", "test", "baseline", "rival", "rival_score", "optimum", "seconds", "parameters",
         "started", "path")  # fmt: skip
_NUMBERS = ("score", "test", "baseline", "rival_score", "optimum", "seconds", "parameters")
_METHOD = ("task", "role", "method")
_SCORES = ("score", "score_mean", "score_sd", "test", "test_mean", "test_sd", "test_se", "seeds", "seconds", "cost",
           "parameters", "states", "reason", "run")  # fmt: skip


def runs(folders: str | Path | Sequence[str | Path]) -> pd.DataFrame:
    """All runs at or below ``folders``; see :func:`eai.runs`."""
    several = [folders] if isinstance(folders, str | Path) else list(folders)
    records = read_records(several)
    keys = dict.fromkeys(key for table in comparisons(records) for key in table.keys)
    names = short_names(keys, [record.task for record in records], {*_FIRST, *_LAST})
    frame = runs_frame(records)
    for key, name in names.items():
        frame[name] = [record.parameter(key) for record in records]
    frame["started"] = pd.to_datetime(frame["started"], utc=True, errors="coerce")
    return frame[[*_FIRST, *dict.fromkeys(names.values()), *_LAST]]


def runs_frame(records: Sequence[Record]) -> pd.DataFrame:
    """A row a run, with its record.

    Args:
        records: in the order of the rows.
    """
    rows = [
        {
            "record": record,
            "state": record.state,
            "task": record.task,
            "seed": record.config.get("seed"),
            "monitor": record.score,
            "score": record.monitored,
            "headline": record.headline["score"],
            "test": record.test_score,
            "baseline": record.baseline(record.headline["baseline"]),
            "rival": record.rival[0] if record.rival else None,
            "rival_score": record.rival[1] if record.rival else None,
            "optimum": record.baseline(record.headline["optimum"]),
            "seconds": number(record.status.get("train_seconds")),
            "parameters": number(record.status.get("parameters")),
            "started": record.status.get("started"),
            "path": str(record.path),
        }
        for record in records
    ]
    frame = pd.DataFrame(rows, columns=["record", *_FIRST, *_LAST])
    return frame.astype(dict.fromkeys(_NUMBERS, float))


@dataclass(frozen=True)
class Comparison:
    """Runs that can be ranked: one task, one monitored and one headline score.

    Attributes:
        runs: a row a run; of each group and seed the newest that completed, else the newest. Scores of completed runs.
        groups: a row for runs equal in all of the resolved configuration but the seed, the best first; means over
            seeds and sample standard deviations.
        references: a row a reference method on each set of test data, the best first; see :func:`_references`.
        keys: of the configuration, that tell the groups apart.
    """

    runs: pd.DataFrame
    groups: pd.DataFrame
    references: pd.DataFrame
    keys: tuple[str, ...]

    @property
    def first(self) -> Record:
        """Any run: all have the same task, scores and directions."""
        return self.runs["record"].iloc[0]

    @property
    def best(self) -> Record | None:
        """The run with the best monitored score."""
        ranked = self.runs.sort_values("goodness", kind="stable").dropna(subset="goodness")
        return ranked["record"].iloc[0] if len(ranked) else None


def comparisons(records: Sequence[Record]) -> list[Comparison]:
    """The tables of the runs that have a configuration, by task.

    Args:
        records: of the runs.
    """
    frame = runs_frame([record for record in records if record.config])
    names = ["task", "monitor", "mode", "headline"]
    frame["mode"] = [record.mode for record in frame["record"]]
    return [_compare(same) for _, same in frame.groupby(names, dropna=False)]


def _compare(frame: pd.DataFrame) -> Comparison:
    records = frame["record"]
    first: Record = records.iloc[0]
    done = frame["state"] == "COMPLETED"
    frame = frame.assign(
        done=done,
        group=[canonical(record.leaves) for record in records],
        data=[canonical(record.test_data) for record in records],
        seed=[canonical(record.config.get("seed", str(record.path))) for record in records],
        reason=[record.reason for record in records],
        cost=pd.Series([record.cost("model") for record in records], frame.index, float),
        error=pd.Series([record.error("model") for record in records], frame.index, float),
        **{name: frame[name].where(done) for name in ("score", "test", "seconds", "parameters")},
    )
    newest = frame.sort_values(["done", "started"], kind="stable").drop_duplicates(["group", "seed"], keep="last")
    frame = frame[frame.index.isin(newest.index)]
    frame = frame.assign(goodness=_goodness(frame["score"], first.mode))
    best = frame.sort_values("goodness", kind="stable").drop_duplicates("group").set_index("group")
    groups = frame.groupby("group", sort=False).agg(
        score_mean=("score", "mean"), score_sd=("score", "std"), test_mean=("test", "mean"), test_sd=("test", "std"),
        test_se=("error", "mean"), cost=("cost", "mean"), seeds=("done", "sum"), seconds=("seconds", "mean"),
        parameters=("parameters", "mean"),
        states=("state", _counted), reason=("reason", "first"), data=("data", "first"),
    ).join(best[["path", "record"]])  # fmt: skip
    score, test = _goodness(groups["score_mean"], first.mode), _goodness(groups["test_mean"], first.headline_mode)
    groups = groups.loc[pd.concat([score, test], axis=1).sort_values(["score_mean", "test_mean"], kind="stable").index]
    keys = varying_keys(list(groups["record"]))
    for key in keys:
        groups[f"={key}"] = pd.Series([r.parameter(key) for r in groups["record"]], groups.index, dtype=object)
    return Comparison(frame, groups, _references(frame, groups, keys), keys)


def _goodness(values: pd.Series[float], mode: str) -> pd.Series[float]:
    """The smaller the better; what is unknown stays so, and is sorted last."""
    return -values if mode == "max" else values


def _counted(states: pd.Series[str]) -> str:
    """``COMPLETED`` if all are, the state of a single run, or as ``2 of 3, 1 FAILED``."""
    counts = Counter(states)
    if len(states) == 1:
        return str(states.iloc[0])
    done = counts.pop("COMPLETED", 0)
    others = [f"{n} {state}" for state, n in sorted(counts.items())]
    return ", ".join([f"{done} of {len(states)}", *others]) if others else "COMPLETED"


def _references(frame: pd.DataFrame, groups: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """The test scores of the reference methods: mean and standard deviation over seeds, never over different test data.

    Where a method depends on more than data and seed (as the number of iterations that it is given) each group has its
    own row; rows that read the same are one. ``place`` numbers the sets of test data, the best group's first. A
    parameter (``=key``) is given where all groups that were scored beside the method have it in common.
    """
    first: Record = frame["record"].iloc[0]
    values = [
        (run, method, record.baseline(method), record.error(method), record.cost(method))
        for run, record in frame.loc[frame["done"], "record"].items()
        for method in record.baselines
    ]
    scores = pd.DataFrame(values, columns=["run", "method", "value", "error", "cost"]).dropna(subset="value")
    scores = scores.astype({"value": float, "error": float, "cost": float}).join(
        frame[["group", "data", "seed"]], on="run"
    )
    scores["place"] = scores["data"].map({data: place for place, data in enumerate(dict.fromkeys(groups["data"]))})
    # One value for all groups of a seed, as far as it is printed?
    scores["read"] = scores["value"].map(spell)
    same = scores.groupby(["method", "data", "seed"])["read"].transform("nunique") == 1
    agree = same.groupby([scores["method"], scores["data"]]).transform("all")
    scores["unit"] = scores["group"].where(~agree, "")
    unit = ["method", "place", "unit"]
    one_per_seed = scores.drop_duplicates([*unit, "seed"], keep="last").groupby(unit, sort=False)
    table = one_per_seed.agg(
        test_mean=("value", "mean"), test_sd=("value", "std"), test_se=("error", "mean"), cost=("cost", "mean"),
        seeds=("value", "count"),
    ).reset_index()  # fmt: skip
    table["read"] = [spell_spread(mean, sd) for mean, sd in zip(table["test_mean"], table["test_sd"], strict=True)]
    beside = scores[[*unit, "group"]].merge(table[[*unit, "read"]], on=unit).groupby(["method", "read"])["group"]
    table = table.sort_values("place", kind="stable").drop_duplicates(["method", "read"])
    for key in (f"={key}" for key in keys):
        common = {name: _common(groups[key], theirs) for name, theirs in beside}
        told = [common[name] for name in zip(table["method"], table["read"], strict=True)]
        table[key] = pd.Series(told, table.index, dtype=object)
    budgets = groups.drop_duplicates("data")["cost"].tolist()  # of the best network on each set of test data
    for place, budget in enumerate(budgets):
        there = table["place"] == place
        methods = table.loc[there, ["method", "test_mean", "cost"]].itertuples(index=False, name=None)
        table.loc[there, "role"] = first.roles([(m, x, number(c)) for m, x, c in methods], number(budget))
    order = table.assign(goodness=_goodness(table["test_mean"], first.headline_mode))
    return table.loc[order.sort_values(["place", "goodness"], kind="stable").index]


def _common(values: pd.Series[Any], groups: pd.Series[str]) -> Any:
    """The value that all of the groups have, or None."""
    theirs = values[groups.unique()]
    return theirs.iloc[0] if theirs.map(canonical).nunique() == 1 else None


def leaderboard_frame(records: Sequence[Record], tables: Sequence[Comparison] | None = None) -> pd.DataFrame:
    """One row a group and a reference method, as CSV and JSON have them; numbers as numbers, None where unknown.

    ``score`` and ``test`` name the scores; what tells the groups apart stands between the method and its scores;
    ``test_sd`` is the standard deviation over seeds, ``test_se`` the mean standard error from the scatter of the test
    samples; ``cost`` is in seconds per sample, ``seconds`` those of the training; ``run`` is the best run of the group;
    ``seeds`` counts completed runs.

    Args:
        records: of the runs.
        tables: of these runs, where they are known.
    """
    tables = comparisons(records) if tables is None else tables
    names = column_names(tables)
    rows: list[dict[str, Any]] = []
    for table in tables:
        first = table.first
        shared = {"task": first.task, "test": first.headline["score"]}
        model = {"role": "model", "method": "model", "score": first.score}
        parameters = {f"={key}": names[key] for key in table.keys}
        for part, told in ((table.groups.rename(columns={"path": "run"}), model), (table.references, {})):
            wanted = part.reindex(columns=[*_METHOD, *_SCORES, *parameters]).rename(columns=parameters).astype(object)
            rows += [row | shared | told for row in _dicts(wanted)]
    for record in records:
        if not record.config:
            rows.append({"task": record.task, "role": "model", "method": "model", "seeds": 0, "states": record.state,
                         "reason": record.reason, "run": str(record.path)})  # fmt: skip
    frame = pd.DataFrame(rows, columns=[*_METHOD, *dict.fromkeys(names.values()), *_SCORES], dtype=object)
    return frame.where(frame.notna(), None)


def _dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def column_names(tables: Sequence[Comparison]) -> dict[str, str]:
    """The name of each parameter's column."""
    keys = dict.fromkeys(key for table in tables for key in table.keys)
    return short_names(keys, [table.first.task for table in tables], {*_METHOD, *_SCORES, "seed"})
