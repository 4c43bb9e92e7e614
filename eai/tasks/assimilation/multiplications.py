"""Multiplications that an analysis takes, counted by formula: a cost that no machine changes.

n grid points, p observations, k points to an observation. Divisions count as multiplications, additions not at all; an
exponential is one. A real FFT of n numbers takes n log₂ n; a Cholesky factor p³/6.
"""

from __future__ import annotations

from torch import nn

from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.graph_net import ObservationGraphNet
from eai.variational.nets import CircularConvolution
from eai.variational.observations import ALONE
from eai.variational.solver import Descent, UnrolledSolver


def of_layers(net: nn.Module, batch: Batch) -> int:
    """Multiplications of the net's linear and convolution layers for one sample, which are all but all of a net's.

    Args:
        net: from Batch to analysis.
        batch: at least two samples, of which two are passed through the net.
    """
    count = 0

    def add(layer: nn.Module, _: object, output: object) -> None:
        nonlocal count
        weight, values = getattr(layer, "weight"), getattr(output, "numel")()  # noqa: B009 - of any layer
        count += values * weight[0].numel()

    layers = [part for part in net.modules() if isinstance(part, nn.Linear | nn.Conv1d | nn.Conv2d)]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        net(Batch(*(field[:2] for field in batch)))
    finally:
        for hook in hooks:
            hook.remove()
    return count // 2


def of_methods(cost: VariationalCost, net: nn.Module, steps: int, batch: Batch) -> dict[str, int]:
    """Multiplications for one analysis by ``model`` and the task's reference methods, by name.

    Args:
        cost: J.
        net: from Batch to analysis.
        steps: of conjugate gradients; of ``steps`` + 2 as well.
        batch: at least two samples.
    """
    count = Count(cost, batch)
    guess = net.first_guess if isinstance(net, UnrolledSolver) else net
    of_guess = of_layers(guess, batch) + count.near
    if isinstance(guess, CircularConvolution | ObservationGraphNet):
        of_guess += count.uniform_increment
    of_steps = count.gradient + net.steps * count.step if isinstance(net, UnrolledSolver) else 0
    pcg = {
        f"pcg_{k}_{by}": count.near + count.gradient + k * count.step
        for k in (steps, steps + 2)
        for by in ("background", "uniform", "tuned")
    }
    # The loops of a non-linear optimum differ from sample to sample.
    exact = ("blue", "blue_truth", "blue_untuned", "blue_without_bias")
    blue = dict.fromkeys(exact, count.exact) if cost.operator.linear else {}
    return {"model": of_guess + of_steps, "first_guess": of_guess, "background": 0, **pcg, **blue}


class Count:
    """Multiplications of the parts that analyses are made of.

    Args:
        cost: J.
        batch: samples, for the sizes.
    """

    def __init__(self, cost: VariationalCost, batch: Batch) -> None:
        index, _ = cost.operator.stencil(batch.xb.double(), batch)
        self.n, self.p, self.k = cost.covariance.n, index.shape[1], index.shape[2]
        self.linear, self.correlated = cost.operator.linear, cost.obs_error.correlation_length > 0
        self.filter = cost.covariance.basis.multiplications + self.n

    @property
    def weigh(self) -> int:
        """R⁻¹ r."""
        return self.p**3 // 6 + self.p**2 if self.correlated else self.p

    @property
    def observe(self) -> int:
        """H x or H'ᵀ w."""
        return self.p * self.k + (0 if self.linear else self.p)

    @property
    def gradient(self) -> int:
        """B⁻¹ (x − x_b) − H'ᵀ R⁻¹ (y − H(x))."""
        return self.filter + 2 * self.observe + self.weigh

    @property
    def step(self) -> int:
        """One of conjugate gradients: preconditioner, Hessian product, dot products; the line search of the last."""
        search = 0 if self.linear else len(Descent.PARTS) * (self.p * (self.k + 3) + self.n)
        return 2 * self.filter + 2 * self.observe + self.weigh + 9 * self.n + search

    @property
    def near(self) -> int:
        """The linear problem near a non-linear one."""
        return 0 if self.linear else 8 * ALONE * self.p

    @property
    def uniform_increment(self) -> int:
        """(B⁻¹ + ρ)⁻¹ Hᵀ R⁻¹ d."""
        return self.near + 2 * self.observe + self.weigh + self.filter

    @property
    def exact(self) -> int:
        """One p × p system: H B Hᵀ, Cholesky, two triangular solves, B Hᵀ w."""
        return (self.p * self.k) ** 2 + self.p**3 // 6 + self.p**2 + 3 * self.observe + self.filter
