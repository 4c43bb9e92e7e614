"""Seconds per analysis on planes of 32² to 512² points: a net, conjugate gradients to its J/J*, the exact solver.

    python -m benchmarks.assimilation_2d [--run DIR] [--json FILE] [--repeats 5] [--samples 8] [--threads 1]

The net is that of a run of experiment=assimilation_2d, trained at 48² points; without --run it is trained first, which
takes minutes. The domain, B and the 200 observations are the same on every grid; analyses are made one at a time.
Conjugate gradients take as many steps as bring J/J* to the net's or below, with B as preconditioner and with
(B⁻¹ + s ρ)⁻¹, s tuned on two validation samples of each grid. Methods take turns. The exponent is that of the number
of points in the seconds, between the two largest grids. A second table has 256² points and 50 to 2,000 observations,
of which the net has seen 200 in training.
"""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import eai
from benchmarks.commands import environment
from benchmarks.report import Result, Table, finish, middle, parser
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.solver import best_scale, conjugate_gradients

SIDES = (32, 64, 128, 256, 512)
NUMBERS = (50, 200, 800, 2000)  # of observations, on 256² points
MOST = 100  # steps of conjugate gradients
TIMED = ("net", "pcg", "pcg_tuned", "exact")
Method = Callable[[Batch], Tensor]


def train(folder: Path) -> Path:
    command = [sys.executable, "-W", "ignore", "-m", "eai.train", "experiment=assimilation_2d", "figures.at_end=false"]
    subprocess.run([*command, f"hydra.run.dir={folder}"], env=environment(), check=True)
    return folder


def steps_to(cost: VariationalCost, batch: Batch, ratio: float, scale: float | None) -> int:
    """The least number of steps after which ΣJ/ΣJ* is ``ratio`` or below."""
    minimum = cost.minimum(batch).sum()
    low, high = 0, MOST  # J falls from step to step
    while high - low > 1:
        steps = (low + high) // 2
        reached = float(cost.total(conjugate_gradients(cost, batch, steps, scale), batch).sum() / minimum) <= ratio
        low, high = (low, steps) if reached else (steps, high)
    return high


def seconds_of(methods: dict[str, Method], batch: Batch, repeats: int) -> dict[str, float]:
    """Median seconds per analysis, one sample at a time."""
    one = [Batch(*(field[i : i + 1] for field in batch)) for i in range(len(batch.xb))]
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for turn in range(repeats + 1):
        for name, method in methods.items():
            started = time.perf_counter()
            method(one[turn % len(one)])
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - started)
    return {name: middle(times) for name, times in seconds.items()}


@torch.no_grad()
def measure(run: Path, side: int, p: int, samples: int, repeats: int) -> dict[str, float]:
    sizes = [f"data.network.p={p}", "data.n_train=1", "data.n_val=2", f"data.n_test={samples}", "data.batch_size=1"]
    loaded = eai.load_run(str(run), overrides=[f"data.n.shape=[{side},{side}]", *sizes])
    cost, net, batch = loaded.module.cost, loaded.module.net, loaded.data.batch("test")
    ratio = float(cost.total(net(batch), batch).sum() / cost.minimum(batch).sum())
    scale = best_scale(cost, loaded.data.batch("val"), net.steps)
    plain, tuned = steps_to(cost, batch, ratio, None), steps_to(cost, batch, ratio, scale)
    methods: dict[str, Method] = {
        "net": net,
        "pcg": lambda one: conjugate_gradients(cost, one, plain),
        "pcg_tuned": lambda one: conjugate_gradients(cost, one, tuned, scale),
        "exact": cost.minimiser,
    }
    return {"j_ratio": ratio, "pcg_steps": plain, "pcg_tuned_steps": tuned, **seconds_of(methods, batch, repeats)}


def cells(name: str, row: dict[str, float]) -> list[str]:
    times = (f"{row[method] * 1e3:.1f}" for method in TIMED)
    return [name, f"{row['j_ratio']:.4f}", *times, f"{row['pcg_steps']:.0f}", f"{row['pcg_tuned_steps']:.0f}"]


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--run", type=Path, help="a run of experiment=assimilation_2d")
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--samples", type=int, default=8)
    made.add_argument("--threads", type=int, default=1)
    arguments = made.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        run = arguments.run or train(Path(folder) / "run")
        found = {side: measure(run, side, 200, arguments.samples, arguments.repeats) for side in SIDES}
        denser = {p: measure(run, 256, p, min(2, arguments.samples), arguments.repeats) for p in NUMBERS}
    small, large = (found[side] for side in SIDES[-2:])
    points = math.log(SIDES[-1] ** 2 / SIDES[-2] ** 2)
    exponents = {name: math.log(large[name] / small[name]) / points for name in TIMED}
    rows = [cells(f"{side}²", row) for side, row in found.items()]
    rows.append(["exponent", "", *(f"{exponents[name]:.2f}" for name in TIMED), "", ""])
    columns = ["J/J* of the net", "net (ms)", "PCG, B (ms)", "PCG, tuned (ms)", "exact (ms)", "steps, B",
               "steps, tuned"]  # fmt: skip
    note = (
        f"Milliseconds per analysis, median of {arguments.repeats}, {arguments.threads} thread(s); PCG to the net's "
        "J/J*, exact to 1."
    )
    tables = [
        Table("Analyses on planes of n points, 200 observations", note, ["n", *columns], rows),
        Table("Analyses on 256² points of p observations", note, ["p", *columns],
              [cells(f"{p:,}", row) for p, row in denser.items()]),
    ]  # fmt: skip
    finish(Result(tables, {"points": found, "observations": denser, "exponents": exponents}), arguments)


if __name__ == "__main__":
    main()
