"""All benchmarks, one after the other: `make bench`, or python -m benchmarks [--check] [--only NAME …].

Writes benchmarks/RESULTS.md and benchmarks/results.json. Each part is a process of its own, so that no peak of memory
and no setting of one reaches another. Parts that are left out keep what the files say of them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.commands import environment
from benchmarks.report import Demand, Table, machine_line

HERE = Path(__file__).parent
PARTS = (
    "throughput",
    "startup",
    "time_to_score",
    "sizes",
    "dynamics_scaling",
    "assimilation_inference",
    "assimilation_2d",
    "processes",
)


def run(part: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        command = [sys.executable, "-W", "ignore", "-m", f"benchmarks.{part}", "--json", str(path)]
        started = time.monotonic()
        subprocess.run(command, cwd=HERE.parent, env=environment(), check=True)
        return json.loads(path.read_text()) | {"seconds": round(time.monotonic() - started)}


def demand_of(content: dict[str, Any]) -> Demand:
    return Demand(**{key: content[key] for key in ("what", "value", "bound", "at_most")})


def markdown(results: dict[str, dict[str, Any]]) -> str:
    lines = ["# Benchmarks", "", "Written by `make bench`. What a number means stands in the module that took it.", ""]
    demands = [demand_of(d) for part in results.values() for d in part["demands"]]
    short = [f"* {demand}" for demand in demands if not demand.met]
    lines += ["Every demand is met." if not short else "Falls short:", "", *short, ""]
    for part, result in results.items():
        lines += [Table(**table).markdown() for table in result["tables"]]
        lines += [f"`python -m benchmarks.{part}`, {result['seconds']} s; {machine_line(result['machine'])}", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--check", action="store_true", help="exit with 1 if a demand is not met")
    arguments = parser.parse_args()
    path = HERE / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    for part in arguments.only:
        results[part] = run(part)
        # After each part: what follows may take long, or fail.
        results = {name: results[name] for name in PARTS if name in results}
        path.write_text(json.dumps(results, indent=1) + "\n")
        (HERE / "RESULTS.md").write_text(markdown(results))
    short = [demand for part in results.values() for d in part["demands"] if not (demand := demand_of(d)).met]
    print(f"{HERE / 'RESULTS.md'}: {len(short)} demands fall short")
    if arguments.check and short:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
