"""Regression, optimal interpolation and analogues against slow formulas on small images of 9 × 11 pixels."""

from __future__ import annotations

import math

import pytest
import torch

from eai.tasks.recovery.baselines import references
from eai.tasks.recovery.corruptions import Block, Corruption, GaussianNoise, RandomPixels, SaltAndPepper
from eai.tasks.recovery.data import Batch, Patterns
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.statistical import Analogues, LinearRegression, OptimalInterpolation

HEIGHT, WIDTH, B = 9, 11, 3


def pair(corruption: Corruption, height: int = HEIGHT, width: int = WIDTH) -> tuple[Batch, Batch]:
    data = Patterns(corruption, height, width, n_train=17, n_val=1, n_test=B, kind="varied")
    return data.batch("train"), data.batch("test")


def test_linear_regression_is_ridge_regression_with_a_penalty_for_each_sample() -> None:
    train, test = pair(GaussianNoise(0.2))
    penalty = torch.tensor([0.1, 0.3, 2.0])
    found = LinearRegression(train)(test, penalty)
    x, y = train.x.flatten(1).double(), train.y.flatten(1).double()
    covariance, cross = torch.cov(y.T, correction=0), (y - y.mean(0)).T @ (x - x.mean(0)) / len(x)
    for i in range(B):
        weights = torch.linalg.solve(covariance + penalty[i] * torch.eye(len(covariance)), cross)
        expected = x.mean(0) + (test.y[i].flatten() - y.mean(0)) @ weights
        torch.testing.assert_close(found[i].flatten().double(), expected.clamp(0, 1), rtol=0, atol=1e-5)


def covariance(images: torch.Tensor) -> torch.Tensor:
    """Between all pairs of pixels: Σ_k S(|k|) cos(2π k·(r − s))/n, S the mean power in all modes of equal |k|."""
    height, width = images.shape[-2:]
    rows, columns = (torch.arange(n, dtype=torch.float64) for n in (height, width))
    i, j = rows.repeat_interleave(width), columns.repeat(height)
    anomaly = (images - images.mean()).flatten(1).double()
    modes = [(p, q) for p in range(-(height // 2), height // 2 + 1) for q in range(-(width // 2), width // 2 + 1)]
    powers: dict[float, list[float]] = {}
    for p, q in modes:
        wave = torch.exp(-2j * math.pi * (p * i / height + q * j / width))
        power = (anomaly.to(wave.dtype) @ wave).abs().square().mean().item() / (height * width)
        powers.setdefault(round(math.hypot(p / height, q / width), 6), []).append(power)
    total = torch.zeros(height * width, height * width, dtype=torch.float64)
    for p, q in modes:
        same = powers[round(math.hypot(p / height, q / width), 6)]
        phase = 2 * math.pi * (p * i / height + q * j / width)
        total += sum(same) / len(same) * torch.cos(phase[:, None] - phase)
    return total / (height * width)


@pytest.mark.parametrize(
    ("corruption", "height", "width"),
    [(GaussianNoise(0.2), 9, 11), (RandomPixels(0.4), 9, 11), (Downscale(3, "mean"), 9, 15), (Block(4), 9, 9)],
)
def test_optimal_interpolation_is_the_best_linear_estimate_of_an_isotropic_covariance(
    corruption: Corruption, height: int, width: int
) -> None:
    train, test = pair(corruption, height, width)
    error = torch.tensor([0.1, 0.2, 0.4])
    method = OptimalInterpolation(train, corruption)
    found = method(test, error)
    spread, mean = covariance(train.x), train.x.double().mean()
    for i in range(B):
        if isinstance(corruption, Downscale):
            # Each seen number is a block's mean; in all 9 of its pixels it counts as 9 numbers of error s.
            cells = torch.arange(height * width).view(height, width)
            blocks = cells.unfold(0, 3, 3).unfold(1, 3, 3).flatten(2).flatten(0, 1)
            observe = torch.zeros(len(blocks), height * width, dtype=torch.float64).scatter_(1, blocks, 1 / 9)
            seen, variance = observe @ test.y[i].flatten().double(), error[i] ** 2 / 9
        else:
            observe = torch.eye(height * width, dtype=torch.float64)[test.mask[i].flatten() == 1]
            seen, variance = observe @ test.y[i].flatten().double(), error[i] ** 2
        inner = observe @ spread @ observe.T + variance * torch.eye(len(observe))
        expected = mean + spread @ observe.T @ torch.linalg.solve(inner, seen - mean)
        expected = expected.clamp(0, 1).view(1, height, width)
        if corruption.exact:
            expected = torch.where(test.mask[i] == 1, test.y[i].double(), expected)
        torch.testing.assert_close(found[i].double(), expected, rtol=0, atol=1e-3)
        alone = method(Batch(*(field[i : i + 1] for field in test)), error[i : i + 1])
        # The iteration ends at a residual of 1e-4, by rounding perhaps one step later.
        torch.testing.assert_close(alone[0], found[i], rtol=0, atol=1e-4)


@pytest.mark.parametrize("invariant", [False, True])
@pytest.mark.parametrize("width", [HEIGHT, WIDTH])
def test_analogues_are_the_training_images_weighted_by_their_fit_to_the_seen_pixels(
    invariant: bool, width: int
) -> None:
    corruption, scale = RandomPixels(0.6), 0.7
    train, test = pair(corruption, HEIGHT, width)
    found = Analogues(train.x, corruption, invariant)(test, torch.full((B,), scale))
    library = list(train.x[:, 0] - 0.5)
    if invariant:
        quarters = range(4) if width == HEIGHT else (0, 2)
        library = [torch.rot90(z, q) for image in library for z in (image, image.flip(0)) for q in quarters]
    for i in range(B):
        seen = test.mask[i, 0] == 1
        y = test.y[i, 0] - 0.5
        weights, images = [], []
        for image in library:
            a = min(2.0, max(0.5, float((y * image)[seen].sum() / image[seen].square().sum()))) if invariant else 1.0
            weights.append(math.exp(-float((y - a * image)[seen].square().sum()) / (2 * scale**2)))
            images.append(0.5 + a * image)
        expected = sum(w * image for w, image in zip(weights, images, strict=True)) / sum(weights)
        expected = torch.where(seen, test.y[i, 0], expected)
        torch.testing.assert_close(found[i, 0], expected, rtol=0, atol=1e-4)


def names(corruption: Corruption, kind: str = "varied") -> set[str]:
    data = Patterns(corruption, 12, 16, n_train=20, n_val=4, n_test=4, kind=kind)
    return set(references(data, classical=False)) - {"input", "mean_fill", "pattern_mean"}


def test_references_that_learn_from_training_images_stand_wherever_they_make_sense() -> None:
    assert names(RandomPixels(0.5)) == {"optimal_interpolation", "analogues"}
    for corruption in (GaussianNoise(0.2), SaltAndPepper(0.1)):
        assert names(corruption) == {"wiener", "linear_regression", "analogues"}
    coarse = names(Downscale(4), "fields")
    assert coarse == {"nearest", "bilinear", "bicubic", "optimal_interpolation", "linear_regression"}


def test_references_learn_from_the_first_epoch_even_in_a_later_one() -> None:
    data = Patterns(GaussianNoise(0.2), HEIGHT, WIDTH, n_train=20, n_val=4, n_test=4)
    data.setup()
    first = {name: method(data.batch("test")) for name, method in references(data, classical=False).items()}
    data.samples["train"].set_epoch(3)
    for name, method in references(data, classical=False).items():
        assert torch.equal(method(data.batch("test")), first[name])
