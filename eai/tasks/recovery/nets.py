"""Networks from a batch to the recovered image: the encoder and decoder of slide 2.2, plain and variational."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.recovery.data import Batch


class Reconstruction(NamedTuple):
    """The recovered ``image`` and, from a variational net, ``mean`` μ and ``logvar`` log σ² of the code given y."""

    image: Float[Tensor, "b 1 h w"]
    mean: Float[Tensor, "b latent"] | None = None
    logvar: Float[Tensor, "b latent"] | None = None


def code_size(length: int) -> int:
    """⌈length/8⌉: what three convolutions of stride 2 leave of ``length`` pixels."""
    return -(-length // 8)


class Encoder(nn.Module):
    """Three 3 × 3 convolutions of stride 2 with ReLU, 1 → 16 → 32 → 64 channels."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((1, 16), (16, 32), (32, 64))
        self.layers = nn.ModuleList(nn.Conv2d(a, b, kernel_size=3, stride=2, padding=1) for a, b in sizes)

    def forward(self, y: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 64 hc wc"]:
        for layer in self.layers:
            y = torch.relu(layer(y))
        return y


class Decoder(nn.Module):
    """Three transposed 3 × 3 convolutions, 64 → 32 → 16 → 1 channels, ReLU between them and a sigmoid at the end.

    Each is told the size the encoder had there; at 28 pixels that is the slides' output padding 0, 1, 1.
    """

    def __init__(self) -> None:
        super().__init__()
        sizes = ((64, 32), (32, 16), (16, 1))
        self.layers = nn.ModuleList(nn.ConvTranspose2d(a, b, kernel_size=3, stride=2, padding=1) for a, b in sizes)

    def forward(self, code: Float[Tensor, "b 64 hc wc"], height: int, width: int) -> Float[Tensor, "b 1 h w"]:
        for layer, step in zip(self.layers, (4, 2, 1), strict=True):
            code = layer(code, output_size=[-(-height // step), -(-width // step)])
            code = torch.relu(code) if step > 1 else torch.sigmoid(code)
        return code


class Autoencoder(nn.Module):
    """The autoencoder of slide 2.2, for images of any size from 8 × 8.

    At 28 × 28 its code has 64 · 4 · 4 = 1,024 numbers for 784 pixels: it is not a bottleneck.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()

    def forward(self, batch: Batch) -> Reconstruction:
        height, width = batch.y.shape[-2:]
        return Reconstruction(self.decoder(self.encoder(batch.y), height, width))


class BottleneckAutoencoder(nn.Module):
    """The autoencoder of slide 2.2 with a true bottleneck: a linear layer to ``code`` numbers and one back.

    Args:
        height, width: of the images, which the linear layers are tied to; at least 8.
        code: numbers in the code.
    """

    def __init__(self, height: int, width: int, code: int = 32) -> None:
        super().__init__()
        require(height >= 8, "height", "at least 8", height)
        require(width >= 8, "width", "at least 8", width)
        require(code >= 1, "code", "at least 1", code)
        self.height, self.width = height, width
        self._code = (64, code_size(height), code_size(width))
        features = 64 * code_size(height) * code_size(width)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.squeeze, self.expand = nn.Linear(features, code), nn.Linear(code, features)

    def forward(self, batch: Batch) -> Reconstruction:
        height, width = batch.y.shape[-2:]
        fits = (height, width) == (self.height, self.width)
        require(fits, "net", f"images of height × width = {self.height} × {self.width}", f"{height} × {width}")
        code = self.squeeze(self.encoder(batch.y).flatten(1))
        return Reconstruction(self.decoder(self.expand(code).unflatten(1, self._code), height, width))


class VAE(nn.Module):
    """The variational autoencoder of slide 2.2: q(z|y) = N(μ, diag σ²), and an image decoded from z.

    In training z = μ + σ ε with ε ~ N(0, I); in evaluation z = μ, so that its estimate is deterministic.

    Args:
        height, width: of the images, which the linear layers are tied to; at least 8.
        latent_dim: numbers in the code z.
        rectify: put a ReLU after the linear layer that expands z, as the slides' authors do.
    """

    def __init__(self, height: int, width: int, latent_dim: int = 2, rectify: bool = False) -> None:
        super().__init__()
        require(height >= 8, "height", "at least 8", height)
        require(width >= 8, "width", "at least 8", width)
        require(latent_dim >= 1, "latent_dim", "at least 1", latent_dim)
        self.height, self.width, self.latent_dim, self.rectify = height, width, latent_dim, rectify
        self._code = (64, code_size(height), code_size(width))
        features = 64 * code_size(height) * code_size(width)
        self.encoder, self.decoder = Encoder(), Decoder()
        self.mean, self.logvar = nn.Linear(features, latent_dim), nn.Linear(features, latent_dim)
        self.expand = nn.Linear(latent_dim, features)

    def forward(self, batch: Batch) -> Reconstruction:
        height, width = batch.y.shape[-2:]
        fits = (height, width) == (self.height, self.width)
        require(fits, "net", f"images of height × width = {self.height} × {self.width}", f"{height} × {width}")
        features = self.encoder(batch.y).flatten(1)
        mean, logvar = self.mean(features), self.logvar(features)
        z = mean + torch.exp(0.5 * logvar) * torch.randn_like(mean) if self.training else mean
        return Reconstruction(self.decode(z), mean, logvar)

    def sample(self, count: int) -> Float[Tensor, "n 1 h w"]:
        """Images of codes drawn from the prior N(0, I), by torch's global generator."""
        return self.decode(torch.randn(count, self.latent_dim, device=self.mean.weight.device))

    def decode(self, z: Float[Tensor, "b latent"]) -> Float[Tensor, "b 1 h w"]:
        """The image of a code."""
        features = self.expand(z)
        if self.rectify:
            features = features.relu()
        return self.decoder(features.unflatten(1, self._code), self.height, self.width)
