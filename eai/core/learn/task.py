"""A task: the steps that follow from what it provides."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from typing import Any, cast

import lightning as L
import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from eai.core.errors import ConfigError, ExplodedLossError, NonFiniteLossError
from eai.core.learn.data import Blocks, widened
from eai.core.learn.parts import B, Estimate, Output, Parts
from eai.core.learn.ranks import gather, processes, rank
from eai.core.learn.resuming import random_state, set_random_state, stretch_schedule
from eai.core.learn.scores import SampleMeans, standard_errors, worth_a_curve
from eai.core.schema import Monitor, Optimization

EXPLOSION = 1e6  # times the first epoch's mean training loss: no schedule brings a run back from there
_BACKWARD_HOOKS = ("on_before_backward", "on_after_backward")


class Task(Parts[B, Output, Estimate], L.LightningModule):
    """The training, validation and test steps, written once for all tasks, from the parts that each provides.

    Training is Lightning's manual optimisation: one pass through its loop takes a block of steps (see
    :class:`eai.core.learn.data.Blocks`). ``optimization`` holds what Lightning's own options would say.

    Args:
        net: maps a batch, or part of it, to an output.
        loss: ``loss(output, batch) -> {term: (B,)}``; the training loss is the batch mean of their sum.
        optimizer: called with the trainable parameters.
        scheduler: called with the optimizer; stepped as ``optimization`` says, `ReduceLROnPlateau` after validations.
    """

    def __init__(
        self,
        net: nn.Module,
        loss: nn.Module,
        optimizer: Callable[..., torch.optim.Optimizer],
        scheduler: Callable[..., LRScheduler | ReduceLROnPlateau] | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net, self.loss = net, loss
        self._optimizer, self._scheduler = optimizer, scheduler
        self.optimization, self.monitor, self.headline = Optimization(), Monitor("val/loss"), ""
        self.epochs_done, self.batches_done = 0, 0  # whole epochs, and batches of the epoch that has begun
        self._train_terms, self._val_means = SampleMeans(), SampleMeans()
        self._test_means: dict[str, SampleMeans] = {}
        self._methods: dict[str, Callable[[B], Estimate]] = {}
        self._seconds: dict[str, list[float]] = {}  # per sample, of each batch
        self._backward: Callable[[Tensor], None] = self.manual_backward
        self.latest: dict[str, float] = {}  # the newest train/… and val/…
        self.first_loss: float | None = None  # train/loss of the first epoch
        self.final_scores: dict[str, dict[str, float]] = {}
        self.standard_errors: dict[str, dict[str, float]] = {}
        self.seconds_per_sample: dict[str, float] = {}
        self.register_state_dict_post_hook(_tensors_only)

    @torch.no_grad()
    def predict(self, batch: B) -> Estimate:
        """The net's estimate for a batch, without gradients."""
        return self.estimate(batch, self(batch))

    def configure_optimizers(self) -> Any:
        optimizer = self._optimizer(filter(lambda p: p.requires_grad, self.parameters()))
        if self._scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self._scheduler(optimizer)}

    @property
    def accumulating(self) -> bool:
        """Whether gradients are waiting for further batches: no state to resume from."""
        return self.batches_done % self.optimization.accumulate != 0

    def training_step(self, block: Sequence[B], block_idx: int) -> None:
        optimizer = cast(LightningOptimizer, self.optimizers())
        for place, batch in enumerate(block, start=1):
            last = place == len(block) and self.trainer.is_last_batch
            if not self.accumulating:
                optimizer.zero_grad()
            self._backward(self.forward_loss(batch))
            self.batches_done += 1
            if last or not self.accumulating:
                optimizer.step()
                self._step_schedule("step")
        if last:
            # Close the epoch before the validation and the callbacks that follow.
            self.epochs_done, self.batches_done = self.epochs_done + 1, 0
            self._step_schedule("epoch")
            terms = self._train_terms.compute_over_ranks()
            self._train_terms = SampleMeans()
            self._report({"train/loss": sum(terms.values())} | {f"train/{k}": v for k, v in terms.items()})

    def forward_loss(self, batch: B) -> Tensor:
        """The loss, weighted so that the sum over accumulated batches, averaged over processes, is the batch mean."""
        terms = self.loss(self(batch), batch)
        loss = reduce(add, (term.mean() for term in terms.values()))
        # On a GPU, check at the epoch's end: reading a number back would wait for the step.
        if loss.device.type == "cpu" and not math.isfinite(value := loss.item()):
            self._refuse("train/loss", value)
        weight = 1.0
        if processes() > 1:
            blocks = self.trainer.train_dataloader
            weight = blocks.sampler.weight(self.batches_done) if isinstance(blocks, Blocks) else 1.0
        if weight:
            self._train_terms.update(terms)
        weight /= self.optimization.accumulate
        return loss if weight == 1 else weight * loss

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        # In this hook, because float16 gradients are unscaled just before it.
        if self.optimization.clip_norm is not None:
            self.clip_gradients(optimizer, self.optimization.clip_norm, "norm")

    def _step_schedule(self, interval: str) -> None:
        if self._scheduler is not None and self.optimization.schedule_every == interval:
            scheduler = self.lr_schedulers()
            if isinstance(scheduler, LRScheduler) and not isinstance(scheduler, ReduceLROnPlateau):
                scheduler.step()

    def validation_step(self, batch: B, batch_idx: int) -> None:
        output = self(batch)
        terms = self.loss(output, batch)
        self._val_means.update({f"loss/{name}": term for name, term in terms.items()})
        self._val_means.update(self.scores(batch, self.estimate(batch, output)))
        self.validated(batch, output)

    def on_validation_epoch_end(self) -> None:
        means = self._val_means.compute_over_ranks()
        self._val_means = SampleMeans()
        if self.trainer.sanity_checking:
            return
        terms = {name: means.pop(f"loss/{name}") for name in [k[5:] for k in means if k.startswith("loss/")]}
        losses = {"val/loss": sum(terms.values())} | {f"val/{name}": value for name, value in terms.items()}
        scores = {f"val/{name}": value for name, value in self.summarise(means).items()}
        self._report(losses, scores)
        monitored = self.latest[self.monitor.score]
        # Log the one value that the best checkpoint needs: Lightning is slow at each.
        self.log(self.monitor.score, monitored, logger=False, batch_size=1)
        if self._scheduler is not None and isinstance(plateau := self.lr_schedulers(), ReduceLROnPlateau):
            plateau.step(monitored)

    def on_test_start(self) -> None:
        data = getattr(self.trainer, "datamodule")  # noqa: B009 - absent from Trainer's annotations
        self._methods = {"model": self.predict, **self.baselines(data)}
        self._test_means = {name: SampleMeans() for name in self._methods}
        self._seconds = {name: [] for name in self._methods}

    def test_step(self, batch: B, batch_idx: int) -> None:
        batch = widened(batch)  # references do not compute in 16 bits
        for name, method in self._methods.items():
            if batch_idx == 0:
                method(type(batch)(*(field[:2] for field in batch)))  # calibrate it and warm it up, untimed
            started = time.perf_counter()
            estimate = method(batch)
            if self.device.type != "cpu":
                torch.accelerator.synchronize(self.device)
            self._seconds[name].append((time.perf_counter() - started) / len(batch[0]))
            self._test_means[name].update(self.scores(batch, estimate))

    def on_test_epoch_end(self) -> None:
        def finals(means: Mapping[str, float]) -> dict[str, float]:
            return {f"test/{key}": value for key, value in self.summarise(means).items()}

        self.final_scores = {name: finals(means.compute_over_ranks()) for name, means in self._test_means.items()}
        samples = {name: means.samples_over_ranks() for name, means in self._test_means.items()}
        self.standard_errors = standard_errors(samples, finals)
        self.seconds_per_sample = {name: statistics.median(times) for name, times in self._seconds.items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["progress"] = {
            "epochs": self.epochs_done,
            "batches": self.batches_done,
            "planned_epochs": self.trainer.max_epochs,
            "first_loss": self.first_loss,
        }
        checkpoint["ranks"] = gather({"train_terms": self._train_terms.state(), "random": random_state()})

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ranks, progress = checkpoint["ranks"], checkpoint["progress"]
        if len(ranks) != processes():
            raise ConfigError(f"accelerator: expected {len(ranks)} processes, as before, got {processes()}")
        self.epochs_done, self.batches_done = progress["epochs"], progress["batches"]
        self.first_loss = progress.get("first_loss")  # absent from older checkpoints
        self._train_terms.restore(ranks[rank()]["train_terms"])
        self._resumed_random_state = ranks[rank()]["random"]
        epochs = self.trainer.max_epochs
        if progress["planned_epochs"] != epochs and isinstance(configured := self.configure_optimizers(), dict):
            stretch_schedule(checkpoint, configured["optimizer"], configured["lr_scheduler"], epochs)

    def on_train_start(self) -> None:
        state = self.__dict__.pop("_resumed_random_state", None)
        if state is not None:
            set_random_state(state)
        callbacks: list[L.Callback] = getattr(self.trainer, "callbacks")  # noqa: B009 - absent from its annotations
        plain = processes() == 1 and self.trainer.precision == "32-true"
        hooked = any(is_overridden(hook, one, L.Callback) for one in callbacks for hook in _BACKWARD_HOOKS)
        # Skip Lightning's backward where nothing is scaled, joined or hooked: a tenth of a small net's step.
        self._backward = torch.Tensor.backward if plain and not hooked else self.manual_backward

    def _report(self, losses: Mapping[str, float], scores: Mapping[str, float] | None = None) -> None:
        """Hand the loggers an epoch's values, means over its samples, before any checkpoint is written.

        Lightning's `self.log` costs as much as a step of a small net.
        """
        for name, value in losses.items():
            if not math.isfinite(value):
                self._refuse(name, value)
        if "train/loss" in losses:
            self._refuse_explosion(losses["train/loss"])
        self.latest |= {**losses, **(scores or {})}
        values = {**losses, **(scores or {}), "epoch": float(self.current_epoch)}
        always = (self.monitor.score, self.headline.replace("test/", "val/", 1))
        few = worth_a_curve(losses, scores or {}, self.watched, always)
        for logger in self.loggers:
            logger.log_metrics(few if isinstance(logger, TensorBoardLogger) else values, step=self.global_step)

    def _refuse(self, name: str, value: float) -> None:
        raise NonFiniteLossError(
            f"{name} became {value} in epoch {self.current_epoch}, step {self.global_step}; "
            "the checkpoints written before stay. A smaller learning rate or optimization.clip_norm may help"
        )

    def _refuse_explosion(self, loss: float) -> None:
        if self.first_loss is None:
            self.first_loss = loss
        if 0 < EXPLOSION * self.first_loss < loss:
            raise ExplodedLossError(
                f"train/loss grew to {loss:.3g} in epoch {self.current_epoch}, step {self.global_step}, more than "
                f"{EXPLOSION:.0e} times its first epoch's mean of {self.first_loss:.3g}; "
                "the checkpoints written before stay. A smaller learning rate or optimization.clip_norm may help"
            )


def _tensors_only(_: nn.Module, state: dict[str, Any], *__: Any) -> None:
    """Keep out of checkpoints what a library's model adds to its weights, as the arguments of its constructor."""
    for name in [name for name, value in state.items() if not isinstance(value, Tensor)]:
        del state[name]
