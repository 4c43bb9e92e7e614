"""Means over samples that do not depend on how the samples were batched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from eai.core.ranks import gather

# One value per sample, optionally with one weight per sample (0: the score does not apply to it).
PerSample = Tensor | tuple[Tensor, Tensor]


class SampleMeans:
    """Weighted means of per-sample values, summed in float64 on the values' own device.

    ``mean = Σ_i w_i v_i / Σ_i w_i``, over all samples of all updates.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def update(self, values: Mapping[str, PerSample]) -> None:
        """Add a batch: ``{name: (B,) values}`` or ``{name: ((B,) values, (B,) weights)}``."""
        for name, item in values.items():
            value, weight = item if isinstance(item, tuple) else (item, None)
            value = value.detach()
            weight = torch.ones_like(value) if weight is None else weight
            entry = torch.stack([(value * weight).sum(dtype=torch.float64), weight.sum(dtype=torch.float64)])
            self._sums[name] = self._sums[name] + entry if name in self._sums else entry

    def compute(self) -> dict[str, float]:
        """The means. A name whose weights sum to zero has none and is left out."""
        return _means([self._totals()])

    def compute_over_ranks(self) -> dict[str, float]:
        """The means over the samples of all processes; every process must call it."""
        return _means(gather(self._totals()))

    def _totals(self) -> dict[str, list[float]]:
        return {name: entry.tolist() for name, entry in self._sums.items()}

    def state(self) -> dict[str, Tensor]:
        return dict(self._sums)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self._sums = dict(state)


def _means(parts: Sequence[Mapping[str, Sequence[float]]]) -> dict[str, float]:
    """Means from each process's {name: (Σ w v, Σ w)}, added in the order of ranks."""
    sums: dict[str, list[float]] = {}
    for part in parts:
        for name, (total, count) in part.items():
            before = sums.get(name, [0.0, 0.0])
            sums[name] = [before[0] + total, before[1] + count]
    return {name: total / count for name, (total, count) in sums.items() if count > 0}
