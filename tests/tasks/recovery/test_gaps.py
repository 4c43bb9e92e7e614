"""Swaths and clouds: how much they hide, and in which shape."""

from __future__ import annotations

import math

import pytest
import torch

from eai.tasks.recovery.corruptions import Corruption
from eai.tasks.recovery.gaps import Clouds, Swath

X = torch.full((3, 1, 37, 61), 0.25)


@pytest.mark.parametrize("corruption", [Swath((0.2, 0.7)), Clouds((0.2, 0.7))])
def test_seen_pixels_are_exact_and_hidden_ones_are_zero(corruption: Corruption, generator: torch.Generator) -> None:
    y, mask, level = corruption(X, generator)
    assert torch.equal(y, X * mask)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert ((level >= 0.2) & (level <= 0.7)).all()
    assert len({tuple(image.flatten().tolist()) for image in mask}) == len(X)


def test_clouds_hide_exactly_their_share(generator: torch.Generator) -> None:
    level = torch.tensor([0.0, 0.31, 1.0])
    _, mask, _ = Clouds()(X, generator, level)
    assert (1 - mask).sum((1, 2, 3)).tolist() == [0, math.floor(0.31 * 37 * 61), 37 * 61]


def test_field_of_clouds_has_its_correlation(generator: torch.Generator) -> None:
    field = Clouds(length=3.0).field(torch.zeros(400, 1, 40, 48), generator)
    variance = field.square().mean()
    for distance in (1, 2, 3, 5):
        for axis in (2, 3):
            product = (field * field.roll(distance, axis)).mean() / variance
            # 400 fields of some 40 independent places each: a standard error below 0.01.
            assert product.item() == pytest.approx(math.exp(-(distance**2) / 18), abs=0.03)


def test_swaths_hide_their_share_whatever_their_inclination(generator: torch.Generator) -> None:
    x = torch.zeros(200, 1, 64, 96)
    for fraction in (0.25, 0.6):
        _, mask, _ = Swath(fraction, period=16, inclination=(0, 40))(x, generator)
        # A phase shifts each image's share by no more than a stripe; the mean over 200 phases is within 0.01.
        assert (1 - mask).mean().item() == pytest.approx(fraction, abs=0.01)


def test_swaths_are_straight_lines_of_their_inclination(generator: torch.Generator) -> None:
    _, mask, _ = Swath(0.5, period=20, inclination=45)(torch.zeros(40, 1, 30, 30), generator)
    # At 45 degrees one step down is one step to the side: to the left in some samples, to the right in others.
    left = torch.equal(mask[0, 0, 1:, :-1], mask[0, 0, :-1, 1:])
    shifts = [(torch.equal(m[1:, :-1], m[:-1, 1:]), torch.equal(m[1:, 1:], m[:-1, :-1])) for m in mask[:, 0]]
    assert all(a != b for a, b in shifts)
    assert {left, *(a for a, _ in shifts)} == {True, False}
    upright, _, _ = Swath(0.5, period=20, inclination=0)(torch.ones(1, 1, 30, 30), generator)
    assert torch.equal(upright[0, 0], upright[0, 0, :1].expand(30, 30))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Swath(1.5), "fraction: expected 0 ≤ fraction ≤ 1"),
        (lambda: Swath(period=0), "period: expected more than 0"),
        (lambda: Swath(inclination=(20, 100)), "inclination: expected 0 to 90 degrees"),
        (lambda: Clouds((0.5, 0.2)), r"fraction: expected a number or \[smallest, largest\]"),
        (lambda: Clouds(length=0), "length: expected more than 0"),
    ],
)
def test_impossible_gaps_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
