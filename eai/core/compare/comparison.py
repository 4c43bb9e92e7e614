"""Finished runs side by side."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich import box
from rich.table import Table
from rich.text import Text

from eai.core.compare.leaderboard import flat_rows, leaderboard
from eai.core.compare.records import Record, number, read_record, read_records
from eai.core.compare.tables import as_csv, as_json, as_markdown, render, short_path, spell
from eai.core.directory import COSMETIC, RunDirectory, flat_keys
from eai.core.errors import ConfigError

COLUMNS = ("task", "score", "value", "baseline", "optimum", "seconds", "state", "run")


def row_of_run(run: RunDirectory) -> dict[str, Any]:
    """The headline of one run: its score, its baseline's and the optimum's (None where unknown)."""
    return _row(read_record(run))


def _row(record: Record) -> dict[str, Any]:
    headline = record.headline
    return {
        "task": record.task,
        "score": headline["score"],
        "value": record.test_score,
        "baseline": record.baseline(headline["baseline"]),
        "optimum": record.baseline(headline["optimum"]),
        "seconds": number(record.status.get("train_seconds")),
        "state": record.state,
        "run": str(record.path),
    }


def summary_of_run(
    run: RunDirectory, cfg: DictConfig, metrics: Mapping[str, float], baselines: Mapping[str, Mapping[str, float]]
) -> str:
    """All methods of one run in its headline score, and where things are.

    Args:
        run: its directory.
        cfg: its configuration.
        metrics: the model's scores.
        baselines: the same of each reference method.
    """
    headline = cfg.headline
    table = Table()
    table.add_column(f"{cfg.task}, test data")
    table.add_column(headline.score, justify="right")
    roles = {headline.baseline: "baseline", headline.optimum: "optimum"}
    for name, scores in {"model": metrics, **baselines}.items():
        label = f"{name} ({roles[name]})" if name in roles else name
        table.add_row(label, spell(scores.get(headline.score)), style="bold" if name == "model" else None)
    places = {"scores": run.metrics, "figures": run.figures}
    tail = [f"{name:8} {shlex.quote(str(path))}" for name, path in places.items() if path.exists()]
    tail.append(f"watch    tensorboard --logdir {shlex.quote(str(run.path))}")
    return f"\n{render(table)}" + "\n".join(tail)


def compare(folders: Sequence[str], form: str = "table", by_run: bool = False) -> str:
    """A leaderboard of the runs below ``folders``.

    Args:
        folders: to look in.
        form: ``table``, ``csv``, ``json``, ``markdown``, or ``diff``: the keys in which runs differ.
        by_run: one row per run instead of one per group of seeds.

    Raises:
        ConfigError: a folder is none, or holds no run.
    """
    records = read_records(folders)
    if not records:
        raise ConfigError(f"runs: no run found below {', '.join(folders)}")
    if form == "diff":
        return differences(records)
    tasks = Counter(record.task for record in records if record.config)
    # Where each task has one run, print one table.
    if by_run or (form == "table" and len(tasks) > 1 and max(tasks.values()) == 1):
        return _each_run(records, form)
    if form in ("csv", "json"):
        columns, rows = flat_rows(records)
        return as_json(rows) if form == "json" else as_csv(rows, columns)
    return leaderboard(folders, markdown=form == "markdown")


def differences(records: Sequence[Record]) -> str:
    """The configuration keys in which runs differ, side by side, and the command that reproduces each run.

    Raises:
        ConfigError: the configuration of a run cannot be read.
    """
    for record in records:
        if not record.config:
            raise ConfigError(f"runs: {record.path} cannot be compared: {record.reason or 'no readable config.yaml'}")
    leaves = [flat_keys(record.config) for record in records]
    keys = sorted({key for node in leaves for key in node if key.partition(".")[0] not in COSMETIC})
    differing = [key for key in keys if len({repr(node.get(key)) for node in leaves}) > 1]
    table = Table(box=box.SIMPLE)
    table.add_column("key", overflow="fold")
    for number_, _ in enumerate(records, start=1):
        table.add_column(f"run {number_}", overflow="fold")
    for key in differing:
        table.add_row(key, *(spell(node[key]) if key in node else "absent" for node in leaves))
    lines = []
    for number_, record in enumerate(records, start=1):
        run = RunDirectory(record.path)
        command = "no command: .hydra/overrides.yaml is missing"
        if (run.path / ".hydra" / "overrides.yaml").is_file():
            given = (item for item in run.load_overrides() if not item.startswith("resume="))
            command = shlex.join(["eai-train", *given])
        lines += [f"run {number_}  {short_path(record.path)}", f"       {command}"]
    return (render(table) if differing else "the configurations are the same\n") + "\n".join(lines) + "\n"


def _each_run(records: list[Record], form: str) -> str:
    rows = [_row(record) for record in records]
    if form == "json":
        return as_json(rows)
    if form == "csv":
        return as_csv(rows, COLUMNS)
    cells = [[spell(row[column]) for column in COLUMNS] for row in rows]
    if form == "markdown":
        return as_markdown(cells, COLUMNS)
    table = Table()
    for column in COLUMNS:
        numeric = column in ("value", "baseline", "optimum", "seconds")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in cells:
        table.add_row(*map(Text, row[:-1]), Text(short_path(Path(row[-1]))))
    return render(table)
