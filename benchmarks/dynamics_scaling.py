"""Seconds and memory of one training step of the dynamics networks, by number of grid points.

    python -m benchmarks.dynamics_scaling [--json FILE] [--repeats 5] [--threads 1] [--largest 1000000]

One trajectory, one rollout of two steps, forward, backward and optimizer. Every size runs in a process of its own, so
that its peak memory is its own; the exponent is the slope of log(seconds) against log(points) from 1,000 points on.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

SIZES = (1_000, 10_000, 100_000, 1_000_000)
NETS = ("stencil", "interaction")


def measure(net_name: str, nx: int, repeats: int, threads: int) -> dict[str, float]:
    """Median seconds of a training step, and peak memory of the process in MiB."""
    import torch

    from eai.tasks.dynamics.advection import Fourier
    from eai.tasks.dynamics.forecast import RolloutMSE, Unroll
    from eai.tasks.dynamics.graphs import ring
    from eai.tasks.dynamics.nets import InteractionNetwork, LearnedStencil

    torch.set_num_threads(threads)
    speed = 2 * math.pi * 2.387 / nx
    data = Fourier(nx=nx, speed=speed, n_train=1, n_val=1, n_test=1, nt=3, nt_test=2, batch_size=1)
    batch = data.batch("train")
    stencil = LearnedStencil(ring(nx, 6))
    net = stencil if net_name == "stencil" else InteractionNetwork(ring(nx, 3), 2, 16, linear=stencil)
    net.fit_scales(batch)
    unroll, loss, optimizer = Unroll(steps=2), RolloutMSE(), torch.optim.AdamW(net.parameters())
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        optimizer.zero_grad()
        loss(unroll(net, batch, 0, True), batch)["mse"].mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": statistics.median(seconds[1:]), "peak_mib": peak}


def in_own_process(net_name: str, nx: int, repeats: int, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", __spec__.name, "--one", net_name, str(nx)]
    command += ["--repeats", str(repeats), "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--largest", type=int, default=SIZES[-1])
    parser.add_argument("--one", nargs=2, metavar=("NET", "NX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), arguments.repeats, arguments.threads)))
        return
    sizes = [nx for nx in SIZES if nx <= arguments.largest]
    result: dict[str, object] = {"machine": platform.processor() or platform.machine(), "threads": arguments.threads}
    print(f"{'net':<12}{'nx':>10}{'ms/step':>12}{'ns/point':>12}{'peak MiB':>12}")
    for name in NETS:
        rows = {nx: in_own_process(name, nx, arguments.repeats, arguments.threads) for nx in sizes}
        for nx, row in rows.items():
            per_point = row["seconds"] / nx * 1e9
            print(f"{name:<12}{nx:>10,}{row['seconds'] * 1e3:>12.1f}{per_point:>12.0f}{row['peak_mib']:>12.0f}")
        exponent = np.polyfit(np.log(sizes), np.log([row["seconds"] for row in rows.values()]), 1)[0]
        print(f"{name:<12}exponent {exponent:.2f}")
        result[name] = {"by_nx": rows, "exponent": float(exponent)}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
