"""Seconds before anything is learned: `--help`, TAB, first optimisation step; and the memory of a run.

    python -m benchmarks.startup [--json FILE] [--check] [--repeats 5]

Each is a process of its own, started from a warm disk cache. "First step" runs until the line that reports an
epoch of a single step and a single validation batch: a little more than the step itself. Memory is the peak of a whole
run of one epoch with test and figures, beside that of importing torch and lightning.
"""

from __future__ import annotations

from benchmarks.commands import peak_mib, seconds_of, seconds_until
from benchmarks.report import Demand, Result, Table, finish, middle, parser, spread

TASKS = ("dynamics", "recovery", "assimilation")
ONE_STEP = ["epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1"]
ONE_STEP += ["figures.at_end=false"]
COMPLETION = {"COMP_LINE": "eai-train task=", "COMP_CWORD": "1", "COMP_POINT": "15"}


def start_times(repeats: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in ("--help", "TAB", *(f"first step, {t}" for t in TASKS))}
    for turn in range(repeats + 1):
        found = {
            "--help": seconds_of(["-m", "eai.train", "--help"]),
            "TAB": seconds_of(["-m", "eai.train", "-sc", "query=bash"], COMPLETION),
            **{f"first step, {t}": seconds_until([f"task={t}", *ONE_STEP])[0] for t in TASKS},
        }
        for name, value in found.items() if turn else ():  # the first turn warms the disk cache
            seconds[name].append(value)
    return seconds


def memory() -> dict[str, float]:
    """MiB at the peak."""
    found = {"import torch, lightning": peak_mib(["-c", "import torch, lightning"])}
    for task in TASKS:
        found[f"one epoch, {task}"] = peak_mib(["-m", "eai.train", f"task={task}", "epochs=1"])
    return found


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=5)
    arguments = made.parse_args()
    seconds, mib = start_times(arguments.repeats), memory()
    bounds = {"--help": 0.8, "TAB": 0.5}
    demands = [Demand(f"{name}, seconds", middle(times), bounds.get(name, 6.0)) for name, times in seconds.items()]
    tables = [
        Table("Start-up", f"Seconds from the command, median (smallest–largest) of {arguments.repeats}.",
              ["", "seconds"], [[name, spread(times)] for name, times in seconds.items()]),
        Table("Memory", "Peak resident memory of a process, MiB.", ["", "MiB"],
              [[name, f"{value:.0f}"] for name, value in mib.items()]),
    ]  # fmt: skip
    finish(Result(tables, {"seconds": seconds, "mib": mib}, demands), arguments)


if __name__ == "__main__":
    main()
