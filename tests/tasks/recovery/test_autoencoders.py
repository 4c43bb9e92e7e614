"""The two nets of slide 2.2 and their losses."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from eai.tasks.recovery.corruptions import GaussianNoise
from eai.tasks.recovery.data import Batch, Patterns
from eai.tasks.recovery.losses import ELBOLoss, MSELoss, kl_to_standard_normal
from eai.tasks.recovery.nets import VAE, Autoencoder, Reconstruction, code_size

B, HEIGHT, WIDTH, LATENT = 3, 37, 31, 5


@pytest.fixture
def batch() -> Batch:
    return images(HEIGHT, WIDTH)


def images(height: int, width: int) -> Batch:
    return Patterns(GaussianNoise(0.2), height, width, n_train=1, n_val=1, n_test=B).batch("test")


@pytest.mark.parametrize(("height", "width"), [(HEIGHT, WIDTH), (28, 28), (8, 9), (16, 23)])
def test_nets_give_images_of_the_size_of_their_input_between_zero_and_one(height: int, width: int) -> None:
    for net in (Autoencoder(), VAE(height, width, LATENT)):
        image = net(images(height, width)).image
        assert image.shape == (B, 1, height, width)
        assert image.min() > 0
        assert image.max() < 1


def test_code_of_the_autoencoder_has_1024_numbers_at_28_pixels() -> None:
    code = Autoencoder().encoder(images(28, 28).y)
    assert code.shape == (B, 64, 4, 4)
    assert code[0].numel() == 1024
    assert Autoencoder().encoder(images(HEIGHT, WIDTH).y).shape == (B, 64, code_size(HEIGHT), code_size(WIDTH))


def test_decoder_at_28_pixels_equals_output_padding_0_1_1() -> None:
    decoder = Autoencoder().decoder
    code = torch.randn(B, 64, 4, 4)
    expected = code
    for layer, padding, activation in zip(
        decoder.layers, (0, 1, 1), (torch.relu, torch.relu, torch.sigmoid), strict=True
    ):
        expected = activation(
            torch.nn.functional.conv_transpose2d(
                expected, layer.weight, layer.bias, stride=2, padding=1, output_padding=padding
            )
        )
    torch.testing.assert_close(decoder(code, 28, 28), expected)


def test_vae_decodes_the_mean_in_evaluation_and_samples_in_training(batch: Batch) -> None:
    net = VAE(HEIGHT, WIDTH, LATENT).eval()
    first, second = net(batch), net(batch)
    assert torch.equal(first.image, second.image)
    torch.testing.assert_close(first.image, net.decode(first.mean))
    net.train()
    drawn, again = net(batch), net(batch)
    assert not torch.equal(drawn.image, again.image)
    assert torch.equal(drawn.mean, first.mean)
    assert drawn.mean.shape == drawn.logvar.shape == (B, LATENT)


def test_vae_draws_codes_with_its_mean_and_variance(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    net, count = VAE(HEIGHT, WIDTH, LATENT), 4000
    codes: list[torch.Tensor] = []
    monkeypatch.setattr(net, "decode", lambda z: codes.append(z) or batch.x)
    with torch.no_grad():
        output = net(batch)
        for _ in range(count - 1):
            net(batch)
    drawn, sigma = torch.stack(codes), torch.exp(0.5 * output.logvar)
    # Standard deviations: of the mean sigma/√n, of the standard deviation sigma/√(2n).
    assert ((drawn.mean(0) - output.mean).abs() < 5 * sigma / math.sqrt(count)).all()
    assert ((drawn.std(0) - sigma).abs() < 5 * sigma / math.sqrt(2 * count)).all()


def test_kl_of_the_prior_with_itself_is_zero() -> None:
    zero = torch.zeros(B, LATENT)
    assert torch.equal(kl_to_standard_normal(zero, zero), torch.zeros(B))


def test_kl_equals_that_of_torch_distributions(generator: torch.Generator) -> None:
    mean, logvar = (torch.randn(B, LATENT, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = kl_divergence(Normal(mean, torch.exp(0.5 * logvar)), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(kl_to_standard_normal(mean, logvar), expected)
    assert (expected > 0).all()


def test_losses_equal_the_explicit_formula_sample_by_sample(batch: Batch) -> None:
    output = VAE(HEIGHT, WIDTH, LATENT)(batch)
    mean_square, elbo = MSELoss()(output, batch), ELBOLoss()(output, batch)
    assert list(mean_square) == ["reconstruction"]
    assert list(elbo) == ["reconstruction", "kl"]
    for i in range(B):
        squares = sum((a - b) ** 2 for a, b in zip(output.image[i].flatten(), batch.x[i].flatten(), strict=True))
        torch.testing.assert_close(elbo["reconstruction"][i], squares, rtol=1e-5, atol=0)
        torch.testing.assert_close(mean_square["reconstruction"][i], squares / (HEIGHT * WIDTH), rtol=1e-5, atol=0)
        mean, variance = output.mean[i], output.logvar[i].exp()
        kl = -0.5 * (1 + variance.log() - mean**2 - variance).sum()
        torch.testing.assert_close(elbo["kl"][i], kl, rtol=1e-4, atol=1e-6)


def test_elbo_of_a_net_without_a_distribution_is_refused(batch: Batch) -> None:
    with pytest.raises(ValueError, match="loss: expected MSELoss"):
        ELBOLoss()(Reconstruction(batch.x), batch)


def test_arguments_out_of_range_are_refused_by_name(batch: Batch) -> None:
    with pytest.raises(ValueError, match="height: expected at least 8, got 7"):
        VAE(7, WIDTH)
    with pytest.raises(ValueError, match="width: expected at least 8, got 7"):
        VAE(HEIGHT, 7)
    with pytest.raises(ValueError, match="latent_dim: expected at least 1, got 0"):
        VAE(HEIGHT, WIDTH, 0)
    with pytest.raises(ValueError, match=r"net: expected .*31 × 37, got '37 × 31'"):
        VAE(WIDTH, HEIGHT)(batch)
