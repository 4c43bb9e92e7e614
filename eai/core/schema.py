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
class Optimization:
    """How gradients become steps, and steps a schedule.

    Args:
        clip_norm: largest Euclidean norm of all gradients together; larger ones are scaled down to it. None: no limit.
        accumulate: batches whose mean gradient makes one optimisation step.
        schedule_every: ``epoch`` or ``step``: when the learning-rate schedule moves on.
    """

    clip_norm: float | None = None
    accumulate: int = 1
    schedule_every: Literal["epoch", "step"] = "epoch"

    def __post_init__(self) -> None:
        require(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "null or above 0", self.clip_norm)
        require(self.accumulate >= 1, "accumulate", "at least 1", self.accumulate)


@dataclass
class Accelerator:
    """Where a run computes, and in how many processes: ``devices`` on each of ``num_nodes``.

    ``threads`` are torch's on a CPU, of each process; null leaves torch's own choice. Once told to stop, several
    processes have ``stop_within_seconds`` to reach the end of their step and save. ``keep_freed_memory`` lets glibc
    reuse freed memory instead of returning it: large tensors are quicker, and half as much memory again is held.
    """

    accelerator: str
    devices: int | Literal["auto"] = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: Literal["32-true", "64-true", "16-mixed", "bf16-mixed"] = "32-true"
    threads: int | None = None
    stop_within_seconds: float = 12.0
    keep_freed_memory: bool = False

    def __post_init__(self) -> None:
        require(self.threads is None or self.threads >= 1, "threads", "null or at least 1", self.threads)
        require(self.devices == "auto" or int(self.devices) >= 1, "devices", "auto or at least 1", self.devices)
        require(self.num_nodes >= 1, "num_nodes", "at least 1", self.num_nodes)
        require(self.stop_within_seconds > 0, "stop_within_seconds", "above 0", self.stop_within_seconds)


@dataclass
class FigureSchedule:
    """When figures are drawn: every so many epochs into TensorBoard (0: never), and all of them ``at_end``."""

    every_n_epochs: int = 0
    at_end: bool = True

    def __post_init__(self) -> None:
        require(self.every_n_epochs >= 0, "every_n_epochs", "0 or more", self.every_n_epochs)


@dataclass
class Reporting:
    """How often a run prints a line, and saves ``last.ckpt`` (after epochs, and optionally steps and minutes).

    A run that is killed outright loses what it did since that checkpoint.
    """

    line_every_n_epochs: int = 1
    checkpoint_every_n_epochs: int = 1
    checkpoint_every_n_steps: int | None = None
    checkpoint_every_n_minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("line_every_n_epochs", "checkpoint_every_n_epochs"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        steps, minutes = self.checkpoint_every_n_steps, self.checkpoint_every_n_minutes
        require(steps is None or steps >= 1, "checkpoint_every_n_steps", "null or at least 1", steps)
        require(minutes is None or minutes > 0, "checkpoint_every_n_minutes", "null or above 0", minutes)


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
    """What the summary table shows: ``score``, a ``baseline`` named in advance, and the ``optimum``, if known.

    ``oracles`` are methods that know what the network is not told; they are never the baseline to beat. ``mode`` says
    whether the score is best at its ``min`` or ``max``; null in runs of before it was asked for.
    """

    score: str
    baseline: str
    optimum: str | None = None
    mode: Literal["min", "max"] | None = None
    oracles: list[str] = field(default_factory=list)


@dataclass
class Pruner:
    """Which trials of an Optuna search are stopped early: see Optuna's Median-, SuccessiveHalving-, HyperbandPruner.

    No trial is stopped before ``grace_epochs`` epochs. ``median`` waits for ``startup_trials`` complete trials;
    ``asha`` and ``hyperband`` keep one of ``reduction_factor`` trials at each of their rungs.
    """

    name: Literal["none", "median", "asha", "hyperband"] = "none"
    grace_epochs: int = 1
    startup_trials: int = 5
    reduction_factor: int = 3

    def __post_init__(self) -> None:
        require(self.grace_epochs >= 1, "grace_epochs", "at least 1", self.grace_epochs)
        require(self.startup_trials >= 0, "startup_trials", "0 or more", self.startup_trials)
        require(self.reduction_factor >= 2, "reduction_factor", "at least 2", self.reduction_factor)


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
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    tensorboard: bool = True
    seed: int = 0
    epochs: int = 20
    validate_every_n_epochs: int = 1
    optimization: Optimization = field(default_factory=Optimization)
    figures: FigureSchedule = field(default_factory=FigureSchedule)
    reporting: Reporting = field(default_factory=Reporting)
    expect: Expectation | None = None
    compile: bool = False
    init_from: str | None = None
    resume: str | None = None
    objectives: list[Literal["score", "parameters", "seconds"]] = field(default_factory=lambda: ["score"])
    retry_failed: bool = False
    trials: int = 20
    pruner: Pruner = field(default_factory=Pruner)
    pair: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", "0 to 2**32 - 1", self.seed)
        require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        require(len(self.objectives) >= 1, "objectives", "at least one", self.objectives)
        require(self.trials >= 1, "trials", "at least 1", self.trials)
        every = self.validate_every_n_epochs
        require(every >= 1, "validate_every_n_epochs", "at least 1", every)
