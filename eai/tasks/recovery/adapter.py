"""Any image model of a library as a net of this task."""

from __future__ import annotations

import torch
from torch import nn

from eai.core.errors import require
from eai.tasks.recovery.data import Batch
from eai.tasks.recovery.nets import Reconstruction


class ImageModel(nn.Module):
    """A model from images (b, c, h, w) to images (b, 1, h, w).

    Args:
        model: gets y and, as a second channel, the mask; gives the recovered image.
        mask: whether the model gets the mask; without it c = 1, else 2.

    Raises:
        ValueError: on calling it, if the model's output has another shape than y.
    """

    def __init__(self, model: nn.Module, mask: bool = True) -> None:
        super().__init__()
        self.model, self.mask = model, mask

    def forward(self, batch: Batch) -> Reconstruction:
        try:
            image = self.model(torch.cat([batch.y, batch.mask], dim=1) if self.mask else batch.y)
        except RuntimeError as error:
            given = 1 + self.mask
            raise ValueError(f"net.model: cannot take images of {given} channels ({error})") from error
        require(
            image.shape == batch.y.shape, "net.model", f"images of shape {tuple(batch.y.shape)}", tuple(image.shape)
        )
        return Reconstruction(image)
