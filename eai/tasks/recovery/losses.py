"""Training losses of the recovery task: per-sample terms of a reconstruction and its batch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from eai.tasks.recovery.data import Batch
from eai.tasks.recovery.nets import Reconstruction


class MSELoss(nn.Module):
    """``reconstruction`` = mean over pixels of (x̂ − x)²."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output: Reconstruction, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        return {"reconstruction": (output.image - batch.x).square().mean((1, 2, 3))}


def kl_to_standard_normal(mean: Float[Tensor, "b k"], logvar: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """KL(N(μ, diag σ²) ‖ N(0, I)) = ½ Σ (σ² + μ² − 1 − log σ²), in nats."""
    return 0.5 * (logvar.exp() + mean.square() - 1 - logvar).sum(1)


class ELBOLoss(nn.Module):
    """``reconstruction`` = Σ (x̂ − x)² over pixels, ``kl`` = KL(q(z|y) ‖ N(0, I)): the loss of slide 2.2's VAE.

    Their sum is −ELBO, up to a constant, for pixels with Gaussian errors of variance ½. Slide 2.2
    adds up the samples of a batch where we average: a constant factor, to which Adam does not react.

    Raises:
        ValueError: the net gives no distribution of a code.
    """

    def __init__(self) -> None:
        super().__init__()

    def forward(self, output: Reconstruction, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        mean, logvar = output.mean, output.logvar
        if mean is None or logvar is None:
            raise ValueError("loss: expected MSELoss for a net without mean and logvar, got ELBOLoss")
        squares = (output.image - batch.x).square().sum((1, 2, 3))
        return {"reconstruction": squares, "kl": kl_to_standard_normal(mean, logvar)}
