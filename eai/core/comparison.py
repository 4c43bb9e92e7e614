"""Finished runs side by side."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from eai.core.errors import ConfigError, require
from eai.core.rundir import RunDirectory, read_json

COLUMNS = ("task", "score", "value", "baseline", "optimum", "seconds", "state", "run")
FORMATS = ("table", "csv", "json", "markdown")


def flat_keys(node: Any, prefix: str) -> dict[str, Any]:
    """Dotted keys of the leaves of nested dictionaries."""
    if isinstance(node, Mapping):
        return {k: v for name, item in node.items() for k, v in flat_keys(item, f"{prefix}.{name}").items()}
    return {prefix: node}


def find_runs(folders: list[str]) -> Iterator[RunDirectory]:
    """Runs at or below the given folders, oldest name first; evaluations of runs are left out."""
    for folder in folders:
        if not Path(folder).is_dir():
            raise ConfigError(f"runs: expected directories, got {folder} (no such directory)")
        for status in sorted(Path(folder).rglob("status.json")):
            if "evaluations" not in status.relative_to(folder).parts:
                yield RunDirectory(status.parent)


def row_of_run(run: RunDirectory) -> dict[str, Any]:
    """The headline of one run: its score, its baseline's and the optimum's (None where unknown)."""
    status = read_json(run.status)
    row: dict[str, Any] = dict.fromkeys(COLUMNS)
    row |= {"state": status["state"], "seconds": status.get("train_seconds"), "run": str(run.path)}
    if run.config.is_file():
        cfg = run.load_config()
        row |= {"task": cfg.task, "score": cfg.headline.score}
        if run.metrics.is_file() and run.baselines.is_file():
            metrics, baselines = read_json(run.metrics), read_json(run.baselines)
            row["value"] = metrics.get(cfg.headline.score)
            for column, name in (("baseline", cfg.headline.baseline), ("optimum", cfg.headline.optimum)):
                row[column] = baselines.get(name, {}).get(cfg.headline.score) if name else None
    return row


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
        table.add_row(label, _spell(scores.get(cfg.headline.score)), style="bold" if name == "model" else None)
    tail = f"scores   {run.metrics}\nfigures  {run.figures}\nwatch    tensorboard --logdir {run.path}"
    return f"\n{_render(table)}{tail}"


def compare(cfg: DictConfig) -> None:
    """Print one row per run below ``cfg.runs``.

    Raises:
        ConfigError: a folder does not exist, holds no run, or the format is unknown.
    """
    folders = [cfg.runs] if isinstance(cfg.runs, str) else [str(folder) for folder in cfg.runs]
    try:
        require(cfg.format in FORMATS, "format", f"one of {', '.join(FORMATS)}", cfg.format)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    rows = [row_of_run(run) for run in find_runs(folders)]
    if not rows:
        raise ConfigError(f"runs: no run found below {', '.join(folders)}")
    print(_format(rows, cfg.format), end="")


def _format(rows: list[dict[str, Any]], form: str) -> str:
    if form == "json":
        return json.dumps(rows, indent=2) + "\n"
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
    if form == "markdown":
        lines = ["| " + " | ".join(COLUMNS) + " |", "| " + " | ".join("---" for _ in COLUMNS) + " |"]
        lines += ["| " + " | ".join(_spell(row[column]) for column in COLUMNS) + " |" for row in rows]
        return "\n".join(lines) + "\n"
    table = Table()
    for column in COLUMNS:
        numeric = column in ("value", "baseline", "optimum", "seconds")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in rows:
        cells = {column: _spell(row[column]) for column in COLUMNS} | {"run": _short_path(row["run"])}
        table.add_row(*cells.values())
    return _render(table)


def _short_path(path: str) -> str:
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _spell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _render(table: Table) -> str:
    # Wide enough that a log file keeps whole cells; a terminal's own width is respected.
    console = Console()
    console = Console(width=max(console.width, 140) if not console.is_terminal else None, highlight=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()
