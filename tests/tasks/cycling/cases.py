"""Small cycles for tests."""

from __future__ import annotations

from typing import Any

from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.run.build import build_data_and_task
from eai.systems.lorenz import Lorenz96
from eai.systems.ring import Ring
from eai.systems.system import System
from eai.tasks.cycling.data import Cycles
from eai.tasks.cycling.task import Cycling
from eai.variational.networks import ObservationNetwork, RegularNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import PointValue
from tests.runs import composed

N = 12
TINY = (
    "task=cycling",
    "data.n=8",
    "data.batch_size=3",
    "data.windows=4",
    "data.window=5",
    "data.n_val=2",
    "data.n_test=2",
    "data.steps_val=12",
    "data.steps_test=14",
    "data.spin_up=4",
    "model.net.width=6",
    "model.net.memory=3",
    "epochs=2",
    "validate_every_n_epochs=1",
    "figures.at_end=false",
)


def cycles(system: System | None = None, network: ObservationNetwork | None = None, **changed: Any) -> Cycles:
    """Cycles of a ring of 12 points, all observed."""
    system = system or Ring(N)
    error = changed.pop("obs_error", ObservationError(0.5))
    sizes = {"windows": 2, "window": 6, "n_val": 4, "n_test": 4, "steps_val": 40, "steps_test": 40, "spin_up": 10}
    return Cycles(
        system,
        network or RegularNetwork(system.n),
        PointValue(),
        error,
        n=system.n,
        **{**sizes, "batch_size": 4} | changed,
    )


def lorenz(**changed: Any) -> Cycles:
    return cycles(Lorenz96(n=N), **changed)


def of(*overrides: str) -> tuple[Cycles, Cycling]:
    """Data and task of a small run."""
    cfg = resolve(composed("train", [*TINY, *overrides]))
    data, task = build_data_and_task(cfg, check_experiment(cfg))
    assert isinstance(data, Cycles)
    assert isinstance(task, Cycling)
    data.setup()
    return data, task
