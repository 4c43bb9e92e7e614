"""Pairs of a corrupted and a clean image."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.data import DataModule, Split
from eai.core.errors import require
from eai.tasks.recovery.corruptions import Corruption
from eai.tasks.recovery.patterns import CLASSES, draw


class Batch(NamedTuple):
    """b images of h × w pixels, values in [0, 1].

    ``y`` is what the net sees, ``mask`` 1 where a pixel was seen and 0 where it is hidden, ``x`` the clean
    image and ``label`` its position in :data:`eai.tasks.recovery.patterns.CLASSES`.
    """

    y: Float[Tensor, "b 1 h w"]
    mask: Float[Tensor, "b 1 h w"]
    x: Float[Tensor, "b 1 h w"]
    label: Int[Tensor, " b"]


class Patterns(DataModule[Batch]):
    """The ten patterns of slide 2.2, corrupted.

    In training classes are drawn at random; sample i of validation and test data has class i mod 10.

    Args:
        corruption: of the clean images.
        height, width: in pixels, at least 8.
        n_train, n_val, n_test: samples per split. 1,600 are the slides' 100 batches of 16 per epoch.
        batch_size, seed, fresh: see :class:`eai.core.data.DataModule`.
    """

    def __init__(
        self,
        corruption: Corruption,
        height: int = 28,
        width: int = 28,
        n_train: int = 1600,
        n_val: int = 500,
        n_test: int = 1000,
        batch_size: int = 16,
        seed: int = 0,
        fresh: bool = True,
    ) -> None:
        super().__init__(batch_size, seed, fresh)
        require(height >= 8, "height", "at least 8", height)
        require(width >= 8, "width", "at least 8", width)
        for name, size in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(size >= 1, name, "at least 1", size)
        corruption.check_size(height, width)
        self.corruption, self.height, self.width = corruption, height, width
        self.sizes: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        count = self.sizes[split]
        if split == "train":
            label = torch.randint(len(CLASSES), (count,), generator=generator)
        else:
            label = torch.arange(count) % len(CLASSES)
        x = draw(label, self.height, self.width, generator)
        y, mask = self.corruption(x, generator)
        return Batch(y, mask, x, label)
