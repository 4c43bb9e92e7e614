"""Means over samples that do not depend on how the samples were batched, and their standard errors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import torch
from torch import Tensor

from eai.core.learn.ranks import gather

# One value per sample, optionally with one weight per sample (0: the score does not apply to it).
PerSample = Tensor | tuple[Tensor, Tensor]
RESAMPLES = 100  # a standard error is then known to 7 %


class SampleMeans:
    """Weighted means of per-sample values, summed in float64 on the values' own device.

    ``mean = Σ_i w_i v_i / Σ_i w_i``, over all samples of all updates. The values are kept until they are asked for and
    summed at once: an update costs a training step nothing, and the sum does not depend on how they were batched.
    """

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}
        self._weights: dict[str, list[Tensor]] = {}

    def update(self, values: Mapping[str, PerSample]) -> None:
        """Add a batch: ``{name: (B,) values}`` or ``{name: ((B,) values, (B,) weights)}``."""
        for name, item in values.items():
            value, weight = item if isinstance(item, tuple) else (item, None)
            self._values.setdefault(name, []).append(value.detach())
            if weight is not None:
                self._weights.setdefault(name, []).append(weight)

    def compute(self) -> dict[str, float]:
        """The means. A name whose weights sum to zero has none and is left out."""
        return _means([self._totals()])

    def compute_over_ranks(self) -> dict[str, float]:
        """The means over the samples of all processes; every process must call it."""
        return _means(gather(self._totals()))

    def samples_over_ranks(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Values and weights (n,) of all samples of all processes, in float64; every process must call it."""
        values = {name: torch.cat(parts).double().cpu() for name, parts in self._values.items()}
        weights = {name: torch.cat(parts).double().cpu() for name, parts in self._weights.items()}
        mine = {name: (value, weights.get(name, torch.ones_like(value))) for name, value in values.items()}
        everyone = gather(mine)
        return {
            name: (torch.cat([part[name][0] for part in everyone]), torch.cat([part[name][1] for part in everyone]))
            for name in mine
        }

    def _totals(self) -> dict[str, list[float]]:
        return {name: self._total(name) for name in self._values}

    def _total(self, name: str) -> list[float]:
        values = torch.cat(self._values[name])
        if name not in self._weights:
            return [values.sum(dtype=torch.float64).item(), float(len(values))]
        weights = torch.cat(self._weights[name])
        return torch.stack([(values * weights).sum(dtype=torch.float64), weights.sum(dtype=torch.float64)]).tolist()

    def state(self) -> dict[str, dict[str, Tensor]]:
        kept = {"values": self._values, "weights": self._weights}
        return {kind: {name: torch.cat(parts) for name, parts in of.items()} for kind, of in kept.items()}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._values = {name: [values] for name, values in state["values"].items()}
        self._weights = {name: [weights] for name, weights in state["weights"].items()}


def _means(parts: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Means from each process's {name: (Σ w v, Σ w)}, added in the order of ranks."""
    sums: dict[str, list[float]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            before = sums.get(name, [0.0, 0.0])
            sums[name] = [before[0] + total, before[1] + count]
    return {name: total / count for name, (total, count) in sums.items() if count > 0}


def standard_errors(
    methods: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]],
    summarise: Callable[[Mapping[str, float]], Mapping[str, float]],
) -> dict[str, dict[str, float]]:
    """The standard error of every final score, from the scatter of the test samples.

    Bayesian bootstrap (Rubin 1981): in each of 100 resamples sample i weighs g_i ~ Exp(1), the same for all methods;
    the standard error is the standard deviation of ``summarise(Σ g_i w_i v_i / Σ g_i w_i)``. No resample lacks a class.
    What another seed of the training would change is not in it.

    Args:
        methods: of each method and quantity the values and weights (n,) of the samples.
        summarise: final scores from means over samples.

    Returns:
        By method and score; none from a single sample.
    """
    most = max((len(value) for of in methods.values() for value, _ in of.values()), default=0)
    if most < 2:
        return {}
    generator = torch.Generator().manual_seed(0)
    chance = torch.empty(RESAMPLES, most, dtype=torch.float64).exponential_(generator=generator)
    errors: dict[str, dict[str, float]] = {}
    for method, of in methods.items():
        means = {
            name: (chance[:, : len(value)] @ (value * weight) / (chance[:, : len(value)] @ weight)).tolist()
            for name, (value, weight) in of.items()
            if weight.any()
        }
        scores = [summarise({name: mean[i] for name, mean in means.items()}) for i in range(RESAMPLES)]
        errors[method] = {
            name: torch.tensor([score[name] for score in scores], dtype=torch.float64).std().item()
            for name in scores[0]
        }
    return errors


def worth_a_curve(
    losses: Mapping[str, float], scores: Mapping[str, float], watched: Collection[str], always: Collection[str]
) -> dict[str, float]:
    """Few of an epoch's values: the loss, its terms if it has several, and the scores that are watched.

    Args:
        losses: ``train/loss`` or ``val/loss``, and the terms.
        scores: ``val/…``.
        watched: names without ``val/``; if there are none, all scores whose name has no further part.
        always: names of scores that are among them in any case.
    """
    few = dict(losses) if len(losses) > 2 else {name: value for name, value in losses.items() if name[-5:] == "/loss"}
    for name, value in scores.items():
        short = name.removeprefix("val/")
        if name in always or (short in watched if watched else "/" not in short):
            few[name] = value
    return few
