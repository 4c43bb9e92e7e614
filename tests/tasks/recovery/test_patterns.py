"""Each pattern against a slow formula, pixel by pixel, on 37 × 31 and 28 × 28 grids with exact coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch

from eai.tasks.recovery import patterns
from eai.tasks.recovery.patterns import CLASSES, NOISE, class_means, draw, noise_with_circle

HEIGHT, WIDTH = 37, 31


def slow(
    formula: Callable[[int, int, Fraction, Fraction], float], scale: bool, height: int, width: int
) -> torch.Tensor:
    z = [
        [formula(i, j, Fraction(2 * i, height - 1) - 1, Fraction(2 * j, width - 1) - 1) for j in range(width)]
        for i in range(height)
    ]
    low, high = min(map(min, z)), max(map(max, z))
    return torch.tensor([[(v - low) / (high - low) if scale else v for v in row] for row in z], dtype=torch.float32)


# name: (value of pixel (i, j) at (y, x), whether it is scaled to [0, 1])
FORMULAS: dict[str, tuple[Callable[[int, int, Fraction, Fraction], float], bool]] = {
    "concentric_circles": (lambda i, j, y, x: math.sin(5 * (x * x + y * y)), True),
    "vertical_stripes": (lambda i, j, y, x: float(j % 2 == 0), False),
    "horizontal_stripes": (lambda i, j, y, x: float(i % 2 == 0), False),
    "diagonal": (lambda i, j, y, x: float(i == j), False),
    "checkerboard": (lambda i, j, y, x: float((i + j) % 2), False),
    "star": (lambda i, j, y, x: math.sin(10 * math.atan2(y, x)), True),
    "spiral": (lambda i, j, y, x: math.sin(6 * math.sqrt(x * x + y * y)), True),
    "grid_of_dots": (lambda i, j, y, x: float(i % 4 == 0 and j % 4 == 0), False),
}


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (28, 28)])
def test_pattern_equals_its_formula_pixel_by_pixel(name: str, height: int, width: int) -> None:
    image = getattr(patterns, name)(height, width)
    torch.testing.assert_close(image, slow(*FORMULAS[name], height, width), rtol=0, atol=2e-6)
    assert image.min() == 0
    assert image.max() == 1
    assert torch.equal(class_means(height, width)[CLASSES.index(name)], image)


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (28, 28)])
def test_diamond_reaches_from_edge_to_edge(height: int, width: int) -> None:
    a, b = height // 2, width // 2
    expected = [[Fraction(abs(i - a), a) + Fraction(abs(j - b), b) <= 1 for j in range(width)] for i in range(height)]
    image = patterns.diamond(height, width)
    assert torch.equal(image, torch.tensor(expected).float())
    assert torch.equal(class_means(height, width)[CLASSES.index("diamond")], image)
    assert (height, width) != (28, 28) or image.sum() == 419  # as the slides' authors draw it


def test_every_class_but_the_noise_has_a_formula() -> None:
    assert set(CLASSES) - set(FORMULAS) - {"diamond"} == {CLASSES[NOISE]} == {"noise_with_circle"}


def test_circle_is_one_and_the_noise_around_it_is_uniform_and_new_in_each_sample(generator: torch.Generator) -> None:
    count = 400
    images = noise_with_circle(count, HEIGHT, WIDTH, generator)
    inside = slow(lambda i, j, y, x: float(x * x + y * y <= Fraction(1, 4)), False, HEIGHT, WIDTH).bool()
    assert (images[:, inside] == 1).all()
    noise = images[:, ~inside]
    assert noise.min() >= 0
    assert noise.max() < 1
    # Mean and variance of U(0, 1) are 1/2 and 1/12, with variances 1/12 n and 1/180 n.
    assert abs(noise.mean() - 1 / 2) < 4 / math.sqrt(12 * noise.numel())
    assert abs(noise.var() - 1 / 12) < 4 / math.sqrt(180 * noise.numel())
    assert (noise[0] != noise[1]).all()


def test_drawn_images_are_those_of_their_labels_and_only_noise_differs_from_the_class_mean(
    generator: torch.Generator,
) -> None:
    label = torch.tensor([9, 0, NOISE, 4, NOISE])
    images = draw(label, HEIGHT, WIDTH, generator)[:, 0]
    same = (images == class_means(HEIGHT, WIDTH)[label]).all((1, 2))
    assert same.tolist() == [True, True, False, True, False]
    assert not torch.equal(images[2], images[4])


def test_mean_of_many_noise_images_is_the_class_mean(generator: torch.Generator) -> None:
    count = 2000
    mean = noise_with_circle(count, HEIGHT, WIDTH, generator).mean(0)
    assert (mean - class_means(HEIGHT, WIDTH)[NOISE]).abs().max() < 5 / math.sqrt(12 * count)


def test_all_images_lie_between_zero_and_one_at_the_smallest_size(generator: torch.Generator) -> None:
    images = draw(torch.arange(10), 8, 11, generator)
    assert torch.isfinite(images).all()
    assert images.min() >= 0
    assert images.max() <= 1
