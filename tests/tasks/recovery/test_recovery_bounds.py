"""The best possible estimates against sums over all classes and over a grid of clean values."""

from __future__ import annotations

import math

import pytest
import torch

from eai.tasks.recovery.bounds import exact_posterior, known_class, noisy_posterior
from eai.tasks.recovery.data import Batch
from eai.tasks.recovery.likelihood import GaussianLikelihood

# Three classes of images with three pixels; the last class is noise wherever it is not 1.
TEMPLATES = torch.tensor([[1, 0.25, 0.75], [0.3, 0.25, 0.9], [1, 0.5, 0.5]])[:, None]
NOISE = 2
GRID = [(i + 0.5) / 4000 for i in range(4000)]


def observed(y: list[float], mask: list[float], sigma: float = 0.0, label: int = 0) -> Batch:
    seen = torch.tensor(mask, dtype=torch.float32)[None, None, None]
    values = torch.tensor(y, dtype=torch.float32)[None, None, None]
    return Batch(
        values,
        seen,
        values,
        torch.tensor([label]),
        torch.tensor([sigma]),
        torch.tensor([False]),
        torch.ones_like(values),
    )


def likelihood(y: float, x: float, sigma: float, clip: bool) -> float:
    """p(y | x), or the probability of all that clipping turns into y."""
    if clip and y == 0:
        return 0.5 * math.erfc(x / sigma / math.sqrt(2))
    if clip and y == 1:
        return 0.5 * math.erfc((1 - x) / sigma / math.sqrt(2))
    return math.exp(-0.5 * ((y - x) / sigma) ** 2) / sigma / math.sqrt(2 * math.pi)


def slow(y: list[float], sigma: float, clip: bool) -> tuple[list[float], list[list[float]]]:
    """Weight of each class and E[x | y, class] of each pixel."""
    weights, means = [], []
    for k, template in enumerate(TEMPLATES[:, 0].tolist()):
        weight, mean = 1.0, []
        for value, pixel in zip(template, y, strict=True):
            clean = GRID if k == NOISE and value != 1 else [value]
            chances = [likelihood(pixel, x, sigma, clip) for x in clean]
            weight *= sum(chances) / len(clean)
            mean.append(sum(x * p for x, p in zip(clean, chances, strict=True)) / sum(chances))
        weights.append(weight)
        means.append(mean)
    return [weight / sum(weights) for weight in weights], means


@pytest.mark.parametrize(
    ("y", "clip"),
    [([1, 0.2, 0.8], True), ([1, 0, 1], True), ([0, 1, 0.6], True), ([0.8, 0.3, 1], True), ([1.2, -0.1, 0.7], False)],
)
def test_estimate_from_noise_is_the_mean_over_all_classes_and_clean_values(y: list[float], clip: bool) -> None:
    sigma = 0.3
    weights, means = slow(y, sigma, clip)
    expected = [sum(w * mean[j] for w, mean in zip(weights, means, strict=True)) for j in range(3)]
    found = noisy_posterior(observed(y, [1, 1, 1], sigma), TEMPLATES, NOISE, GaussianLikelihood(clip))
    assert found.flatten().tolist() == pytest.approx(expected, abs=1e-4)
    for label in range(3):
        told = known_class(observed(y, [1, 1, 1], sigma, label), TEMPLATES, NOISE, GaussianLikelihood(clip))
        assert told.flatten().tolist() == pytest.approx(means[label], abs=1e-4)


@pytest.mark.parametrize(
    ("y", "mask", "expected"),
    [
        # Only the disc is seen: pattern and noise remain equally likely.
        ([1, 0, 0], [1, 0, 0], [1, 0.375, 0.625]),
        # The disc of the noise class would be 1 here.
        ([0.3, 0, 0], [1, 0, 0], [0.3, 0.25, 0.9]),
        # A pixel outside the disc agrees with a pattern, which noise does with probability 0.
        ([1, 0.25, 0], [1, 1, 0], [1, 0.25, 0.75]),
        # Only noise can have this value.
        ([1, 0.6, 0], [1, 1, 0], [1, 0.6, 0.5]),
        # Two patterns share a pixel outside the disc.
        ([0, 0.25, 0], [0, 1, 0], [0.65, 0.25, 0.825]),
    ],
)
def test_estimate_from_exact_pixels_is_the_mean_of_the_classes_that_remain(
    y: list[float], mask: list[float], expected: list[float]
) -> None:
    found = exact_posterior(observed(y, mask), TEMPLATES, NOISE)
    assert found.flatten().tolist() == pytest.approx(expected)


def test_a_fixed_pattern_outweighs_noise_only_where_pixels_of_the_noise_are_seen() -> None:
    # Without any seen pixel all three classes remain; with pixels of the disc alone, those that are 1 there.
    none = exact_posterior(observed([0, 0, 0], [0, 0, 0]), TEMPLATES, NOISE).flatten().tolist()
    assert none == pytest.approx([2.3 / 3, 1 / 3, 2.15 / 3])
    disc = exact_posterior(observed([1, 0, 0], [1, 0, 0]), TEMPLATES, NOISE).flatten().tolist()
    assert disc == pytest.approx([1, 0.375, 0.625])
    outside = exact_posterior(observed([1, 0, 0.75], [1, 0, 1]), TEMPLATES, NOISE).flatten().tolist()
    assert outside == pytest.approx([1, 0.25, 0.75])


@pytest.mark.parametrize("label", [0, 1, NOISE])
def test_oracle_of_the_class_keeps_seen_pixels_and_has_the_class_mean_elsewhere(label: int) -> None:
    batch = observed([0.11, 0.0, 0.22], [1, 0, 1], label=label)
    found = known_class(batch, TEMPLATES, NOISE, None).flatten().tolist()
    assert found == pytest.approx([0.11, TEMPLATES[label, 0, 1].item(), 0.22])


def test_hidden_pixels_tell_nothing_of_the_class_and_have_the_mean_of_what_remains() -> None:
    sigma, likely = 0.3, GaussianLikelihood(clip=True)
    weights, means = slow([0.9, 0.5, 0.0], sigma, clip=True)
    expected = []
    for hidden in (0.0, 0.7):
        batch = observed([0.9, 0.5, hidden], [1, 1, 0], sigma)
        expected.append(noisy_posterior(batch, TEMPLATES, NOISE, likely).flatten().tolist())
    assert expected[0] == pytest.approx(expected[1])
    # The weights of the first two pixels alone.
    weights = []
    for k, template in enumerate(TEMPLATES[:, 0].tolist()):
        clean = [GRID if k == NOISE and value != 1 else [value] for value in template[:2]]
        pairs = zip([0.9, 0.5], clean, strict=True)
        weights.append(math.prod(sum(likelihood(y, x, sigma, True) for x in xs) / len(xs) for y, xs in pairs))
    values = [0.75, 0.9, 0.5]
    mean = sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights)
    assert expected[0][2] == pytest.approx(mean, abs=1e-4)
    assert means[0] == pytest.approx([1, 0.25, 0.75])
