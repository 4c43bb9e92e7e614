"""Networks from a batch to the corrected forecast."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from eai.core.errors import require
from mylab.postprocessing.data import Batch


def predictors(batch: Batch) -> Tensor:
    """(b, 4): the forecast in units of 5 K, cosine and sine of the season, the height in km."""
    return torch.stack([batch.forecast / 5, batch.season.cos(), batch.season.sin(), batch.height], dim=1)


class Correction(nn.Module):
    """The forecast plus a correction by two hidden layers.

    Args:
        width: units of each hidden layer.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        require(width >= 1, "width", "at least 1", width)
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, batch: Batch) -> Tensor:
        return batch.forecast + self.layers(predictors(batch))[:, 0]
