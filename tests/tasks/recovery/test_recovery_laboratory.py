"""Bounds, downscaling, held-out ranges, scores against scikit-image, and folders of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from eai.tasks.recovery.bounds import exact_posterior, noisy_posterior
from eai.tasks.recovery.corruptions import Block, GaussianNoise, RandomPixels, Stripes
from eai.tasks.recovery.data import Batch, Patterns
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.folder import read_folder
from eai.tasks.recovery.likelihood import GaussianLikelihood
from eai.tasks.recovery.losses import ELBOLoss
from eai.tasks.recovery.nets import Reconstruction
from eai.tasks.recovery.scores import psnr, ssim
from eai.tasks.recovery.varied import HELD_OUT, shares

HEIGHT, WIDTH, B = 37, 31, 3


def test_psnr_and_ssim_equal_those_of_scikit_image(generator: torch.Generator) -> None:
    x = torch.rand(B, 1, HEIGHT, WIDTH, generator=generator)
    y = (x + 0.1 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    found = psnr((x - y).square().mean((1, 2, 3))), ssim(x, y, torch.ones_like(x))[0]
    for i in range(B):
        a, b = x[i, 0].double().numpy(), y[i, 0].double().numpy()
        assert found[0][i].item() == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), rel=1e-4)
        same = structural_similarity(a, b, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False)
        assert found[1][i].item() == pytest.approx(same, abs=2e-3)


def test_ssim_equals_that_of_torchmetrics_within_the_image(generator: torch.Generator) -> None:
    x = torch.rand(B, 1, HEIGHT, WIDTH, generator=generator)
    y = (x + 0.2 * torch.randn(x.shape, generator=generator)).clamp(0, 1)
    found = structural_similarity_index_measure(y, x, data_range=1.0, reduction="none", return_full_image=True)
    torch.testing.assert_close(
        ssim(x, y, torch.ones_like(x))[0], found[1][:, :, 5:-5, 5:-5].mean((1, 2, 3)), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("sigma", [0.2, 0.5])
def test_template_bound_of_two_patterns_is_the_closed_form(sigma: float, generator: torch.Generator) -> None:
    templates = torch.rand(2, HEIGHT, WIDTH, generator=generator) * 0.1
    x = templates[[0, 1, 1]][:, None]
    y, mask, level = GaussianNoise(sigma, clip=False)(x, generator)
    found = noisy_posterior(
        Batch(y, mask, x, torch.tensor([0, 1, 1]), level, level < 0, torch.ones_like(x)),
        templates,
        None,
        GaussianLikelihood(False),
    )
    distance = (y - templates[None]).double().square().sum((2, 3))
    first = torch.sigmoid((distance[:, 1] - distance[:, 0]) / (2 * sigma**2))[:, None, None]
    expected = first * templates[0] + (1 - first) * templates[1]
    torch.testing.assert_close(found[:, 0].double(), expected.double(), rtol=1e-5, atol=1e-6)


def test_template_bound_averages_the_patterns_that_agree_with_the_seen_pixels() -> None:
    templates = torch.zeros(2, HEIGHT, WIDTH)
    templates[1, 5, 7] = 1
    mask = torch.ones(2, 1, HEIGHT, WIDTH)
    mask[0, 0, 5, 7] = 0
    x = templates[:, None]
    found = exact_posterior(
        Batch(x * mask, mask, x, torch.arange(2), torch.ones(2), torch.zeros(2).bool(), torch.ones_like(x)),
        templates,
        None,
    )
    assert found[0, 0, 5, 7] == 0.5
    assert torch.equal(found[1], x[1])


@pytest.mark.parametrize("factor", [2, 4, 7])
@pytest.mark.parametrize("kind", ["mean", "subsample"])
def test_coarsening_undoes_nearest_upscaling(factor: int, kind: str, generator: torch.Generator) -> None:
    corruption = Downscale(factor, kind)
    x = torch.rand(B, 1, 5 * factor, 3 * factor, generator=generator)
    y, mask, level = corruption(x, generator)
    torch.testing.assert_close(corruption.coarse(corruption.upscale(y, "nearest")), corruption.coarse(x))
    assert mask.mean().item() == pytest.approx(1 if kind == "mean" else 1 / factor**2)
    assert torch.equal(y[mask == 1], x[mask == 1]) or kind == "mean"
    assert (level == factor).all()
    with pytest.raises(ValueError, match="multiples of"):
        corruption.check_size(5 * factor + 1, 3 * factor)


def test_held_out_parameters_are_disjoint_from_those_of_training(generator: torch.Generator) -> None:
    low, high = HELD_OUT
    train, test = (shares((4001,), split, generator) for split in ("train", "test"))
    assert ((train < low) | (train >= high)).all()
    assert ((test >= low) & (test <= high)).all()


@pytest.mark.parametrize("corruption", [RandomPixels(0.3), Stripes(0.3)])
def test_pixels_are_hidden_with_the_stated_frequency(corruption: RandomPixels | Stripes) -> None:
    count = 4000
    _, mask, _ = corruption(torch.ones(count, 1, HEIGHT, WIDTH), torch.Generator().manual_seed(1))
    assert ((1 - mask).mean(0) - 0.3).abs().max() < 5 * (0.21 / count) ** 0.5


def test_block_sizes_of_a_range_are_equally_frequent_and_hide_squares_of_their_size() -> None:
    count = 4000
    _, mask, level = Block([4, 9])(torch.ones(count, 1, HEIGHT, WIDTH), torch.Generator().manual_seed(1))
    assert torch.equal((1 - mask).sum((1, 2, 3)), level**2)
    assert (torch.bincount(level.long())[4:] / count - 1 / 6).abs().max() < 5 * (5 / 36 / count) ** 0.5
    assert (mask.mean(0) < 1).all()


def test_test_levels_come_in_equal_shares_within_each_class() -> None:
    data = Patterns(Block([4, 20]), HEIGHT, WIDTH, 1, 40, 40, test_levels=[5, 7, 9, 11])
    batch = data.batch("test")
    for k in range(10):
        assert sorted(batch.level[batch.label == k].tolist()) == [5, 7, 9, 11]


def test_warmup_raises_the_weight_of_the_kl_and_validation_has_all_of_it(generator: torch.Generator) -> None:
    x = torch.rand(B, 1, HEIGHT, WIDTH, generator=generator)
    batch = Batch(
        x,
        torch.ones_like(x),
        x,
        torch.zeros(B, dtype=torch.int64),
        torch.zeros(B),
        torch.zeros(B).bool(),
        torch.ones_like(x),
    )
    output = Reconstruction(x, torch.ones(B, 2), torch.zeros(B, 2))
    loss = ELBOLoss(beta=3, warmup_steps=2)
    weights = [loss(output, batch)["kl"][0].item() for _ in range(4)]
    assert weights == pytest.approx([0, 1.5, 3, 3])
    assert ELBOLoss(beta=3, warmup_steps=2).eval()(output, batch)["kl"][0].item() == pytest.approx(3)


def test_folders_that_cannot_be_used_are_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        read_folder(tmp_path)
    for k in range(3):
        np.save(tmp_path / f"{k}.npy", np.full((HEIGHT, WIDTH), 0.5))
    assert read_folder(tmp_path).shape == (3, 1, HEIGHT, WIDTH)
    np.save(tmp_path / "3.npy", np.full((WIDTH, HEIGHT), 0.5))
    with pytest.raises(ValueError, match="images of one size"):
        read_folder(tmp_path)
    (tmp_path / "3.npy").unlink()
    (tmp_path / "4.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"readable .*4\.png"):
        read_folder(tmp_path)
