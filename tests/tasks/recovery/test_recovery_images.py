"""Varied patterns and random fields against their formulas, held-out parameters, and the splits of a folder."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eai.core.learn.data import SPLITS
from eai.tasks.recovery.corruptions import NoCorruption
from eai.tasks.recovery.folder import Folder, find_images, read_folder, read_image, split_of
from eai.tasks.recovery.losses import MSELoss
from eai.tasks.recovery.task import Recovery
from eai.tasks.recovery.unet import UNet
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


def write(folder: Path, count: int) -> None:
    for k in range(count):
        np.save(folder / f"{k:02}.npy", np.full((HEIGHT, WIDTH), k / 100))


def parts(path: Path, seed: int = 0) -> list[set[int]]:
    folder = Folder(NoCorruption(), str(path), val_share=0.2, test_share=0.3, seed=seed)
    return [{round(100 * x[0, 0, 0].item()) for x in folder.images[split]} for split in SPLITS]


def test_splits_of_a_folder_are_disjoint_and_complete_and_follow_the_seed(tmp_path: Path) -> None:
    write(tmp_path, 20)
    for seed in (0, 1):
        assert sorted(k for part in parts(tmp_path, seed) for k in part) == list(range(20))
    assert parts(tmp_path, 0) != parts(tmp_path, 1)


def test_one_more_image_moves_no_other_to_a_different_split(tmp_path: Path) -> None:
    write(tmp_path, 20)
    before = parts(tmp_path)
    np.save(tmp_path / "0.npy", np.full((HEIGHT, WIDTH), 0.99))
    assert [part - {99} for part in parts(tmp_path)] == before


def test_shares_of_the_splits_are_those_asked_for() -> None:
    count = 5000
    found = [split_of(f"{k}.png", 3, 0.2, 0.3) for k in range(count)]
    for split, share in zip(SPLITS, (0.5, 0.2, 0.3), strict=True):
        assert abs(found.count(split) / count - share) < 4 * (share * (1 - share) / count) ** 0.5


def test_a_split_without_images_is_refused(tmp_path: Path) -> None:
    write(tmp_path, 3)
    with pytest.raises(ValueError, match=r"path: expected at least one image in each split.*got 'none for"):
        Folder(NoCorruption(), str(tmp_path), val_share=0.01, test_share=0.01)


def test_size_is_that_of_the_files_unless_given(tmp_path: Path) -> None:
    write(tmp_path, 20)
    folder = Folder(NoCorruption(), str(tmp_path), val_share=0.2, test_share=0.3)
    assert (folder.height, folder.width) == (HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="path: expected images of 28 × 31, got '37 × 31'"):
        Folder(NoCorruption(), str(tmp_path), height=28)


def test_unet_without_recall_takes_the_size_of_the_files_and_with_recall_asks_for_one(tmp_path: Path) -> None:
    write(tmp_path, 20)
    data = Folder(NoCorruption(), str(tmp_path), val_share=0.2, test_share=0.3)
    task = Recovery(UNet(None, None, channels=2, dense=0), MSELoss(), torch.optim.Adam)
    task.check_data(data)
    assert task.predict(data.batch("test")).shape[-2:] == (HEIGHT, WIDTH)
    with pytest.raises(ValueError, match=r"height, width: expected numbers, .*dense: 0"):
        UNet(None, None)


def test_numbers_become_grey_values_by_their_type(tmp_path: Path) -> None:
    file = tmp_path / "x.npy"
    for value in (np.uint8(51), np.uint16(13107), np.float32(0.2), np.float64(0.2)):
        np.save(file, np.full((HEIGHT, WIDTH), value))
        torch.testing.assert_close(read_image(file), torch.full((HEIGHT, WIDTH), 0.2))
    for kind in (np.int64, np.int8, np.uint32, bool):
        np.save(file, np.ones((HEIGHT, WIDTH), dtype=kind))
        with pytest.raises(ValueError, match=rf"path: expected images of uint8, .*x\.npy: {np.dtype(kind)}"):
            read_image(file)
    for number in (51.0, -0.1, float("nan")):
        np.save(file, np.full((HEIGHT, WIDTH), number))
        with pytest.raises(ValueError, match=r"path: expected finite values in \[0, 1\], got .*x\.npy"):
            read_image(file)


def test_jpeg_and_subfolders_are_read_and_hidden_files_are_not(tmp_path: Path) -> None:
    (tmp_path / "more" / ".cache").mkdir(parents=True)
    grey = Image.fromarray(np.full((HEIGHT, WIDTH), 102, dtype=np.uint8))
    for name in ("a.png", "b.JPG", "more/c.jpeg"):
        grey.save(tmp_path / name)
    for name in ("._a.png", ".DS_Store", "more/.cache/d.png"):
        (tmp_path / name).write_bytes(b"no image")
    assert find_images(tmp_path) == ["a.png", "b.JPG", "more/c.jpeg"]
    torch.testing.assert_close(read_folder(tmp_path), torch.full((3, 1, HEIGHT, WIDTH), 0.4), rtol=0, atol=0.01)


@pytest.mark.parametrize("name", ["readme.txt", "cut.png", "cut.jpg", "cut.npy", "text.png"])
def test_files_that_are_no_images_are_refused_in_one_line_by_name(tmp_path: Path, name: str) -> None:
    write(tmp_path, 3)
    file = tmp_path / name
    values = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH), dtype=np.uint8)
    if name == "cut.npy":
        np.save(file, values)
    elif name.startswith("cut"):
        Image.fromarray(values).save(file)
    else:
        file.write_text("a text")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(ValueError, match=r"^path: expected ") as caught:
        read_folder(tmp_path)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
