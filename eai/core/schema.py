"""The top level of ``conf/train.yaml``, typed. Nodes with a ``_target_`` have their class as schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from eai.core.errors import require


@dataclass
class Monitor:
    """The validation score that chooses the best checkpoint and is returned to a sweep.

    Args:
        score: its name, ``val/…``.
        mode: whether it is best at its ``min`` or ``max``.
    """

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

    Args:
        accelerator: ``cpu`` or ``gpu``, as Lightning's Trainer names them.
        devices: processes on each node; ``auto``: one for each GPU.
        num_nodes: machines.
        strategy: of Lightning's Trainer, how processes work together.
        precision: of weights and arithmetic.
        threads: torch's on a CPU, of each process; null leaves torch's own choice.
        stop_within_seconds: once told to stop, several processes have so long to reach the end of their step and save.
        keep_freed_memory: let glibc reuse freed memory: large tensors are quicker, half as much memory again is held.
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
    """When figures are drawn.

    Args:
        every_n_epochs: into TensorBoard while training; 0: never.
        at_end: all of them, into ``figures/``; false leaves the report out too.
    """

    every_n_epochs: int = 0
    at_end: bool = True

    def __post_init__(self) -> None:
        require(self.every_n_epochs >= 0, "every_n_epochs", "0 or more", self.every_n_epochs)


@dataclass
class Reporting:
    """How often a run prints a line, and saves ``last.ckpt``: a run that is killed loses what it did since.

    Args:
        line_every_n_epochs: epochs from one printed line to the next.
        checkpoint_every_n_epochs: epochs from one ``last.ckpt`` to the next.
        checkpoint_every_n_steps, checkpoint_every_n_minutes: the same by steps, by time, beside the epochs; null: not.
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
    """What an experiment should reach.

    Args:
        source: where the value comes from.
        score: the name of a score, ``test/…``.
        at_most, at_least: the limit of its value; the other is null.
        seeds: how many of them the median is taken over.
    """

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
    """What the summary table shows.

    Args:
        score: the name of a score, ``test/…``.
        baseline: a trivial method, named in advance.
        optimum: the method that gives what is attainable; null where that is not known.
        mode: whether the score is best at its ``min`` or ``max``; null in runs of before it was asked for.
        oracles: methods that know what the network is not told; never the baseline to beat.
        rival: a strong classical method that is quick on validation data, or a pattern of its name, as ``pcg_*_tuned``;
            TensorBoard draws it beside the network, where the data have it.
    """

    score: str
    baseline: str
    optimum: str | None = None
    mode: Literal["min", "max"] | None = None
    oracles: list[str] = field(default_factory=list)
    rival: str | None = None


@dataclass
class Pruner:
    """Which trials of an Optuna search are stopped early: see Optuna's Median-, SuccessiveHalving-, HyperbandPruner.

    Args:
        name: of the rule.
        grace_epochs: no trial is stopped before.
        startup_trials: complete trials that ``median`` waits for.
        reduction_factor: ``asha`` and ``hyperband`` keep one of so many trials at each of their rungs.
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
    """The top level of ``conf/train.yaml``. Nodes with a ``_target_`` are checked by their signatures.

    Args:
        task: the name of the task; decides where runs are kept.
        data: the DataModule.
        model: the task with its net, loss and optimizer.
        trainer: arguments of ``lightning.Trainer``.
        accelerator: where and in how many processes a run computes.
        monitor: the score that chooses the best checkpoint.
        headline: the score of the summary.
        shared: what data and model have in common, as a covariance.
        callbacks: of Lightning's, by name.
        logger: beside TensorBoard, by name.
        tensorboard: whether curves and figures are written for TensorBoard.
        seed: of the weights and of all randomness in training; ``data.seed`` is the data's own.
        epochs: passes through the training data, or as many as the data call an epoch.
        validate_every_n_epochs: epochs from one validation to the next; the last epoch is always validated.
        optimization: how gradients become steps, and steps a schedule.
        figures: when figures are drawn.
        reporting: how often a run prints a line and saves.
        expect: what an experiment should reach; null: nothing is promised.
        compile: whether the net is compiled by ``torch.compile``.
        init_from: a run directory or a checkpoint to take the first weights from, nothing else.
        resume: a run directory, or a checkpoint in one, to continue from.
        objectives: what a job returns to a search.
        retry_failed: whether a sweep tries again what FAILED.
        trials: how many a search makes in all.
        pruner: which trials of a search are stopped early.
        pair: values that a sweep sets together.
    """

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
