"""Samples per second of a training step against the batch size, and steps per second against the image size.

    python -m benchmarks.sizes [--json FILE] [--seconds 1.0]

The bare loop of ``throughput`` (zero gradients, forward, loss, backward, optimizer), with the default net of each task.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from benchmarks.bare import Bare, configuration
from benchmarks.report import Result, Table, finish, middle, parser
from eai.core.configuration.resolve import resolve
from eai.core.run.memory import keep_freed_memory

BATCHES = (1, 4, 16, 64, 256, 1024)
IMAGES = (16, 28, 64, 128, 256)
# Enough samples for the largest batch, and no more.
FEW = {
    "dynamics": ["data.n_train=1024"],
    "recovery": ["data.n_train=1024"],
    "assimilation": ["data.n_train=1024"],
}


def step_seconds(overrides: list[str], budget: float) -> float:
    """The median step within ``budget`` seconds, three steps at least; the first one warms up."""
    cfg = resolve(configuration(overrides[0], *overrides[1:]))
    torch.set_num_threads(cfg.accelerator.threads or torch.get_num_threads())
    keep_freed_memory()  # as with accelerator.keep_freed_memory=true
    bare = Bare(cfg)
    batch: Any = bare.data.batch("train", cfg.data.batch_size)
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 4 or time.perf_counter() - started < budget:
        times.append(bare.timed_step(batch))
    return middle(times[1:])


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--seconds", type=float, default=1.0, help="of measuring, per cell")
    arguments = made.parse_args()
    budget = arguments.seconds
    by_batch = {
        task: {b: b / step_seconds([f"task={task}", *few, f"data.batch_size={b}"], budget) for b in BATCHES}
        for task, few in FEW.items()
    }
    small = ["task=recovery", "data.n_train=32", "data.n_val=32", "data.n_test=32"]
    by_image = {s: 1 / step_seconds([*small, f"data.height={s}", f"data.width={s}"], budget) for s in IMAGES}
    tables = [
        Table("Batch size", "Samples per second of a bare training step, one thread unless the task says otherwise.",
              ["task", *map(str, BATCHES)], [[t, *(f"{v:.0f}" for v in row.values())] for t, row in by_batch.items()]),
        Table("Image size", "Steps per second of the default U-Net, 32 images of s × s pixels.",
              ["s", *map(str, IMAGES)], [["steps/s", *(f"{v:.2f}" for v in by_image.values())]]),
    ]  # fmt: skip
    finish(Result(tables, {"samples_per_second": by_batch, "steps_per_second": by_image}), arguments)


if __name__ == "__main__":
    main()
