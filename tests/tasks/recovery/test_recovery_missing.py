"""Pixels that are missing in a file: no loss, score, gradient or reference looks at what stands there."""

from __future__ import annotations

import pytest
import torch

from eai.tasks.recovery.baselines import references
from eai.tasks.recovery.corruptions import Corruption, GaussianNoise, Images, RandomPixels
from eai.tasks.recovery.data import Batch, ImageData
from eai.tasks.recovery.downscaling import Downscale
from eai.tasks.recovery.gaps import Clouds
from eai.tasks.recovery.losses import ELBOLoss, MSELoss
from eai.tasks.recovery.nets import VAE, Autoencoder
from eai.tasks.recovery.plots import recoveries
from eai.tasks.recovery.scores import Scoring
from eai.tasks.recovery.statistical import stationary_prior

H, W = 16, 20


class Coasts(ImageData):
    """Smooth random images, of which a corner and a few pixels are missing."""

    def __init__(self, corruption: Corruption) -> None:
        super().__init__(corruption, H, W, None, 4, 0, fresh=False)

    def clean(self, split: str, generator: torch.Generator) -> tuple[Images, torch.Tensor]:
        noise = torch.randn((7, 1, H, W), generator=generator)
        x = 0.5 + 0.1 * torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
        missing = torch.rand((7, 1, H, W), generator=generator) < 0.1
        missing[:, :, :6, :5] = True
        return x.masked_fill(missing, torch.nan), torch.zeros(7, dtype=torch.int64)


CORRUPTIONS = [RandomPixels(0.4), Clouds(0.4), GaussianNoise(0.1, clip=False), Downscale(4)]


def spoiled(batch: Batch) -> Batch:
    """Other values of x where it is missing."""
    return batch._replace(x=torch.where(batch.valid == 1, batch.x, 7.5))


def test_batch_shows_nothing_of_missing_pixels() -> None:
    for corruption in CORRUPTIONS:
        batch = Coasts(corruption).batch("train")
        missing = batch.valid == 0
        assert missing.any()
        assert (batch.y[missing] == 0).all()
        assert (batch.mask[missing] == 0).all()
        assert (batch.x[missing] == 0.5).all()


@pytest.mark.parametrize(("net", "loss"), [(Autoencoder(), MSELoss()), (VAE(H, W), ELBOLoss(learn_variance=True))])
def test_values_of_missing_pixels_change_no_loss_and_no_gradient(net: torch.nn.Module, loss: torch.nn.Module) -> None:
    batch, found = Coasts(RandomPixels(0.4)).batch("train"), []
    net.eval()
    for one in (batch, spoiled(batch)):
        net.zero_grad()
        terms = loss(net(one), one)
        sum(term.sum() for term in terms.values()).backward()
        found.append([*terms.values(), *(p.grad.clone() for p in net.parameters())])
    for one, two in zip(*found, strict=True):
        assert torch.equal(one, two)


def test_loss_is_the_mean_over_known_pixels_of_each_image() -> None:
    batch = Coasts(RandomPixels(0.4)).batch("train")
    net = Autoencoder()
    output = net(batch)
    expected = [((output.image - batch.x)[i][batch.valid[i] == 1] ** 2).mean() for i in range(len(batch.x))]
    torch.testing.assert_close(MSELoss()(output, batch)["reconstruction"], torch.stack(expected))


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_values_of_missing_pixels_change_no_score(corruption: Corruption) -> None:
    data = Coasts(corruption)
    batch = data.batch("test")
    scoring = Scoring(data)
    estimate = batch.x + 0.1 * torch.randn(batch.x.shape, generator=torch.Generator().manual_seed(1))
    expected = scoring.per_sample(batch, estimate)
    other = scoring.per_sample(spoiled(batch), torch.where(batch.valid == 1, estimate, -3.0))
    for name, value in expected.items():
        for one, two in zip(value, other[name], strict=True):
            assert torch.equal(one, two), name
    value, weight = expected["mse"]
    pooled = (value * weight).sum() / weight.sum()
    torch.testing.assert_close(pooled, (estimate - batch.x)[batch.valid == 1].square().mean())


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_references_are_the_same_whatever_stands_in_missing_pixels(corruption: Corruption) -> None:
    data = Coasts(corruption)
    batch = data.batch("test")
    for name, method in references(data, classical=True).items():
        image = method(batch)
        assert torch.isfinite(image).all(), name
        assert torch.equal(image, method(spoiled(batch))), name


def test_filters_do_not_take_missing_pixels_for_black_ones() -> None:
    data = Coasts(GaussianNoise(0.05, clip=False))
    batch = data.batch("test")
    inside = batch.valid == 1
    for name in ("median", "total_variation", "non_local_means"):
        error = (references(data, classical=True)[name](batch) - batch.x)[inside].square().mean()
        # The noise has 0.05²; a single black neighbour would add 0.5² to it near every missing pixel.
        assert error < 0.05**2, name


def test_figure_leaves_missing_pixels_white() -> None:
    batch = Coasts(RandomPixels(0.4)).batch("test", 2)
    for one in (batch, spoiled(batch)):
        image = recoveries(one, one.x).axes[0].images[0].get_array()
        assert image.mask[:6, :5].all()
        assert image.mask.sum() == (batch.valid[0] == 0).sum()


def test_spectrum_of_partly_known_images_has_the_variance_of_the_known_pixels() -> None:
    train = Coasts(RandomPixels(0.4)).batch("train")
    mean, spectrum = stationary_prior(train)
    known = train.x[train.valid == 1]
    assert mean == pytest.approx(known.mean().item(), abs=1e-6)
    # Parseval: the modes' mean variance, the half that a real transform leaves out counted twice.
    twice = torch.full((W // 2 + 1,), 2.0)
    twice[0] = twice[-1] = 1
    variance = (spectrum * twice).sum().item() / (H * W)
    assert variance == pytest.approx(known.var(correction=0).item(), rel=1e-4)
