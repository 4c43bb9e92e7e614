"""Everything that happens before training."""

from __future__ import annotations

from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.run.build import build_data_and_task, preflight
from tests.runs import composed


def prepare(*overrides: str) -> None:
    """Compose, check and build what the overrides say; raise what a user would see."""
    cfg = resolve(composed("train", overrides))
    experiment = check_experiment(cfg)
    data, task = build_data_and_task(cfg, experiment)
    preflight(experiment, data, task)
