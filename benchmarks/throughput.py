"""Milliseconds per optimisation step: the slides' loop, a bare loop, and what `eai-train` runs.

    python -m benchmarks.throughput [--task tutorial_2_1 …] [--json FILE] [--check] [--blocks 1.0] [--threads N]
                                    [--clock wall|cpu]

``slides``  the notebook's loop (see ``slides_loops``), for the tutorial experiments only.
``bare``    the same net, loss, optimizer, samples and order of samples as ``eai``, batches ready in memory: zero the
            gradients, forward, loss, backward, optimizer step. Nothing of validation, logging or checkpoints is in it,
            nor is the making of batches.
``eai``     ``eai.core.run.run.train`` on the configuration that `eai-train` composes: Lightning, logging, the
            check that losses are finite, making batches, new samples in every epoch (``fresh`` data), validation
            and checkpoints at their default intervals. Start-up, the final test and figures do not count; the output is
            no terminal, so there is a line per interval and no progress bar.

All three take turns in one process, eai and bare with the threads that the configuration says, the notebook with those
that torch takes by itself (`--threads N`: all with N): eai's training pauses at the end of every block of epochs
and lets the other two train as many steps. A block is as long as the interval of validation and checkpoints (their
least common multiple), so that each contains its share of both. The first block warms up. Ratios are medians over
blocks of the ratio within a block.

``generation`` is the share of eai's time that makes new samples, measured as the same call on the bare side. The
ratio that is checked is eai/(bare + generation): endless data are what such an experiment asks for, and whoever
writes the loop by hand has to draw them too. eai/bare stands beside it.

`--clock cpu` counts what this process computes and not what it waits for: other work on the machine, but also the disk.

eai and bare have to end with the same training loss, from the same seed; the slides' has to be comparable, since it
draws data of its own in 2.2 and 2.3.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import lightning as L
import torch

from benchmarks import slides_loops
from benchmarks.bare import Bare, clock, configuration
from benchmarks.report import Demand, Result, Table, finish, middle, parser, spread
from eai.core.configuration.resolve import resolve
from eai.core.run import fit
from eai.core.run.run import train

# Overrides, number of blocks, the slides' loop.
EXPERIMENTS: dict[str, tuple[str, int, slides_loops.SlidesLoop | None]] = {
    "tutorial_2_1": ("experiment=tutorial_2_1", 4, slides_loops.dynamics),
    "tutorial_2_2": ("experiment=tutorial_2_2_autoencoder", 4, slides_loops.recovery),
    "tutorial_2_3": ("experiment=tutorial_2_3", 3, slides_loops.assimilation),
    "dynamics": ("task=dynamics", 3, None),
    "recovery": ("task=recovery", 4, None),
    "assimilation": ("task=assimilation", 8, None),
}
NOTEBOOK_THREADS = torch.get_num_threads()  # what torch takes by itself
FASTER_THAN_SLIDES = {"tutorial_2_1": 5.0, "tutorial_2_2": 1.8, "tutorial_2_3": 1.6}


class Turns(L.Callback):
    """Pauses eai's training after each block of epochs, lets the rivals train as much, and keeps all times."""

    def __init__(self, epochs: int, bare: Bare, slides: Iterator[float] | None, notebook_threads: int) -> None:
        self._epochs, self._bare, self._slides, self._notebook_threads = epochs, bare, slides, notebook_threads
        self._started: float | None = None
        self.ms: dict[str, list[float]] = {"slides": [], "bare": [], "eai": [], "generation": []}
        self.losses: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        # Samples of this epoch are drawn already: a block contains as many draws as epochs.
        now = clock()
        if trainer.current_epoch % self._epochs:
            return
        if self._started is not None:
            with torch.random.fork_rng(devices=[]):
                self._rivals(now - self._started)
            self.losses["eai"] = pl_module.latest["train/loss"]
        self._started = clock()

    def _rivals(self, eai: float) -> None:
        deterministic = torch.are_deterministic_algorithms_enabled()
        bare, generation = self._bare.train(self._epochs)
        steps, self.losses["bare"] = self._bare.steps, self._bare.loss
        slides = math.nan
        if self._slides is not None:
            # A notebook does not ask for deterministic algorithms, as our Trainer does for the whole process, and
            # takes the threads that torch gives it.
            threads = torch.get_num_threads()
            torch.use_deterministic_algorithms(False)
            torch.set_num_threads(self._notebook_threads)
            started = clock()
            losses = [next(self._slides) for _ in range(steps)]
            slides = clock() - started
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(deterministic)
            self.losses["slides"] = sum(losses[-10:]) / 10
        for name, seconds in (("slides", slides), ("bare", bare), ("eai", eai), ("generation", generation)):
            self.ms[name].append(seconds / steps * 1e3)


