"""A task: what the network sees, what it is trained on, and how its estimate is scored."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from typing import Any, Generic, TypeVar

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from eai.core.errors import ConfigError, NonFiniteLossError
from eai.core.learn.data import Batches, DataModule
from eai.core.learn.figures import Drawing
from eai.core.learn.ranks import gather, processes, rank
from eai.core.learn.scores import PerSample, SampleMeans

B = TypeVar("B", bound=tuple[Tensor, ...])
Output = TypeVar("Output")
Estimate = TypeVar("Estimate")


class Task(L.LightningModule, ABC, Generic[B, Output, Estimate]):
    """The training, validation and test steps, written once for all tasks.

    A task says how the net is called (``forward``), which physical estimate follows from its output
    (``estimate``), which per-sample scores compare an estimate with the truth (``scores``), how their
    means become the final scores (``summarise``), and which ``baselines`` are scored beside it.

    Args:
        net: maps a batch, or part of it, to an output.
        loss: ``loss(output, batch) -> {term: (B,)}``; the training loss is the batch mean of their sum.
        optimizer: called with the trainable parameters.
        scheduler: called with the optimizer, stepped once per epoch.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.loss = net, loss
        self._optimizer, self._scheduler = optimizer, scheduler
        self._train_terms, self._val_means = SampleMeans(), SampleMeans()
        self._test_means: dict[str, SampleMeans] = {}
        self._methods: dict[str, Callable[[B], Estimate]] = {}
        self.latest: dict[str, float] = {}  # the newest train/… and val/…
        self.monitored = "val/loss"  # the score that callbacks ask Lightning for
        self.final_scores: dict[str, dict[str, float]] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning notes the hook it is in some forty times per step; torch searches parameters and buffers each time.
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)

    # What a task provides.

    @abstractmethod
    def forward(self, batch: B) -> Output:
        """The net's output for a batch, with gradients: what the loss is computed from."""

    @abstractmethod
    def estimate(self, batch: B, output: Output) -> Estimate:
        """What is scored against the truth and drawn."""

    @abstractmethod
    def scores(self, batch: B, estimate: Estimate) -> Mapping[str, PerSample]:
        """Per-sample quantities whose means over the whole split enter ``summarise``."""

    def summarise(self, means: Mapping[str, float]) -> dict[str, float]:
        """Final scores from means over samples; by default the means themselves."""
        return dict(means)

    @abstractmethod
    def baselines(self, data: DataModule[B]) -> Mapping[str, Callable[[B], Estimate]]:
        """Reference methods, scored on the same test samples in the same keys."""

    def check_data(self, data: DataModule[B]) -> None:
        """Raise ``ConfigError`` if this net cannot work on these data. By default every net can."""

    def prepare(self, data: DataModule[B]) -> None:
        """Take from the training data what scales and scores need, into buffers. By default nothing."""

    def measure(self, data: DataModule[B]) -> Mapping[str, Mapping[str, float]]:
        """Numbers per method that no seed reproduces, such as seconds, for ``measurements.json``. By default none."""
        return {}

    def validated(self, batch: B, output: Output) -> None:
        """See the net's output for a batch of validation data, beside the scores. By default nothing."""

    @abstractmethod
    def figures(self, batch: B, estimate: Estimate) -> Mapping[str, Drawing]:
        """Figures of a few samples, drawn at chosen epochs and at the end."""

    def closing_figures(self, data: DataModule[B], batch: B, estimate: Estimate) -> Mapping[str, Drawing]:
        """Further figures, drawn once at the end of the run."""
        return {}

    # What follows from it.

    @torch.no_grad()
    def predict(self, batch: B) -> Estimate:
        """The net's estimate for a batch, without gradients."""
        return self.estimate(batch, self(batch))

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(filter(lambda p: p.requires_grad, self.parameters()))
        if self._scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self._scheduler(optimizer)}

    def training_step(self, batch: B, batch_idx: int) -> Tensor:
        terms = self.loss(self(batch), batch)
        loss = reduce(add, (term.mean() for term in terms.values()))
        weight = self._weight_of_part(batch_idx)
        if weight:
            self._train_terms.update(terms)
        # Reading a number back from a GPU would wait for it: there the check comes at the epoch's end.
        if loss.device.type == "cpu" and not math.isfinite(value := loss.item()):
            self._refuse("train/loss", value)
        return loss if weight == 1 else weight * loss

    def _weight_of_part(self, step: int) -> float:
        """So that the mean of the processes' gradients is the gradient of the global batch's mean loss."""
        if processes() == 1:
            return 1.0
        batches = getattr(self.trainer.train_dataloader, "sampler", None)
        return batches.weight(step) if isinstance(batches, Batches) else 1.0

    def on_train_batch_end(self, outputs: Any, batch: B, batch_idx: int) -> None:
        # Not in `on_train_epoch_end`, which comes after validation and after the callbacks that report.
        if self.trainer.is_last_batch:
            terms = self._train_terms.compute_over_ranks()
            self._train_terms = SampleMeans()
            self._report({"train/loss": sum(terms.values())} | {f"train/{k}": v for k, v in terms.items()})

    def validation_step(self, batch: B, batch_idx: int) -> None:
        output = self(batch)
        terms = self.loss(output, batch)
        self._val_means.update({f"loss/{name}": term for name, term in terms.items()})
        self._val_means.update(self.scores(batch, self.estimate(batch, output)))
        self.validated(batch, output)

    def on_validation_epoch_end(self) -> None:
        means = self._val_means.compute_over_ranks()
        self._val_means = SampleMeans()
        terms = {name: means.pop(f"loss/{name}") for name in [k[5:] for k in means if k.startswith("loss/")]}
        losses = {"val/loss": sum(terms.values())} | {f"val/{name}": value for name, value in terms.items()}
        scores = {f"val/{name}": value for name, value in self.summarise(means).items()}
        self._report(losses, scores)
        if self.monitored in self.latest:
            # For the callback that keeps the best checkpoint: one value, because Lightning takes its time for each.
            self.log(self.monitored, self.latest[self.monitored], logger=False, batch_size=1)

    def on_test_start(self) -> None:
        data = getattr(self.trainer, "datamodule")  # noqa: B009 - absent from Trainer's annotations
        self._methods = {"model": self.predict, **self.baselines(data)}
        self._test_means = {name: SampleMeans() for name in self._methods}

    def test_step(self, batch: B, batch_idx: int) -> None:
        for name, method in self._methods.items():
            self._test_means[name].update(self.scores(batch, method(batch)))

    def on_test_epoch_end(self) -> None:
        self.final_scores = {
            name: {f"test/{key}": value for key, value in self.summarise(means.compute_over_ranks()).items()}
            for name, means in self._test_means.items()
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["ranks"] = gather({"train_terms": self._train_terms.state(), "random": _random_state()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ranks = checkpoint["ranks"]
        if len(ranks) != processes():
            raise ConfigError(f"accelerator: expected {len(ranks)} processes, as before, got {processes()}")
        self._train_terms.restore(ranks[rank()]["train_terms"])
        self._resumed_random_state = ranks[rank()]["random"]

    def on_train_start(self) -> None:
        state = self.__dict__.pop("_resumed_random_state", None)
        if state is not None:
            _set_random_state(state)

    def _report(self, losses: Mapping[str, float], scores: Mapping[str, float] | None = None) -> None:
        """Log one value per epoch, already a mean over its samples, at once: what a checkpoint comes after is written.

        Through the logger itself, since Lightning's `self.log` costs as much as a step of a small net.
        """
        for name, value in losses.items():
            if not np.isfinite(value):
                self._refuse(name, value)
        self.latest |= {**losses, **(scores or {})}
        if self.logger is not None:
            values = {**losses, **(scores or {}), "epoch": float(self.current_epoch)}
            self.logger.log_metrics(values, step=self.global_step)

    def _refuse(self, name: str, value: float) -> None:
        raise NonFiniteLossError(
            f"{name} became {value} in epoch {self.current_epoch}, step {self.global_step}; "
            "the checkpoints written before stay. A smaller learning rate or trainer.gradient_clip_val may help"
        )


def _random_state() -> dict[str, Any]:
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
