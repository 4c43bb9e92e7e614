"""A task: what the network sees, what it is trained on, and how its estimate is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn

from eai.core.data import DataModule
from eai.core.errors import NonFiniteLossError
from eai.core.figures import Drawing
from eai.core.scores import PerSample, SampleMeans

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
        self.final_scores: dict[str, dict[str, float]] = {}

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
        loss = torch.stack([term.mean() for term in terms.values()]).sum()
        self._train_terms.update(terms)
        # Reading a number back from a GPU would wait for it: there the check comes at the epoch's end.
        if loss.device.type == "cpu" and not torch.isfinite(loss):
            self._refuse("train/loss", loss.item())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: B, batch_idx: int) -> None:
        # Not in `on_train_epoch_end`, which comes after validation and after the callbacks that report.
        if self.trainer.is_last_batch:
            terms = self._train_terms.compute()
            self._train_terms = SampleMeans()
            self._log_finite({"train/loss": sum(terms.values())} | {f"train/{k}": v for k, v in terms.items()})

    def validation_step(self, batch: B, batch_idx: int) -> None:
        output = self(batch)
        terms = self.loss(output, batch)
        self._val_means.update({f"loss/{name}": term for name, term in terms.items()})
        self._val_means.update(self.scores(batch, self.estimate(batch, output)))

    def on_validation_epoch_end(self) -> None:
        means = self._val_means.compute()
        self._val_means = SampleMeans()
        terms = {name: means.pop(f"loss/{name}") for name in [k[5:] for k in means if k.startswith("loss/")]}
        self._log_finite({"val/loss": sum(terms.values())} | {f"val/{name}": value for name, value in terms.items()})
        self._log({f"val/{name}": value for name, value in self.summarise(means).items()})

    def on_test_start(self) -> None:
        data = getattr(self.trainer, "datamodule")  # noqa: B009 - absent from Trainer's annotations
        self._methods = {"model": self.predict, **self.baselines(data)}
        self._test_means = {name: SampleMeans() for name in self._methods}

    def test_step(self, batch: B, batch_idx: int) -> None:
        for name, method in self._methods.items():
            self._test_means[name].update(self.scores(batch, method(batch)))

    def on_test_epoch_end(self) -> None:
        self.final_scores = {
            name: {f"test/{key}": value for key, value in self.summarise(means.compute()).items()}
            for name, means in self._test_means.items()
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["train_terms"] = self._train_terms.state()
        checkpoint["torch_rng"] = torch.get_rng_state()
        if torch.cuda.is_available():
            checkpoint["cuda_rng"] = torch.cuda.get_rng_state_all()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._train_terms.restore(checkpoint["train_terms"])
        self._resume_rng = checkpoint["torch_rng"], checkpoint.get("cuda_rng")

    def on_train_start(self) -> None:
        state = self.__dict__.pop("_resume_rng", None)
        if state is not None:
            torch.set_rng_state(state[0].cpu())
            if state[1] is not None and torch.cuda.is_available():
                torch.cuda.set_rng_state_all([s.cpu() for s in state[1]])

    def _log_finite(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not np.isfinite(value):
                self._refuse(name, value)
        self._log(values)

    def _log(self, values: Mapping[str, float]) -> None:
        # One value per epoch, already a mean over its samples.
        self.log_dict(dict(values), on_step=False, on_epoch=True, batch_size=1)

    def _refuse(self, name: str, value: float) -> None:
        raise NonFiniteLossError(
            f"{name} became {value} in epoch {self.current_epoch}, step {self.global_step}; "
            "the checkpoints written before stay. A smaller learning rate or trainer.gradient_clip_val may help"
        )