@contextmanager
def with_callback(callback: L.Callback) -> Iterator[None]:
    """Inside, training has one more callback and ends where it would score and draw."""
    build = fit.build_trainer

    def build_with(cfg: Any, run: Any, callbacks: list[Any], *rest: Any, **named: Any) -> L.Trainer:
        return build(cfg, run, [*callbacks, callback], *rest, **named)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(fit, "build_trainer", build_with))
        stack.enter_context(mock.patch.object(fit, "score_and_report"))
        yield


def measure(name: str, scale: float, threads: int | None, seed: int = 0) -> dict[str, Any]:
    """Times of every block but the first, and the losses at the end."""
    override, blocks, loop = EXPERIMENTS[name]
    plain = configuration(override)
    epochs = math.lcm(plain.validate_every_n_epochs, plain.reporting.checkpoint_every_n_epochs)
    blocks = max(2, round(blocks * scale)) + 1
    further = [f"epochs={blocks * epochs + 1}", f"seed={seed}"]
    further += [f"accelerator.threads={threads}"] if threads else []
    cfg = configuration(override, *further)
    torch.set_num_threads(cfg.accelerator.threads or NOTEBOOK_THREADS)
    bare = Bare(resolve(cfg))
    turns = Turns(epochs, bare, loop(bare.task.net) if loop else None, threads or NOTEBOOK_THREADS)
    with tempfile.TemporaryDirectory() as folder, with_callback(turns):
        train(cfg, Path(folder) / "run")
    ms = {key: values[1:] for key, values in turns.ms.items()}
    check_losses(name, turns.losses)
    return {"threads": cfg.accelerator.threads, "ms": ms, "losses": turns.losses, **ratios(ms)}


def check_losses(name: str, losses: dict[str, float]) -> None:
    """Both sides do the same arithmetic in the same order; the slides' loop learns about as much."""
    eai, bare, slides = losses["eai"], losses["bare"], losses.get("slides")
    assert math.isclose(eai, bare, rel_tol=1e-5), f"{name}: eai ends at loss {eai}, bare at {bare}"
    # Slide 2.1's loss jumps by an order of magnitude from step to step, and the two start from other weights.
    assert slides is None or 1 / 30 < slides / eai < 30, f"{name}: eai ends at loss {eai}, the slides' loop at {slides}"


def ratios(ms: dict[str, list[float]]) -> dict[str, float]:
    """Medians over blocks of the ratios within a block."""
    blocks = list(zip(*(ms[key] for key in ("slides", "bare", "eai", "generation")), strict=True))
    return {
        "eai_to_bare": middle([e / b for _, b, e, _ in blocks]),
        "eai_to_bare_and_generation": middle([e / (b + g) for _, b, e, g in blocks]),
        "generation_share": middle([g / e for _, _, e, g in blocks]),
        "slides_to_eai": middle([s / e for s, _, e, _ in blocks]),
    }


def demands(found: dict[str, dict[str, Any]]) -> list[Demand]:
    made = []
    for name, one in found.items():
        bound = 1.10 if middle(one["ms"]["bare"]) >= 2 else 1.25
        made.append(Demand(f"{name}, eai/(bare + generation)", one["eai_to_bare_and_generation"], bound))
        if name in FASTER_THAN_SLIDES:
            made.append(Demand(f"{name}, slides/eai", one["slides_to_eai"], FASTER_THAN_SLIDES[name], at_most=False))
    return made


def table(found: dict[str, dict[str, Any]]) -> Table:
    rows = []
    for name, one in found.items():
        ms, has_slides = one["ms"], name in FASTER_THAN_SLIDES
        rows.append([
            name, spread(ms["slides"]) if has_slides else "–", spread(ms["bare"]), spread(ms["eai"]),
            f"{one['generation_share']:.0%}", f"{one['eai_to_bare_and_generation']:.2f}", f"{one['eai_to_bare']:.2f}",
            f"{one['slides_to_eai']:.1f}" if has_slides else "–", f"{one['losses']['eai']:.3g}",
        ])  # fmt: skip
    note = "Milliseconds per optimisation step, median (smallest–largest); definitions in `benchmarks/throughput.py`."
    columns = ["experiment", "slides", "bare", "eai", "generation", "eai/(bare+gen.)", "eai/bare", "slides/eai", "loss"]
    return Table("Throughput", note, columns, rows)


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--task", nargs="*", choices=list(EXPERIMENTS), default=list(EXPERIMENTS))
    made.add_argument("--blocks", type=float, default=1.0, help="times the usual number of blocks")
    made.add_argument("--threads", type=int, help="instead of what each configuration says")
    made.add_argument("--clock", choices=list(clock.KINDS), default="wall")
    arguments: argparse.Namespace = made.parse_args()
    clock.kind = arguments.clock
    found = {name: measure(name, arguments.blocks, arguments.threads) for name in arguments.task}
    finish(Result([table(found)], found, demands(found)), arguments)


if __name__ == "__main__":
    main()
