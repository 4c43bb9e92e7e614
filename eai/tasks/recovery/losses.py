"""Training losses of the recovery task: per-sample terms of a reconstruction and its batch."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.recovery.data import Batch, pixel_mean
from eai.tasks.recovery.nets import Reconstruction


class MSELoss(nn.Module):
    """``reconstruction`` = mean over known pixels of (x̂ − x)²."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output: Reconstruction, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        return {"reconstruction": pixel_mean((output.image - batch.x).square(), batch.valid)[0]}


def kl_to_standard_normal(mean: Float[Tensor, "b k"], logvar: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ (σ² + μ² − 1 − log σ²), in nats."""
    return 0.5 * (logvar.exp() + mean.square() - 1 - logvar).sum(1)


class ELBOLoss(nn.Module):
    """−ELBO: ``reconstruction`` = Σ (x̂ − x)²/2v + (n/2) log 2v over n known pixels, ``kl`` = β KL(q(z|y) ‖ N(0, I)).

    With v = ½ and β = 1 this is the loss of slide 2.2's VAE. Slide 2.2 adds up the samples of a batch where we
    average: a constant factor, to which Adam does not react.

    Args:
        beta: weight of the KL divergence.
        warmup_steps: training steps over which the weight rises from 0 to β; validation has β.
        variance: v of the decoder, in grey values²; its start, if learned.
        learn_variance: whether v is trained with the net.

    Raises:
        ValueError: the net gives no distribution of a code.
    """

    def __init__(
        self, beta: float = 1.0, warmup_steps: int = 0, variance: float = 0.5, learn_variance: bool = False
    ) -> None:
        super().__init__()
        require(beta >= 0, "beta", "0 or more", beta)
        require(warmup_steps >= 0, "warmup_steps", "0 or more", warmup_steps)
        require(variance > 0, "variance", "more than 0", variance)
        self.beta, self.warmup_steps = beta, warmup_steps
        # log 2v is exactly 0 for the slides' loss.
        self.log_twice_variance = nn.Parameter(torch.tensor(2 * variance).log(), requires_grad=learn_variance)
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, output: Reconstruction, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        mean, logvar = output.mean, output.logvar
        if mean is None or logvar is None:
            raise ValueError("loss: expected MSELoss for a net without mean and logvar, got ELBOLoss")
        weight = self.beta
        if self.training and self.warmup_steps:
            weight *= min(1.0, self.steps.item() / self.warmup_steps)
            self.steps += 1
        mean_square, count = pixel_mean((output.image - batch.x).square(), batch.valid)
        log = self.log_twice_variance
        reconstruction = count * (mean_square / log.exp() + log / 2)
        return {"reconstruction": reconstruction, "kl": weight * kl_to_standard_normal(mean, logvar)}
