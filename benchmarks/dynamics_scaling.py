"""Seconds and memory of one training step of the dynamics networks, by number of grid points.

    python -m benchmarks.dynamics_scaling [--json FILE] [--check] [--repeats 5] [--threads 1] [--largest 1000000]

One trajectory, one rollout of two steps, forward, backward and optimizer. Every size runs in a process of its own, so
that its peak memory is its own; the exponent is the slope of log(seconds) against log(points) from 1,000 points on:
below, a step is all overhead, and does not grow. The first step, which gets its memory from the system, warms up; a
million points are timed once after it.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from benchmarks.report import Demand, Result, Table, finish, middle, parser

SIZES = (100, 1_000, 10_000, 100_000, 1_000_000)
NETS = ("stencil", "interaction")


def measure(net_name: str, nx: int, repeats: int, threads: int) -> dict[str, float]:
    """Median seconds of a training step, and peak memory of the process in MiB."""
    import torch

    from eai.core.run.memory import keep_freed_memory
    from eai.tasks.dynamics.advection import Fourier
    from eai.tasks.dynamics.forecast import RolloutMSE, Unroll
    from eai.tasks.dynamics.graphs import ring
    from eai.tasks.dynamics.nets import InteractionNetwork, LearnedStencil

    torch.set_num_threads(threads)
    keep_freed_memory()  # as with accelerator.keep_freed_memory=true
    speed = 2 * math.pi * 2.387 / nx
    data = Fourier(nx=nx, speed=speed, n_train=1, n_val=1, n_test=1, nt=3, nt_test=2, batch_size=1)
    batch = data.batch("train")
    stencil = LearnedStencil(ring(nx, 6))
    net = stencil if net_name == "stencil" else InteractionNetwork(ring(nx, 3), 2, 16, linear=stencil)
    net.fit_scales(batch)
    unroll, loss, optimizer = Unroll(steps=2), RolloutMSE(), torch.optim.AdamW(net.parameters())
    seconds = []
    for _ in range(repeats + 1 if nx < SIZES[-1] else 2):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss(unroll(net, batch, 0, True), batch)["mse"].mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": middle(seconds[1:]), "peak_mib": peak}


def in_own_process(net_name: str, nx: int, repeats: int, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--one", net_name, str(nx)]
    command += ["--repeats", str(repeats), "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def exponent(seconds: dict[int, float]) -> float:
    """Slope of log(seconds) against log(points), from 1,000 points on."""
    sizes = [nx for nx in seconds if nx >= 1_000]
    return float(np.polyfit(np.log(sizes), np.log([seconds[nx] for nx in sizes]), 1)[0])


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--largest", type=int, default=SIZES[-1])
    made.add_argument("--one", nargs=2, metavar=("NET", "NX"), help=argparse.SUPPRESS)
    arguments = made.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), arguments.repeats, arguments.threads)))
        return
    rows, values, demands = [], {}, []
    for name in NETS:
        sizes = [nx for nx in SIZES if nx <= arguments.largest]
        found: dict[int, Any] = {nx: in_own_process(name, nx, arguments.repeats, arguments.threads) for nx in sizes}
        slope = exponent({nx: row["seconds"] for nx, row in found.items()})
        for nx, row in found.items():
            seconds = row["seconds"]
            rows.append([name, f"{nx:,}", f"{1 / seconds:.3g}", f"{seconds * 1e3:.1f}",
                         f"{seconds / nx * 1e9:.0f}", f"{row['peak_mib']:.0f}", f"{slope:.2f}"])  # fmt: skip
        values[name] = {"by_nx": found, "exponent": slope}
        demands.append(Demand(f"{name}, exponent of a dynamics step in nx", slope, 1.1))
    note = f"One training step on a ring of nx points, {arguments.threads} thread(s)."
    columns = ["net", "nx", "steps/s", "ms/step", "ns/point", "peak MiB", "exponent"]
    finish(Result([Table("Size of the grid", note, columns, rows)], values, demands), arguments)


if __name__ == "__main__":
    main()
