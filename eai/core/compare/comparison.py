"""Finished runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from eai.core.compare.leaderboard import flat_rows, leaderboard
from eai.core.compare.records import Record, number, read_record, read_records
from eai.core.compare.tables import FORMATS, as_csv, as_json, as_markdown, render, short_path, spell
from eai.core.directory import RunDirectory, read_json
from eai.core.errors import ConfigError, require

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


def summary_of_run(run: RunDirectory) -> str:
    """All methods of one run in its headline score, best known reference last, and where things are."""
    cfg = run.load_config()
    metrics, baselines = read_json(run.metrics), read_json(run.baselines)
    table = Table()
    table.add_column(f"{cfg.task}, test data")
    table.add_column(cfg.headline.score, justify="right")
    roles = {cfg.headline.baseline: "baseline", cfg.headline.optimum: "optimum"}
    for name, scores in {"model": metrics, **baselines}.items():
        label = f"{name} ({roles[name]})" if name in roles else name
        table.add_row(label, spell(scores.get(cfg.headline.score)), style="bold" if name == "model" else None)
    tail = f"scores   {run.metrics}\nfigures  {run.figures}\nwatch    tensorboard --logdir {run.path}"
    return f"\n{render(table)}{tail}"


def compare(cfg: DictConfig) -> None:
    """Print a leaderboard of the runs below ``cfg.runs``, or one row per run with ``cfg.by_run``.

    Raises:
        ConfigError: a folder does not exist, holds no run, or the format is unknown.
    """
    folders = [cfg.runs] if isinstance(cfg.runs, str) else [str(folder) for folder in cfg.runs]
    try:
        require(cfg.format in FORMATS, "format", f"one of {', '.join(FORMATS)}", cfg.format)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    records = read_records(folders)
    if not records:
        raise ConfigError(f"runs: no run found below {', '.join(folders)}")
    if cfg.by_run:
        text = _each_run(records, cfg.format)
    elif cfg.format in ("csv", "json"):
        columns, rows = flat_rows(records)
        text = as_json(rows) if cfg.format == "json" else as_csv(rows, columns)
    else:
        text = leaderboard(folders, markdown=cfg.format == "markdown")
    print(text, end="")


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
