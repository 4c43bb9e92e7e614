"""Networks for the analysis in a cycle.

A net is any ``nn.Module`` whose forward gets a :class:`eai.variational.batch.Batch` (background ``xb`` and the
observations of one time) and its memory (b, n, m), and gives the analysis (b, n) and the new memory. ``memory`` says m;
a net without it has none. ``fit_scales(mean, std, sigma)`` is called once, with the model's climate and the mean σ.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.observations import ObservationOperator


class RingConvolution(nn.Module):
    """A circular convolution over points, as one product of matrices: on a CPU twice as quick as torch's at this size.

    Args:
        inputs, outputs: channels.
        kernel: points, odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(kernel * inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        bound = 1 / math.sqrt(kernel * inputs)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, field: Float[Tensor, "b n i"]) -> Float[Tensor, "b n o"]:
        n, half = field.shape[1], self.kernel // 2
        if not half:
            return field @ self.weight + self.bias
        ring = torch.cat([field[:, -half:], field, field[:, :half]], 1)
        near = torch.cat([ring[:, j : j + n] for j in range(self.kernel)], 2)
        return torch.addmm(self.bias, near.flatten(0, 1), self.weight).unflatten(0, field.shape[:2])


class RecurrentConvolution(nn.Module):
    """x_a = x_b + g ∗ d + f(d, w, x_b, h): circular convolutions with a gated memory h; the same weights for any n.

    d is the innovation on the grid, H'ᵀ R⁻¹ (y − H(x_b)), and w = H'ᵀ R⁻¹ 1 says how much is observed there, R in units
    of the mean σ². g is a linear gain; f are convolutions with skip connections. The memory is that of
    a minimal gated unit (Zhou et al. 2016), h ← s h + (1 − s) tanh(c): what was uncertain before.

    Args:
        operator: H.
        width: channels of the hidden layers.
        memory: channels of h; 0: a net that forgets, an analysis of the background and its observations alone.
        layers: hidden layers.
        kernel: points that a convolution sees, odd.
        points: null, or n where the points differ from each other, as in ``lorenz63``: a learned number for each.
    """

    def __init__(
        self,
        operator: ObservationOperator,
        width: int = 40,
        memory: int = 20,
        layers: int = 3,
        kernel: int = 5,
        points: int | None = None,
    ) -> None:
        super().__init__()
        require(width >= 1, "width", "at least 1", width)
        require(memory >= 0, "memory", "0 or more", memory)
        require(layers >= 1, "layers", "at least 1", layers)
        require(kernel >= 1 and kernel % 2 == 1, "kernel", "an odd number of points", kernel)
        require(points is None or points >= 1, "points", "null or at least 1", points)
        self.operator, self.memory, self.kernel = operator, memory, kernel
        self.place = nn.Parameter(torch.randn(points, 4)) if points else None
        inputs = 3 + memory + (4 if points else 0)
        self.first = RingConvolution(inputs, width, kernel)
        self.hidden = nn.ModuleList(RingConvolution(width, width, kernel) for _ in range(layers - 1))
        self.last = nn.Linear(width, 1 + 2 * memory)
        self.gain = nn.Parameter(torch.zeros(kernel))
        with torch.no_grad():
            # Begin as a linear filter that trusts the background twice as much as an observation.
            self.gain[kernel // 2] = 0.3
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        for name, value in (("mean", 0.0), ("std", 1.0), ("sigma", 1.0)):
            self.register_buffer(name, torch.tensor(value))

    mean: Tensor
    std: Tensor
    sigma: Tensor

    def fit_scales(self, mean: float, std: float, sigma: float) -> None:
        """Take mean and standard deviation of the model's climate, and the mean σ of observations.

        Args:
            mean, std: over points and time.
            sigma: σ.
        """
        for buffer, value in ((self.mean, mean), (self.std, std), (self.sigma, sigma)):
            buffer.fill_(value)

    def forward(
        self, batch: Batch, memory: Float[Tensor, "b n m"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n m"]]:
        xb, n = batch.xb, batch.xb.shape[1]
        require(n >= self.kernel // 2, "kernel", f"at most 2 n + 1 = {2 * n + 1}", self.kernel)
        worth = batch.obs_mask * (self.sigma / batch.obs_sigma) ** 2
        departure = (batch.y - self.operator(xb, batch)) * (worth / self.sigma)
        d, w = (self.operator.adjoint(xb, values, batch) for values in (departure, worth))
        # Where the state or an observation is far out, so that the net stays where it was trained.
        d, state = d.clamp(-_FAR, _FAR), ((xb - self.mean) / self.std).clamp(-_FAR, _FAR)
        inputs = [torch.stack([d, w, state], 2), memory]
        if self.place is not None:
            inputs.append(self.place.expand(len(xb), -1, -1))
        field = nn.functional.silu(self.first(torch.cat(inputs, 2)))
        for layer in self.hidden:
            field = field + nn.functional.silu(layer(field))
        output, m = self.last(field), self.memory
        if m:
            keep = torch.sigmoid(output[:, :, 1 + m :] + 1)
            memory = keep * memory + (1 - keep) * torch.tanh(output[:, :, 1 : 1 + m])
        half = self.kernel // 2
        ring = torch.cat([d[:, n - half :], d, d[:, :half]], 1)
        increment = ring.unfold(1, self.kernel, 1) @ self.gain + output[:, :, 0]
        return xb + self.sigma * increment, memory


_FAR = 30.0


class Static(nn.Module):
    """A net of the assimilation task, from background and observations to the analysis, in the cycle: no memory.

    Args:
        net: as :class:`eai.variational.solver.UnrolledSolver`.
    """

    memory = 0

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(
        self, batch: Batch, memory: Float[Tensor, "b n m"]
    ) -> tuple[Float[Tensor, "b n"], Float[Tensor, "b n m"]]:
        return self.net(batch).to(batch.xb.dtype), memory
