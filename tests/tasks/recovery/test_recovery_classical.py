"""The baselines of scikit-image against independent formulas, on 9 × 11 pixels."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch

from eai.tasks.recovery.classical import biharmonic, classical_methods, nearest, non_local_means, total_variation
from eai.tasks.recovery.corruptions import Block, GaussianNoise, RandomPixels, SaltAndPepper
from eai.tasks.recovery.data import Batch, Patterns

HEIGHT, WIDTH, B = 9, 11, 3


def batch_of(x: torch.Tensor, mask: torch.Tensor, level: list[float]) -> Batch:
    count = len(x)
    return Batch(
        x * mask, mask, x, torch.zeros(count).long(), torch.tensor(level), torch.zeros(count).bool(), torch.ones_like(x)
    )


def random_batch(fraction: float = 0.0, level: float = 0.2) -> Batch:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand(B, 1, HEIGHT, WIDTH, generator=generator)
    mask = (torch.rand(x.shape, generator=generator) >= fraction).float()
    return batch_of(x, mask, [level] * B)


def test_nearest_puts_the_nearest_seen_pixel_into_each_hidden_one_and_leaves_the_seen() -> None:
    batch = random_batch(0.6)
    found = nearest(batch)
    for b in range(B):
        seen = batch.mask[b, 0].nonzero().tolist()
        for i in range(HEIGHT):
            for j in range(WIDTH):
                least = min((i - p) ** 2 + (j - q) ** 2 for p, q in seen)
                # Of several at the same distance any will do.
                near = {batch.y[b, 0, p, q].item() for p, q in seen if (i - p) ** 2 + (j - q) ** 2 == least}
                assert found[b, 0, i, j].item() in near


def test_biharmonic_inpainting_keeps_seen_pixels_and_restores_a_surface_without_curvature() -> None:
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    plane = ((2 * rows + 3 * columns) / 60).expand(B, 1, HEIGHT, WIDTH)
    mask = torch.ones_like(plane)
    mask[:, :, 3:6, 4:7] = 0
    found = biharmonic(batch_of(plane, mask, [0.0] * B))
    torch.testing.assert_close(found, plane, rtol=0, atol=1e-5)


def test_inpainted_pixels_solve_the_biharmonic_equation() -> None:
    rows, columns = torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)
    x = (0.5 + 0.2 * torch.sin(0.5 * rows) + 0.2 * torch.cos(0.9 * columns)).expand(B, 1, HEIGHT, WIDTH)
    mask = torch.ones_like(x)
    mask[:, :, 4, 5:7] = 0
    batch = batch_of(x, mask, [0.0] * B)
    found = biharmonic(batch)
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    twice = torch.nn.functional.conv2d(torch.nn.functional.conv2d(found, laplacian), laplacian)
    torch.testing.assert_close(twice[:, 0, 2, 3:5], torch.zeros(B, 2), rtol=0, atol=1e-5)
    assert twice.abs().max() > 1e-3
    torch.testing.assert_close(found[mask == 1], x[mask == 1])


def test_total_variation_has_the_least_sum_of_variation_and_misfit() -> None:
    batch, weight = random_batch(), 0.2
    found = total_variation(batch, torch.full((B,), weight))

    def cost(image: torch.Tensor) -> float:
        down, across = image.diff(dim=0), image.diff(dim=1)
        down = torch.cat([down, torch.zeros(1, WIDTH, dtype=image.dtype)])
        across = torch.cat([across, torch.zeros(HEIGHT, 1, dtype=image.dtype)], 1)
        return float((down**2 + across**2).sqrt().sum() + (image - batch.y[0, 0]).square().sum() / (2 * weight))

    best = cost(found[0, 0].double())
    assert best < 0.8 * cost(batch.y[0, 0].double())
    generator = torch.Generator().manual_seed(5)
    for size in (0.02, 0.05):
        for _ in range(20):
            direction = size * torch.randn(HEIGHT, WIDTH, generator=generator, dtype=torch.float64)
            assert cost(found[0, 0].double() + direction) > best
    for factor in (0.5, 2.0):
        assert best < cost(total_variation(batch, torch.full((B,), factor * weight))[0, 0].double())


def slow_non_local_means(y: np.ndarray, h: float, sigma: float) -> np.ndarray:
    """Σ_s w_s y_s/Σ_s w_s, w_s = exp(−max(0, Σ_o g_o ((y_{r+o} − y_{s+o})² − 2σ²))/h²), g Gaussian, |s − r| ≤ 9."""
    padded, offsets = np.pad(y, 2, mode="reflect"), range(-2, 3)
    gauss = np.array([[math.exp(-(a * a + b * b) / 2) for b in offsets] for a in offsets])
    gauss /= gauss.sum()
    found = np.zeros_like(y)
    for i in range(HEIGHT):
        for j in range(WIDTH):
            total = weights = 0.0
            for p in range(max(0, i - 9), min(HEIGHT, i + 10)):
                for q in range(max(0, j - 9), min(WIDTH, j + 10)):
                    squares = (padded[i : i + 5, j : j + 5] - padded[p : p + 5, q : q + 5]) ** 2 - 2 * sigma**2
                    weight = math.exp(-max(0.0, float((gauss * squares).sum())) / h**2)
                    total, weights = total + weight * y[p, q], weights + weight
            found[i, j] = total / weights
    return found


def test_non_local_means_equal_the_slow_formula_with_the_noise_that_they_are_told() -> None:
    batch = random_batch()._replace(level=torch.tensor([0.1, 0.2, 0.15]))
    strength = torch.tensor([0.1, 0.2, 0.3])
    found = non_local_means(batch, strength, told=True)
    for b in (0, 2):
        y = batch.y[b, 0].double().numpy()
        expected = slow_non_local_means(y, strength[b].item(), batch.level[b].item())
        # scikit-image leaves out weights below exp(−5).
        np.testing.assert_allclose(found[b, 0].numpy(), expected, rtol=0, atol=0.01)
    other = non_local_means(batch._replace(level=torch.full((B,), 0.4)), strength, told=True)
    assert (other - found).abs().max() > 0.01
    untold = partial(non_local_means, strength=strength, told=False)
    assert torch.equal(untold(batch._replace(level=torch.full((B,), 0.4))), untold(batch))


@pytest.mark.parametrize(
    ("corruption", "expected"),
    [
        (Block(3), {"nearest", "biharmonic"}),
        (RandomPixels(0.3), {"nearest", "biharmonic"}),
        (GaussianNoise(0.2), {"median", "total_variation", "non_local_means"}),
        (SaltAndPepper(0.1), {"median", "total_variation", "non_local_means"}),
    ],
)
def test_classical_methods_stand_where_they_make_sense(
    corruption: Block | RandomPixels | GaussianNoise | SaltAndPepper, expected: set[str]
) -> None:
    data = Patterns(corruption, HEIGHT, WIDTH, n_train=1, n_val=1, n_test=1)
    assert set(classical_methods(corruption, data)) == expected


def test_image_without_a_seen_pixel_stays_as_it_is() -> None:
    x = torch.rand(2, 1, HEIGHT, WIDTH)
    mask = torch.ones_like(x)
    mask[1] = 0
    batch = batch_of(x, mask, [0.0, 0.0])
    for method in (nearest, biharmonic):
        assert torch.equal(method(batch)[1], batch.y[1])
