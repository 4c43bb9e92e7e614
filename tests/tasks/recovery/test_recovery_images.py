"""Varied patterns and random fields against their formulas, held-out parameters, and the splits of a folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from eai.tasks.recovery.corruptions import NoCorruption
from eai.tasks.recovery.folder import Folder
from eai.tasks.recovery.varied import fields, shares, varied

HEIGHT, WIDTH = 37, 31


def slow(k: int, u: float, v: float, f: float, phase: float) -> float:
    """Class k at one point, in [0, 1]."""
    r, across, along = math.hypot(u, v), math.sin(12 * f * u + phase), math.sin(12 * f * v + phase)
    waves = round(5 * f)
    return float(
        [
            (math.sin(5 * f * r**2 + phase) + 1) / 2,
            across > 0,
            (along + 1) / 2,
            abs(u * f) < 0.1,
            across * along > 0,
            (math.sin(2 * waves * math.atan2(v, u) + phase) + 1) / 2,
            (math.sin(6 * f * r + phase) + 1) / 2,
            r * f <= 0.5,
            (abs(u) + abs(v)) * f <= 0.5,
            across > 0.6 and along > 0.6,
        ][k]
    )


@pytest.mark.parametrize("split", ["train", "test"])
def test_varied_patterns_equal_their_formulas_pixel_by_pixel(split: str) -> None:
    found = varied(torch.arange(10), HEIGHT, WIDTH, split, torch.Generator().manual_seed(4))[:, 0]
    generator = torch.Generator().manual_seed(4)
    factor, contrast = (a + b * shares((10,), split, generator) for a, b in ((0.6, 0.8), (0.5, 0.5)))
    phase, angle, up, left = torch.rand(4, 10, generator=generator).tolist()
    for k in range(10):
        f, turn = factor[k].item(), 2 * math.pi * angle[k]
        differing = 0
        for i in range(HEIGHT):
            for j in range(WIDTH):
                y = 2 * i / (HEIGHT - 1) - 1 - 0.6 * (up[k] - 0.5)
                x = 2 * j / (WIDTH - 1) - 1 - 0.6 * (left[k] - 0.5)
                u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
                if k == 7 and math.hypot(u, v) * f > 0.499:
                    continue
                expected = 0.5 + contrast[k].item() * (slow(k, u, v, f, 2 * math.pi * phase[k]) - 0.5)
                differing += abs(found[k, i, j].item() - expected) > 1e-3
        # Pixels on an edge may fall on either side of it by rounding.
        assert differing <= 2, k


def test_varied_patterns_lie_in_the_unit_interval_and_differ_within_a_class() -> None:
    x = varied(torch.arange(200) % 10, HEIGHT, WIDTH, "train", torch.Generator().manual_seed(1))
    assert x.min() >= 0
    assert x.max() <= 1
    for k in range(10):
        assert len(torch.unique(x[k::10].flatten(1), dim=0)) == 20


def test_contrast_of_test_images_is_one_that_training_leaves_out() -> None:
    stripes = torch.ones(300, dtype=torch.int64)
    contrast = {}
    for split in ("train", "val", "test"):
        x = varied(stripes, HEIGHT, WIDTH, split, torch.Generator().manual_seed(1)).flatten(1)
        contrast[split] = x.amax(1) - x.amin(1)
    assert ((contrast["test"] >= 0.7) & (contrast["test"] <= 0.8)).all()
    for split in ("train", "val"):
        assert ((contrast[split] < 0.7 + 1e-6) | (contrast[split] > 0.8 - 1e-6)).all()
        assert contrast[split].min() < 0.52
        assert contrast[split].max() > 0.98


def test_fields_are_band_limited_with_power_like_k_to_the_minus_three_and_span_the_unit_interval() -> None:
    count = 2000
    x = fields(count, HEIGHT, WIDTH, torch.Generator().manual_seed(1))
    torch.testing.assert_close(x.amin((1, 2, 3)), torch.zeros(count))
    torch.testing.assert_close(x.amax((1, 2, 3)), torch.ones(count))
    power = torch.fft.rfft2(x[:, 0].double()).abs().square()
    k = (torch.fft.fftfreq(HEIGHT)[:, None] ** 2 + torch.fft.rfftfreq(WIDTH) ** 2).sqrt()
    assert power[:, k > 0.2501].max() < 1e-6 * power[:, k == k[0, 1]].mean()
    # Each image has its own scale, which the ratio of two of its modes cancels. The logarithm of the power of
    # a complex Gaussian mode has the variance π²/6.
    ratio = (power[:, 0, 2] / power[:, 3, 5]).log().mean().item()
    expected = -3 * math.log(k[0, 2] / k[3, 5])
    assert ratio == pytest.approx(expected, abs=5 * math.sqrt(2 * math.pi**2 / 6 / count))


def test_splits_of_a_folder_are_disjoint_and_complete_and_follow_the_seed(tmp_path: Path) -> None:
    count = 20
    for k in range(count):
        np.save(tmp_path / f"{k:02}.npy", np.full((HEIGHT, WIDTH), k / count))
    parts = {}
    for seed in (0, 1):
        folder = Folder(NoCorruption(), str(tmp_path), HEIGHT, WIDTH, val_share=0.2, test_share=0.3, seed=seed)
        parts[seed] = [[round(count * x[0, 0, 0].item()) for x in folder.images[s]] for s in ("train", "val", "test")]
        assert [len(part) for part in parts[seed]] == [10, 4, 6]
        assert sorted(k for part in parts[seed] for k in part) == list(range(count))
    assert parts[0] != parts[1]
