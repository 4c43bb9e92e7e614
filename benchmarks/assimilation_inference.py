"""Seconds per analysis: exact solver, conjugate gradients and networks, by size of the grid and of the batch.

    python -m benchmarks.assimilation_inference [--json FILE] [--repeats 5] [--threads 1]

All methods analyse the same batches; they take turns, so that a slow spell of the machine hits all alike. Networks are
untrained: their time does not depend on their weights. One observation per 3.33 grid points, as in the default task.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.report import Result, Table, finish, middle, parser
from eai.tasks.assimilation.data import Curves, Twin
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.covariance import GaussianCovariance
from eai.variational.nets import CircularConvolution, IncrementMLP
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import PointValue
from eai.variational.solver import UnrolledSolver, conjugate_gradients

SIZES = (60, 256, 1024, 4096)
BATCHES = (1, 32, 1024)
LARGEST = 2**25  # numbers in the exact solver's p × p matrices of a batch, 256 MiB, and in a batch of states


def methods(cost: VariationalCost, n: int) -> dict[str, Callable[[Batch], Tensor]]:
    convolution = CircularConvolution(cost)
    nets: dict[str, Callable[[Batch], Tensor]] = {
        "exact": cost.minimiser,
        "pcg, 6 steps": lambda batch: conjugate_gradients(cost, batch, 6),
        "convolution": convolution.eval(),
        "convolution, 6 steps": UnrolledSolver(cost, convolution).eval(),
    }
    if n <= 1024:  # its weights grow with n
        nets["MLP, 6 steps"] = UnrolledSolver(cost, IncrementMLP(cost)).eval()
    return nets


@torch.no_grad()
def time_methods(n: int, count: int, repeats: int) -> dict[str, float]:
    """Median microseconds per analysis of each method that fits."""
    p = 18 * n // 60
    cost = VariationalCost(GaussianCovariance(n), PointValue(), ObservationError())
    twin = Twin(
        cost.covariance, cost.operator, cost.obs_error, ObservationNetwork(p), Curves(),
        n=n, n_train=1, n_val=1, n_test=count,
    )  # fmt: skip
    batch = twin.batch("test")
    chosen = {
        name: f for name, f in methods(cost, n).items() if count * (p * p if name == "exact" else 24 * n) <= LARGEST
    }
    seconds: dict[str, list[float]] = {name: [] for name in chosen}
    for turn in range(repeats + 1):
        for name, method in chosen.items():
            started = time.perf_counter()
            method(batch)
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - started)
    return {name: middle(times) / count * 1e6 for name, times in seconds.items()}


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--threads", type=int, default=1)
    arguments = made.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {(n, count): time_methods(n, count, arguments.repeats) for n in SIZES for count in BATCHES}
    names = ["exact", "pcg, 6 steps", "convolution", "convolution, 6 steps", "MLP, 6 steps"]
    rows = [
        [str(n), str(count), *(f"{row[name]:.0f}" if name in row else "–" for name in names)]
        for (n, count), row in found.items()
    ]
    note = f"Microseconds per analysis, median of {arguments.repeats}, {arguments.threads} thread(s)."
    table = Table("Inference of the assimilation", note, ["n", "batch", *names], rows)
    values = [{"n": n, "batch": count, **row} for (n, count), row in found.items()]
    finish(Result([table], {"microseconds": values}), arguments)


if __name__ == "__main__":
    main()
