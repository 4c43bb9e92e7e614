"""Splits, labels and fresh samples of the recovery data."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from eai.core.learn.data import SPLITS, split_generator
from eai.tasks.recovery.corruptions import Block, GaussianNoise
from eai.tasks.recovery.data import Batch, Patterns
from eai.tasks.recovery.patterns import CLASSES, NOISE

HEIGHT, WIDTH = 37, 31


def small(**changes: Any) -> Patterns:
    arguments: dict[str, Any] = {
        "corruption": GaussianNoise(0.2), "height": HEIGHT, "width": WIDTH,
        "n_train": 70, "n_val": 30, "n_test": 53, "batch_size": 3,
    }  # fmt: skip
    return Patterns(**(arguments | changes))


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_splits_have_their_sizes_and_shapes() -> None:
    data = small()
    for split, count in zip(SPLITS, (70, 30, 53), strict=True):
        batch = data.batch(split)
        assert batch.y.shape == batch.mask.shape == batch.x.shape == (count, 1, HEIGHT, WIDTH)
        assert batch.label.shape == (count,)
        assert batch.label.dtype == torch.int64


def test_validation_and_test_labels_are_balanced_and_training_labels_random() -> None:
    data = small()
    assert torch.bincount(data.batch("val").label).tolist() == [3] * len(CLASSES)
    assert torch.equal(data.batch("test").label, torch.arange(53) % len(CLASSES))
    label = small(n_train=10_000, height=8, width=9).batch("train").label
    # Binomial with p = 1/10: standard deviation √(n p (1−p)) = 30.
    assert (torch.bincount(label) - 1000).abs().max() < 4 * 30
    assert not torch.equal(label[:10], torch.arange(10))


def test_samples_differ_between_splits_and_between_seeds() -> None:
    val, test, other = small().batch("val", 30), small().batch("test", 30), small(seed=1).batch("val", 30)
    assert torch.equal(val.label, test.label)
    for batch in (test, other):
        assert all(not torch.equal(a, b) for a, b in zip(val.y, batch.y, strict=True))
        noise = val.label == NOISE
        assert not torch.equal(val.x[noise], batch.x[noise])


def test_fresh_training_samples_change_with_the_epoch_and_are_reproducible() -> None:
    data, again = small(), small()
    data.setup()
    again.setup()
    first = data.batch("train")
    data.samples["train"].set_epoch(1)
    assert not same(first, data.batch("train"))
    again.samples["train"].set_epoch(7)
    again.samples["train"].set_epoch(1)
    assert same(data.batch("train"), again.batch("train"))
    assert same(data.batch("train"), data.generate("train", split_generator(data.seed, "train", 1)))


def test_samples_stay_over_epochs_without_fresh_and_always_in_validation() -> None:
    data = small(fresh=False)
    data.setup()
    before = data.batch("train"), data.batch("val")
    for samples in data.samples.values():
        samples.set_epoch(3)
    assert same(before[0], data.batch("train"))
    assert same(before[1], data.batch("val"))


def test_hidden_pixels_are_marked_in_the_mask() -> None:
    batch = small(corruption=Block(10, fill=0.0)).batch("test")
    assert (batch.y[batch.mask == 0] == 0).all()
    assert torch.equal(batch.y[batch.mask == 1], batch.x[batch.mask == 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 7}, "height: expected at least 8 and at most 512, got 7"),
        ({"width": 7}, "width: expected at least 8 and at most 512, got 7"),
        ({"n_train": 0}, "n_train: expected at least 1, got 0"),
        ({"n_val": 0}, "n_val: expected at least 1, got 0"),
        ({"n_test": 0}, "n_test: expected at least 1, got 0"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"corruption": Block(32)}, r"corruption: .*min\(height, width\) = 31, got 32"),
        ({"test_levels": [0.1, 0.3]}, r"test_levels: expected null or levels with 0\.2, .*got \[0\.1, 0\.3\]"),
    ],
)
def test_arguments_out_of_range_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_levels_beyond_those_of_training_are_accepted_beside_its_single_one_or_its_range() -> None:
    for data in (
        small(test_levels=[0.2, 0.4]),
        small(corruption=GaussianNoise([0.1, 0.3]), test_levels=[0.4]),
    ):
        assert torch.isclose(data.batch("test").level, torch.tensor(0.4)).any()
