"""Mask-aware nets, the ELBO with a learned variance, the score of downscaling, and calibrated baselines."""

from __future__ import annotations

import cmath
import math

import pytest
import torch
from torch.distributions import Normal

from eai.tasks.recovery.calibration import Calibrated
from eai.tasks.recovery.charts import isotropic_power
from eai.tasks.recovery.classical import median
from eai.tasks.recovery.corruptions import GaussianNoise, RandomPixels
from eai.tasks.recovery.data import Batch, Patterns
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.losses import ELBOLoss
from eai.tasks.recovery.nets import BottleneckAutoencoder, Reconstruction
from eai.tasks.recovery.scores import Scoring, fine_power
from eai.tasks.recovery.subpixel import SubPixel
from eai.tasks.recovery.unet import UNet

HEIGHT, WIDTH, B = 37, 31, 3


@pytest.fixture
def batch() -> Batch:
    return Patterns(RandomPixels(0.5), HEIGHT, WIDTH, n_train=1, n_val=1, n_test=B).batch("test")


@pytest.mark.parametrize("dense", [0, 5])
def test_unet_gives_images_between_zero_and_one_that_depend_on_the_mask(dense: int, batch: Batch) -> None:
    torch.manual_seed(0)
    net = UNet(HEIGHT, WIDTH, channels=3, dense=dense)
    image = net(batch).image
    assert image.shape == (B, 1, HEIGHT, WIDTH)
    assert image.min() > 0
    assert image.max() < 1
    assert not torch.equal(image, net(batch._replace(mask=torch.ones_like(batch.mask))).image)
    with pytest.raises(ValueError, match=r"net: expected .*31 × 37, got '37 × 31'"):
        UNet(WIDTH, HEIGHT, channels=3, dense=dense)(batch)


def test_every_pixel_of_the_recall_sees_the_whole_image_and_that_of_the_unet_alone_does_not(batch: Batch) -> None:
    torch.manual_seed(0)
    reached = {}
    for dense in (0, 5):
        y = batch.y[:1].clone().requires_grad_()
        one = Batch(y, *(field[:1] for field in batch[1:]))
        UNet(HEIGHT, WIDTH, channels=3, dense=dense)(one).image[0, 0, 0, 0].backward()
        assert y.grad is not None
        reached[dense] = bool(y.grad[0, 0, -1, -1] != 0)
    assert reached == {0: False, 5: True}


def test_image_of_the_bottleneck_has_no_more_degrees_of_freedom_than_its_code(batch: Batch) -> None:
    torch.manual_seed(0)
    code = 2
    net = BottleneckAutoencoder(HEIGHT, WIDTH, code)
    assert net(batch).image.shape == (B, 1, HEIGHT, WIDTH)
    y = batch.y[:1]

    def pixels(y: torch.Tensor) -> torch.Tensor:
        return net(Batch(y, *(field[:1] for field in batch[1:]))).image[0, 0, ::6, ::6].flatten()

    jacobian = torch.autograd.functional.jacobian(pixels, y).flatten(1).double()
    singular = torch.linalg.svdvals(jacobian)
    assert singular[code:].max() < 1e-4 * singular[0]


def test_reconstruction_term_is_the_gaussian_log_likelihood_up_to_log_pi_and_least_at_the_mean_square(
    batch: Batch, generator: torch.Generator
) -> None:
    image, variance = torch.rand(batch.x.shape, generator=generator), 0.03
    output = Reconstruction(image, torch.zeros(B, 2), torch.zeros(B, 2))
    loss = ELBOLoss(variance=variance, learn_variance=True)
    pixels = HEIGHT * WIDTH
    likelihood = Normal(image, math.sqrt(variance)).log_prob(batch.x).sum((1, 2, 3))
    found = loss(output, batch)["reconstruction"] + pixels / 2 * math.log(math.pi)
    torch.testing.assert_close(found, -likelihood, rtol=1e-4, atol=1e-2)
    best = ELBOLoss(variance=(image - batch.x).square().mean().item(), learn_variance=True)
    best(output, batch)["reconstruction"].mean().backward()
    assert best.log_twice_variance.grad is not None
    assert abs(best.log_twice_variance.grad.item()) < 1e-3 * pixels


def slow_mode(image: torch.Tensor, row: int, column: int) -> float:
    """|Σ x exp(−2πi (row y/h + column x/w))|²."""
    height, width = image.shape
    total = 0j
    for i in range(height):
        for j in range(width):
            total += image[i, j].item() * cmath.exp(-2j * math.pi * (row * i / height + column * j / width))
    return abs(total) ** 2


