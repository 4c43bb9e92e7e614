"""Pairs of a corrupted and a clean image."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.data import DataModule, Split
from eai.tasks.recovery.corruptions import Corruption, Images, Levels
from eai.tasks.recovery.patterns import CLASSES, NOISE, draw
from eai.tasks.recovery.varied import fields, varied

UNKNOWN = 0.5  # the value of x where it is missing


class Batch(NamedTuple):
    """b images of h × w pixels, values in [0, 1].

    ``y`` is what the net sees, ``mask`` 1 where a pixel was seen and 0 where it is hidden, ``x`` the clean
    image, ``label`` its position in the data's ``classes``, ``level`` the strength of its corruption, ``beyond``
    whether it is a pattern that lies outside the range of those in training: extrapolation, with scores of its own, and
    ``valid`` 1 where x is known and 0 where it is missing in a file, as on land: there y and mask are 0, x is ½, and no
    loss and no score looks.
    """

    y: Float[Tensor, "b 1 h w"]
    mask: Float[Tensor, "b 1 h w"]
    x: Float[Tensor, "b 1 h w"]
    label: Int[Tensor, " b"]
    level: Float[Tensor, " b"]
    beyond: Bool[Tensor, " b"]
    valid: Float[Tensor, "b 1 h w"]


def pixel_mean(squares: Images, chosen: Images) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Mean of each image's chosen pixels (0 if there are none), and their number."""
    count = chosen.sum((1, 2, 3))
    return (squares * chosen).sum((1, 2, 3)) / count.clamp(min=1), count


class ImageData(DataModule[Batch]):
    """Clean images of any source, corrupted.

    Args:
        corruption: of the clean images.
        height, width: in pixels, 8 to 512.
        test_levels: strengths of the corruption in validation and test, in equal shares; by default they are drawn
            as in training. If training has a single strength, it must be one of them.
        batch_size, seed, fresh: see :class:`eai.core.learn.data.DataModule`.

    Attributes:
        classes: the names of the labels; a single one if there are no classes.
        noise: the label whose images hold irreducible noise, if there is one.
    """

    classes: tuple[str, ...] = ("image",)
    noise: int | None = None

    def __init__(
        self,
        corruption: Corruption,
        height: int,
        width: int,
        test_levels: Sequence[float] | None,
        batch_size: int,
        seed: int,
        fresh: bool,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        super().__init__(batch_size, seed, fresh, device)
        require(8 <= height <= 512, "height", "at least 8 and at most 512", height)
        require(8 <= width <= 512, "width", "at least 8 and at most 512", width)
        require(test_levels is None or len(test_levels) > 0, "test_levels", "null or at least one level", test_levels)
        low, high = corruption.levels
        trained = test_levels is None or low < high or any(math.isclose(low, level) for level in test_levels)
        require(trained, "test_levels", f"null or levels with {low:g}, the one strength of corruption", test_levels)
        corruption.check_size(height, width)
        self.corruption, self.height, self.width = corruption, height, width
        self.test_levels = None if test_levels is None else [float(level) for level in test_levels]

    @abstractmethod
    def clean(self, split: Split, generator: torch.Generator) -> tuple[Images, Int[Tensor, " b"]]:
        """Clean images, NaN where a pixel is missing, and their labels."""

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        return self.corrupted(*self.clean(split, generator), split, generator)

    def corrupted(
        self,
        x: Images,
        label: Int[Tensor, " b"],
        split: Split,
        generator: torch.Generator,
        beyond: bool = False,
    ) -> Batch:
        """The batch of clean images, corrupted as ``split`` demands; what is NaN in x is missing."""
        levels = None if split == "train" or self.test_levels is None else self._shares(len(x), generator.device)
        valid = x.isfinite().to(x.dtype)
        x = torch.where(valid == 1, x, UNKNOWN)
        y, mask, level = self.corruption(x, generator, levels)
        apart = torch.full_like(label, beyond, dtype=torch.bool)
        return Batch(torch.where(valid == 1, y, 0.0), mask * valid, x, label, level, apart, valid)

    def again(self, batch: Batch, generator: torch.Generator, level: Levels) -> Batch:
        """The same images with another corruption.

        Args:
            batch: of the images.
            generator: of its random numbers.
            level: its strength for each image.
        """
        y, mask, _ = self.corruption(batch.x, generator, level)
        y = torch.where(batch.valid == 1, y, 0.0)
        return batch._replace(y=y, mask=mask * batch.valid, level=level)

    def _shares(self, count: int, device: torch.device) -> Levels:
        # Neighbours differ in level, and each class meets each level.
        index = torch.arange(count, device=device)
        levels = torch.tensor(self.test_levels, device=device)
        return levels[(index + index // len(self.classes)) % len(levels)]


class Patterns(ImageData):
    """The ten patterns of slide 2.2 or random fields, corrupted.

    In training classes are drawn at random; sample i of validation and test data has class i mod 10.

    Args:
        corruption, height, width, test_levels, batch_size, seed, fresh: see :class:`ImageData`.
        n_train, n_val, n_test: samples per split. 1,600 are the slides' 100 batches of 16 per epoch.
        kind: ``tutorial``, the slides' ten images; ``varied``, the ten with random parameters; ``fields``, band-limited
            random fields, without classes. The frequencies and contrasts of varied test data come from ranges that
            training leaves out but surrounds: interpolation.
        n_extrapolation: further test samples of varied patterns, after the others, with frequencies above all those of
            training.
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
        kind: Literal["tutorial", "varied", "fields"] = "tutorial",
        test_levels: Sequence[float] | None = None,
        n_extrapolation: int = 0,
        device: Literal["cpu", "cuda"] = "cpu",
    ) -> None:
        super().__init__(corruption, height, width, test_levels, batch_size, seed, fresh, device)
        for name, size in (("n_train", n_train), ("n_val", n_val), ("n_test", n_test)):
            require(size >= 1, name, "at least 1", size)
        require(kind in ("tutorial", "varied", "fields"), "kind", "tutorial, varied or fields", kind)
        possible = n_extrapolation == 0 or (n_extrapolation > 0 and kind == "varied")
        require(possible, "n_extrapolation", "0, or more where kind is varied", n_extrapolation)
        self.kind, self.n_extrapolation = kind, n_extrapolation
        self.sizes: dict[Split, int] = {"train": n_train, "val": n_val, "test": n_test}
        if kind != "fields":
            self.classes, self.noise = CLASSES, NOISE

    def clean(self, split: Split, generator: torch.Generator) -> tuple[Images, Int[Tensor, " b"]]:
        count, classes, device = self.sizes[split], len(self.classes), generator.device
        if split == "train":
            label = torch.randint(classes, (count,), generator=generator, device=device)
        else:
            label = torch.arange(count, device=device) % classes
        if self.kind == "fields":
            return fields(count, self.height, self.width, generator), label
        if self.kind == "varied":
            return varied(label, self.height, self.width, split, generator), label
        return draw(label, self.height, self.width, generator), label

    def generate(self, split: Split, generator: torch.Generator) -> Batch:
        batch = super().generate(split, generator)
        if split != "test" or not self.n_extrapolation:
            return batch
        label = torch.arange(self.n_extrapolation, device=generator.device) % len(self.classes)
        x = varied(label, self.height, self.width, split, generator, beyond=True)
        further = self.corrupted(x, label, split, generator, beyond=True)
        return Batch(*(torch.cat(pair) for pair in zip(batch, further, strict=True)))
