"""What all benchmarks share: the machine they ran on, medians and spreads, tables, JSON, and the demands they check."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "torch_geometric", "lightning", "hydra-core", "numpy")


@dataclass(frozen=True)
class Demand:
    """A number and the bound that it has to keep."""

    what: str
    value: float
    bound: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self) -> str:
        return f"{self.what}: {self.value:.2f}, demanded {'≤' if self.at_most else '≥'} {self.bound:g}"


@dataclass(frozen=True)
class Table:
    """A heading, what to know about the numbers, and the numbers, formatted."""

    title: str
    note: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [" | ".join(self.columns), " | ".join(["---"] * len(self.columns)), *map(" | ".join, self.rows)]
        table = "\n".join(f"| {line} |" for line in lines)
        return f"## {self.title}\n\n{self.note}\n\n{table}\n"


@dataclass
class Result:
    """What one benchmark found: tables to read, values to compute with, demands to check."""

    tables: list[Table]
    values: dict[str, Any]
    demands: list[Demand] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        return {
            "machine": machine(),
            "tables": [asdict(table) for table in self.tables],
            "values": self.values,
            "demands": [asdict(demand) | {"met": demand.met} for demand in self.demands],
        }


def machine() -> dict[str, Any]:
    """Processor, cores and versions; nothing that names the host."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def machine_line(facts: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {facts[name]}" for name in ("python", *PACKAGES))
    return f"{facts['cpu']}, {facts['cores']} cores, load average {facts['load']}; {versions}"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, with the smallest and the largest value."""
    return f"{middle(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes: where the numbers go, and whether to judge them."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, help="write machine, tables, values and demands here")
    made.add_argument("--check", action="store_true", help="exit with 1 if a demand is not met, naming it")
    return made


def finish(result: Result, arguments: argparse.Namespace) -> None:
    """Print the tables, write the JSON, and judge on request."""
    print(machine_line(machine()), end="\n\n")
    print("\n".join(table.markdown() for table in result.tables), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(result.as_json(), indent=1) + "\n")
    short = [demand for demand in result.demands if not demand.met]
    for demand in short:
        print(f"falls short: {demand}", file=sys.stderr)
    if arguments.check and short:
        raise SystemExit(1)
