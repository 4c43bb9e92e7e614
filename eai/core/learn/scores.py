"""Means over samples that do not depend on how the samples were batched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from eai.core.learn.ranks import gather

# One value per sample, optionally with one weight per sample (0: the score does not apply to it).
PerSample = Tensor | tuple[Tensor, Tensor]


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
