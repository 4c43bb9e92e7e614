"""Background-error covariances estimated from samples: NMC, localised ensemble, hybrid."""

from __future__ import annotations

from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.variational.covariance import gaspari_cohn
from eai.variational.covariance_base import Covariance, DenseCovariance, check_size
from eai.variational.grid import Grid, as_grid


def nmc_estimate(differences: Float[Tensor, "m n"], scale: float = 0.5) -> Float[Tensor, "n n"]:
    """NMC (Parrish and Derber 1992): scale · mean of δ δᵀ over differences δ of forecasts valid at the same time.

    Two forecasts with independent errors of covariance B differ with covariance 2B, hence ½.
    """
    return scale * differences.T.double() @ differences.double() / len(differences)


def localised_estimate(
    ensemble: Float[Tensor, "m n"], support: float, grid: Grid | None = None
) -> Float[Tensor, "n n"]:
    """Ensemble covariance, tapered: (X'ᵀ X'/(m−1)) ∘ GC(d; support), which removes the far sampling noise.

    Args:
        ensemble: X, of m members.
        support: where the taper reaches zero.
        grid: of the members, for the distance d; None: a ring.
    """
    anomalies = (ensemble - ensemble.mean(0)).double()
    index = torch.arange(ensemble.shape[1])
    apart = (grid or as_grid(len(index))).between(index[:, None], index)
    return anomalies.T @ anomalies / (len(ensemble) - 1) * gaspari_cohn(reduce(torch.hypot, apart), support)


def _known(truth: Covariance | None) -> Covariance:
    expected = "a covariance: choose the data's with shared/covariance@data.true_covariance=soar"
    if truth is None:
        raise ValueError(f"truth: expected {expected}, got None")
    return truth


class NMCCovariance(DenseCovariance):
    """B estimated from ``members`` differences of two draws each, as an NWP centre does from its own forecasts.

    An estimate is what a cost assumes: the data are drawn from the truth.

    Args:
        truth: the covariance that the two forecasts' errors are drawn from.
        members: number of differences.
        nugget: added to the diagonal; fewer differences than points give a singular estimate without it.
        seed: of the draws.
    """

    def __init__(self, truth: Covariance | None, members: int = 500, nugget: float = 1e-3, seed: int = 0) -> None:
        truth = _known(truth)
        require(members >= 1, "members", "at least 1", members)
        require(nugget >= 0, "nugget", "0 or more", nugget)
        check_size(truth.n)
        generator = torch.Generator().manual_seed(seed)
        pair = truth.sample(members, generator), truth.sample(members, generator)
        estimate = nmc_estimate(pair[0] - pair[1])
        super().__init__(estimate + nugget * torch.eye(truth.n, dtype=torch.float64), truth.grid)


class EnsembleCovariance(DenseCovariance):
    """A localised ensemble estimate: see :func:`localised_estimate`.

    Args:
        truth: the covariance that the ensemble is drawn from.
        members: size of the ensemble, at least 2.
        support: where the taper reaches zero, in the unit of the grid's extent; at most the diameter, 2 on a ring.
        nugget: added to the diagonal.
        seed: of the draws.
    """

    def __init__(
        self, truth: Covariance | None, members: int = 40, support: float = 1.5, nugget: float = 1e-3, seed: int = 0
    ) -> None:
        truth = _known(truth)
        require(members >= 2, "members", "at least 2", members)
        widest = truth.grid.diameter
        require(0 < support <= widest, "support", f"0 < support ≤ {widest:.4g}, the grid's diameter", support)
        check_size(truth.n)
        require(nugget >= 0, "nugget", "0 or more", nugget)
        ensemble = truth.sample(members, torch.Generator().manual_seed(seed))
        estimate = localised_estimate(ensemble, support, truth.grid)
        super().__init__(estimate + nugget * torch.eye(truth.n, dtype=torch.float64), truth.grid)


class HybridCovariance(DenseCovariance):
    """(1 − weight) · static + weight · ensemble (Hamill and Snyder 2000).

    Args:
        static, ensemble: covariances of the same size.
        weight: of the ensemble part, from 0 to 1.
    """

    def __init__(self, static: Covariance, ensemble: Covariance, weight: float = 0.5) -> None:
        require(0 <= weight <= 1, "weight", "0 to 1", weight)
        require(static.grid == ensemble.grid, "ensemble", f"the grid of static, {static.grid}", ensemble.grid)
        super().__init__((1 - weight) * static.matrix + weight * ensemble.matrix, static.grid)
        self.parts = static, ensemble
