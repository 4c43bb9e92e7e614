"""Seconds of training with one process and with two on the same machine.

    python -m benchmarks.processes [--json FILE]

`eai-train` as a command, with one thread per process; seconds of training are from `status.json`, so without start-up.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.commands import environment
from benchmarks.report import Result, Table, finish, parser
from eai.core.directory import RunDirectory
from eai.core.files import read_json

RUNS = {
    "dynamics": ["task=dynamics", "epochs=20"],
    "recovery": ["task=recovery", "epochs=2"],
    "assimilation": ["task=assimilation", "epochs=4"],
}
TWO = ["accelerator=ddp_cpu", "accelerator.devices=2"]


def train_seconds(overrides: list[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "eai.train", f"hydra.run.dir={run}", "figures.at_end=false", *overrides]
        subprocess.run(command, cwd=folder, env=environment(), check=True, capture_output=True)
        return float(read_json(RunDirectory(run).status)["train_seconds"])


def main() -> None:
    arguments = parser(__doc__).parse_args()
    found = {}
    for task, overrides in RUNS.items():
        # The same number of samples per optimisation step on both sides.
        found[task] = {1: train_seconds(overrides), 2: train_seconds([*overrides, *TWO])}
    rows = [[task, f"{s[1]:.1f}", f"{s[2]:.1f}", f"{s[1] / s[2]:.2f}"] for task, s in found.items()]
    note = "Seconds of training the same epochs; two processes share each epoch's samples."
    table = Table("Processes", note, ["task", "1 process", "2 processes", "times faster"], rows)
    finish(Result([table], {"seconds": found}), arguments)


if __name__ == "__main__":
    main()
