"""A bare training loop over what `eai-train` trains, and the clock that it and its rivals are timed with."""

from __future__ import annotations

import math
import time
from functools import reduce
from operator import add
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from eai.core.cli import CONFIG_DIR
from eai.core.configuration.check import check_experiment
from eai.core.run.build import build_data_and_task, seed_everything


class Clock:
    """Seconds, of the wall or of this process on a processor."""

    KINDS = {"wall": time.perf_counter, "cpu": time.process_time}  # noqa: RUF012

    def __init__(self) -> None:
        self.kind = "wall"

    def __call__(self) -> float:
        return self.KINDS[self.kind]()


clock = Clock()


def configuration(override: str, *further: str) -> DictConfig:
    """What `eai-train` composes, without figures and expectation."""
    with initialize_config_dir(CONFIG_DIR):
        return compose("train", [override, "figures.every_n_epochs=0", "expect=null", *further])


class Bare:
    """A plain loop over what eai trains, a given number of epochs at a time."""

    def __init__(self, cfg: DictConfig) -> None:
        experiment = check_experiment(cfg)
        self.data, self.task = build_data_and_task(cfg, experiment)
        self.data.setup()
        made = self.task.configure_optimizers()
        self._optimizer = made["optimizer"] if isinstance(made, dict) else made
        self._scheduler = made["lr_scheduler"] if isinstance(made, dict) else None
        self._loader, self._epoch = self.data.train_dataloader().loader, 0
        self.task.train()
        seed_everything(experiment.seed)
        self._random = torch.get_rng_state()
        self.steps, self.loss, self._loss = 0, math.nan, torch.zeros(())

    def train(self, epochs: int) -> tuple[float, float]:
        """Seconds of the steps, and of generating samples."""
        torch.set_rng_state(self._random)
        seconds = generation = 0.0
        self.steps = 0
        for _ in range(epochs):
            started = clock()
            self._set_epoch(self._epoch)
            generation += clock() - started if self.data.fresh and self._epoch else 0.0
            losses = []
            for batch in self._loader:
                seconds += self.timed_step(batch)
                losses.append((self._loss, len(batch[0])))
            if self._scheduler is not None:
                self._scheduler.step()
            self.steps, self._epoch = self.steps + len(losses), self._epoch + 1
            self.loss = sum(loss.item() * n for loss, n in losses) / sum(n for _, n in losses)
        self._random = torch.get_rng_state()
        return seconds, generation

    def _set_epoch(self, epoch: int) -> None:
        self._loader.sampler.set_epoch(epoch)

    def timed_step(self, batch: Any) -> float:
        """Seconds of one optimisation step."""
        started = clock()
        self._optimizer.zero_grad()
        terms = self.task.loss(self.task(batch), batch)
        loss = reduce(add, (term.mean() for term in terms.values()))
        loss.backward()
        self._optimizer.step()
        self._loss = loss.detach()
        return clock() - started
