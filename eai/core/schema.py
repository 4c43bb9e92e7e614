"""The top level of ``conf/train.yaml``, typed. Nodes with a ``_target_`` have their class as schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from eai.core.errors import require


@dataclass
class Monitor:
    """The validation score that chooses the best checkpoint and is returned to a sweep."""

    score: str
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        require(self.score.startswith("val/"), "score", "a validation score, val/…", self.score)


@dataclass
class Accelerator:
    """Where a run computes. ``threads`` are torch's on a CPU; null leaves torch's own choice."""

    accelerator: str
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = None

    def __post_init__(self) -> None:
        require(self.threads is None or self.threads >= 1, "threads", "null or at least 1", self.threads)
        require(
            self.devices in (1, "auto"), "devices", "1 (several processes per run are not supported yet)", self.devices
        )
        require(self.num_nodes == 1, "num_nodes", "1 (several nodes per run are not supported yet)", self.num_nodes)


@dataclass
class FigureSchedule:
    """When figures are drawn: every so many epochs into TensorBoard (0: never), and all of them ``at_end``."""

    every_n_epochs: int = 0
    at_end: bool = True

    def __post_init__(self) -> None:
        require(self.every_n_epochs >= 0, "every_n_epochs", "0 or more", self.every_n_epochs)


@dataclass
class Reporting:
    """How often a run says where it stands: a line, and ``last.ckpt``."""

    line_every_n_epochs: int = 1
    checkpoint_every_n_epochs: int = 1

    def __post_init__(self) -> None:
        for name in ("line_every_n_epochs", "checkpoint_every_n_epochs"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))


@dataclass
class Expectation:
    """What an experiment should reach: ``score`` at most or at least so much, as the median of ``seeds`` seeds."""

    source: str
    score: str
    at_most: float | None = None
    at_least: float | None = None
    seeds: int = 3

    def met_by(self, value: float) -> bool:
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        bounds = [f"≥ {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"≤ {self.at_most:g}"] if self.at_most is not None else []
        return f"{self.score} {' and '.join(bounds)} ({self.source})"


@dataclass
class Headline:
    """What the summary table shows: ``score``, the ``baseline`` to beat, and the ``optimum``, if known."""

    score: str
    baseline: str
    optimum: str | None = None


@dataclass
class Experiment:
    """The top level of ``conf/train.yaml``. Nodes with a ``_target_`` are checked by their signatures."""

    task: str
    data: dict[str, Any]
    model: dict[str, Any]
    trainer: dict[str, Any]
    accelerator: Accelerator
    monitor: Monitor
    headline: Headline
    shared: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    epochs: int = 20
    validate_every_n_epochs: int = 1
    figures: FigureSchedule = field(default_factory=FigureSchedule)
    reporting: Reporting = field(default_factory=Reporting)
    expect: Expectation | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", "0 or more", self.seed)
        require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        every = self.validate_every_n_epochs
        require(1 <= every <= self.epochs, "validate_every_n_epochs", f"1 … epochs = {self.epochs}", every)
