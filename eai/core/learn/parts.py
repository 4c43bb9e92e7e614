"""What a task provides: its estimate from the network's output, scores, references and figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor

from eai.core.errors import ConfigError
from eai.core.learn.data import DataModule
from eai.core.learn.export import Parted, Variable
from eai.core.learn.figures import Drawing
from eai.core.learn.scores import PerSample

B = TypeVar("B", bound=tuple[Tensor, ...])
Output = TypeVar("Output")
Estimate = TypeVar("Estimate")


class Parts(ABC, Generic[B, Output, Estimate]):
    """The methods that a task writes; those with a default may be left out.

    A task says how the net is called (``forward``), which physical estimate follows from its output
    (``estimate``), which per-sample scores compare an estimate with the truth (``scores``), how their
    means become the final scores (``summarise``), and which ``baselines`` are scored beside it.

    ``watched`` names the few scores that TensorBoard draws while it trains, beside the loss, its terms, the monitored
    score and the headline's: none in particular means all that are no part of another one, as ``rmse/lead_03`` is of
    ``rmse``. Checkpoints, pruning, ``metrics.json`` and other loggers have all of them.
    """

    watched: ClassVar[tuple[str, ...]] = ()

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

    def make_room(self, checkpoint: Mapping[str, Any]) -> None:
        """Make what :meth:`prepare` would have made, where the data are absent. By default nothing.

        Args:
            checkpoint: of the run: its weights, which are loaded afterwards, by name in ``state_dict``, and what
                ``on_save_checkpoint`` has put beside them.
        """

    def measure(self, data: DataModule[B]) -> Mapping[str, Mapping[str, float]]:
        """Further costs of methods for ``measurements.json``, beside the seconds per sample. By default none."""
        return {}

    def validated(self, batch: B, output: Output) -> None:
        """See the net's output for a batch of validation data, beside the scores. By default nothing."""

    @abstractmethod
    def figures(self, batch: B, estimate: Estimate) -> Mapping[str, Drawing]:
        """Figures of a few samples, drawn at chosen epochs and at the end."""

    def closing_figures(self, data: DataModule[B], batch: B, estimate: Estimate) -> Mapping[str, Drawing]:
        """Further figures, drawn once at the end of the run."""
        return {}

    def coordinates(self, data: DataModule[B]) -> Mapping[str, Variable]:
        """Of the dataset that ``eai-evaluate export=…`` writes: what does not change between batches. By default none.

        One along the samples is as long as the test split.
        """
        return {}

    def exported(
        self, data: DataModule[B], batch: B, estimates: Mapping[str, Estimate]
    ) -> Mapping[str, Variable | Parted]:
        """The variables of that dataset, for a batch, samples first.

        Args:
            data: that the batch is from.
            batch: of the test split.
            estimates: of ``network`` and of every baseline.

        Raises:
            ConfigError: this task writes no dataset, which is the default.
        """
        raise ConfigError(f"export: {type(self).__name__} writes no dataset; it has no method exported()")