def test_fine_power_and_isotropic_spectrum_equal_the_slow_formulas(generator: torch.Generator) -> None:
    height, width, factor = 12, 8, 2
    image = torch.rand(1, 1, height, width, generator=generator)
    fine, rings = 0.0, {k: [] for k in range(width // 2 + 1)}
    for row in range(-(height // 2), height // 2):
        for column in range(-(width // 2), width // 2):
            power = slow_mode(image[0, 0], row, column)
            y, x = abs(row / height), abs(column / width)
            fine += power if max(y, x) > 0.5 / factor else 0
            rings.setdefault(round(math.hypot(y, x) * width), []).append(power / (height * width) ** 2)
    assert fine_power(image, factor).item() == pytest.approx(fine, rel=1e-4)
    wavelengths, found = isotropic_power(image)
    assert wavelengths == [8, 4, 8 / 3, 2]
    assert found == pytest.approx([sum(rings[k]) / len(rings[k]) for k in (1, 2, 3, 4)], rel=1e-4)


def test_consistency_is_the_rms_difference_of_block_means_and_spectrum_ratio_that_of_fine_power() -> None:
    data = Patterns(Downscale(4), 12, 16, n_train=1, n_val=1, n_test=B, kind="fields")
    batch, scoring = data.batch("test"), Scoring(data)
    estimate = (0.9 * batch.x + 0.02).clamp(0, 1)
    found = scoring.summarise(
        {
            name: float(value.mean())
            for name, value in scoring.per_sample(batch, estimate).items()
            if torch.is_tensor(value)
        }
    )
    squares = [
        (estimate[b, 0, i : i + 4, j : j + 4].mean() - batch.x[b, 0, i : i + 4, j : j + 4].mean()).item() ** 2
        for b in range(B)
        for i in range(0, 12, 4)
        for j in range(0, 16, 4)
    ]
    assert found["consistency"] == pytest.approx(math.sqrt(sum(squares) / len(squares)), rel=1e-4)
    assert found["spectrum_ratio"] == pytest.approx(0.81, rel=1e-3)


def test_parameter_of_a_baseline_is_calibrated_on_validation_data_and_in_units_of_each_level() -> None:
    data = Patterns(GaussianNoise([0.1, 0.3]), HEIGHT, WIDTH, n_train=1, n_val=40, n_test=20)
    seen = []

    def towards_half(batch: Batch, weight: torch.Tensor) -> torch.Tensor:
        seen.append(batch.x)
        return batch.y + weight[:, None, None, None] * (0.5 - batch.y)

    grid, val, test = (0.1, 0.5, 1.5), data.batch("val", 30), data.batch("test")
    calibrated = Calibrated(towards_half, grid, data, per_level=True)
    found = calibrated(test)
    assert all(torch.equal(x, val.x) for x in seen[:-1])
    errors = [(towards_half(val, p * val.level) - val.x).square().mean().item() for p in grid]
    assert calibrated.parameter == grid[errors.index(min(errors))]
    assert torch.equal(found, towards_half(test, calibrated.parameter * test.level))


def test_median_of_three_by_three_pixels_equals_the_slow_one(batch: Batch) -> None:
    found = median(batch)
    for i, j in ((1, 1), (17, 29), (35, 4)):
        window = sorted(batch.y[1, 0, i - 1 : i + 2, j - 1 : j + 2].flatten().tolist())
        assert found[1, 0, i, j].item() == window[4]


@pytest.mark.parametrize("periodic", [False, True])
def test_subpixel_net_is_affine_and_moves_with_its_input_by_whole_blocks(periodic: bool) -> None:
    torch.manual_seed(0)
    batch = Patterns(Downscale(4), 20, 28, n_train=1, n_val=1, n_test=B, kind="fields").batch("test")
    net = SubPixel(4, kernel=3, periodic=periodic).double()

    def estimate(y: torch.Tensor) -> torch.Tensor:
        return net(batch._replace(y=y)).image

    y, other = batch.y.double(), batch.y.double().flip(0)
    torch.testing.assert_close(estimate(0.3 * y + 0.7 * other), 0.3 * estimate(y) + 0.7 * estimate(other))
    moved, after = estimate(y.roll((4, 8), (2, 3))), estimate(y).roll((4, 8), (2, 3))
    inner = (slice(None), slice(None), slice(8, -4), slice(12, -4))  # out of reach of the edges
    torch.testing.assert_close(moved[inner], after[inner])
    assert torch.allclose(moved, after) == periodic
    with pytest.raises(ValueError, match="multiples of 4, got '37 × 31'"):
        net(Patterns(RandomPixels(0.5), HEIGHT, WIDTH, 1, 1, 1).batch("test"))


def test_subpixel_net_without_weights_gives_block_means_and_its_arguments_are_checked() -> None:
    net = SubPixel(2)
    for parameter in net.parameters():
        torch.nn.init.zeros_(parameter)
    batch = Patterns(Downscale(2), 12, 16, n_train=1, n_val=1, n_test=B, kind="fields").batch("test")
    torch.testing.assert_close(net(batch).image, batch.y)
    with pytest.raises(ValueError, match="factor: expected at least 2, got 1"):
        SubPixel(1)
    with pytest.raises(ValueError, match="kernel: expected an odd number, got 4"):
        SubPixel(2, kernel=4)
