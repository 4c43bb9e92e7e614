"""Small jobs of sweeps, and where the sweep of a command is."""

from __future__ import annotations

from pathlib import Path

from tests.core.jobs import only
from tests.runs import TINY

QUICK = (*TINY, "figures.at_end=false")
SOLVER = (
    "data.n=13", "data.network.p=5", "data.network.withheld=2", "data.n_train=30", "data.n_val=7", "data.n_test=11",
    "data.batch_size=4", "model.net.first_guess.width=9", "epochs=2",
)  # fmt: skip


def sweep_of(folder: Path) -> Path:
    return only((folder / "outputs" / "sweeps").iterdir())
