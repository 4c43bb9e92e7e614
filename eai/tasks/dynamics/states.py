"""The states of a file, read when they are needed, and which of them follow each other without a gap."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from eai.fields import Fields
from eai.fields.periods import runs_without_gap
from eai.tasks.dynamics.anomalies import ClimatologyFit

KEPT = 2**29  # bytes of states that are held in memory; of larger files what a batch needs is read each time


class States:
    """The states x at a file's times, in the variables' units.

    Args:
        fields: the file.
        nodes: flat numbers of the places of its grid that are nodes.
    """

    def __init__(self, fields: Fields, nodes: Tensor) -> None:
        self.fields, self._nodes = fields, nodes.numpy()
        self.season = torch.from_numpy(fields.season)
        self._bytes = 4 * len(nodes) * len(fields.variables)
        self._kept: tuple[np.ndarray, Tensor] | None = None

    def __call__(self, steps: np.ndarray) -> Float[Tensor, "t n c"]:
        """The states at these times; NaN where a value is missing.

        Args:
            steps: numbers of the times.
        """
        if self._kept is None:
            return self._read(steps)
        kept, x = self._kept
        return x[torch.from_numpy(np.searchsorted(kept, steps))]

    def complete(self, steps: np.ndarray, fit: ClimatologyFit | None = None) -> np.ndarray:
        """Which of the states have a value everywhere: (t,) of true and false.

        Args:
            steps: numbers of the times, in their order.
            fit: gets the complete ones, if given.
        """
        found = []
        for part, x in self._parts(steps):
            whole = ~torch.isnan(x).flatten(1).any(1)
            found.append(whole.numpy())
            if fit is not None:
                fit.add(x[whole], self.season[part][whole])
        return np.concatenate(found)

    def keep(self, steps: np.ndarray) -> None:
        """Hold states in memory, if there is room for them.

        Args:
            steps: numbers of the times, in their order; all states that are asked for later are among them.
        """
        if len(steps) * self._bytes <= KEPT:
            self._kept = steps, torch.cat([x for _, x in self._parts(steps)])

    def _parts(self, steps: np.ndarray) -> Iterator[tuple[np.ndarray, Float[Tensor, "t n c"]]]:
        for part in self.fields.blocks(steps):
            yield part, self(part)

    def _read(self, steps: np.ndarray) -> Float[Tensor, "t n c"]:
        values = self.fields.read(steps)
        flat = values.reshape(*values.shape[:2], -1)[:, :, self._nodes]
        return torch.from_numpy(np.ascontiguousarray(flat.swapaxes(1, 2)))


def starts_of(times: np.ndarray, steps: np.ndarray, complete: np.ndarray, length: int) -> np.ndarray:
    """The first states of all trajectories of ``length`` states without a gap in time or a missing value.

    Args:
        times: of all states.
        steps: numbers of the states of a period, in the order of time.
        complete: which of them have a value everywhere.
        length: of the trajectories.
    """
    starts = [steps[:0]]
    for run in runs_without_gap(times, steps):
        whole = np.concatenate([[0], np.cumsum(complete[np.searchsorted(steps, run)])])
        starts.append(run[: max(0, len(run) - length + 1)][whole[length:] - whole[:-length] == length])
    return np.concatenate(starts)
