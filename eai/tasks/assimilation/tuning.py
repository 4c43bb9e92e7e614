"""What the innovations d = y − H(x_b) themselves tell of B and R: two ways to tune them, without the truth.

Both take H linearised at the background, and B and R as assumed up to factors: of B's variance, of B's length where it
has one, and of all σ_o.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.observation_error import cholesky

LOOPS = 500
FLOOR = 1e-4  # of the factors of variances
TOLERANCE = 1e-6  # of the factors' relative change, or of the likelihood


class Factors(NamedTuple):
    """Of B's variance, of its length, and of σ_o."""

    variance: float = 1.0
    length: float = 1.0
    sigma_o: float = 1.0


def desroziers(cost: VariationalCost, batch: Batch) -> Factors:
    """Desroziers et al. (2005): factors for which E[d_ab d_ob] = E[diag H B Hᵀ] and E[d_oa d_ob] = E[diag R].

    d_ab = H B Hᵀ (H B Hᵀ + R)⁻¹ d and d_oa = d − d_ab. The fixed point is iterated to; B's length stays as it is, and
    where it is wrong, so are the factors.

    Args:
        cost: with B and R as assumed.
        batch: the samples whose innovations are taken.
    """
    d, mask, state = cost.innovation(batch).double(), batch.obs_mask.double(), batch.xb.double()
    one = torch.ones((), dtype=torch.float64, device=d.device)
    whole = cost.observed_covariance(state, batch)
    nugget = cost.observed_covariance(state, batch, lambda i, j: cost.covariance.scaled_entries(i, j, 0 * one, one))
    correlated = whole - nugget
    error = cost.obs_error.matrix(batch, cost.covariance.grid)
    spread, offset, noise = ((part.diagonal(dim1=1, dim2=2) * mask).sum() for part in (correlated, nugget, error))
    variance, inflation = 1.0, 1.0  # of B and R
    for _ in range(LOOPS):
        observed = variance * correlated + nugget
        weights = torch.cholesky_solve(d[:, :, None], cholesky(observed + inflation * error))
        departures = (observed @ weights)[:, :, 0]
        new = float(((departures * d).sum() - offset) / spread), float(((d - departures) * d).sum() / noise)
        if min(new) < FLOOR:  # B's length is too wrong for both to be told apart
            break
        change = max(abs(new[0] / variance - 1), abs(new[1] / inflation - 1))
        variance, inflation = new
        if change < TOLERANCE:
            break
    return Factors(variance, 1.0, inflation**0.5)


def likelihood(cost: VariationalCost, batch: Batch) -> Factors:
    """The factors of greatest likelihood of the innovations, d ~ N(0, S), S = H B Hᵀ + R (Dee 1995).

    −log p(d) = ½ (dᵀ S⁻¹ d + log det S) + const is minimised over the logarithms of the factors by L-BFGS.

    Args:
        cost: with B and R as assumed.
        batch: the samples whose innovations are taken.
    """
    d = cost.innovation(batch).double()
    background = batch.xb.double()
    error = cost.obs_error.matrix(batch, cost.covariance.grid)
    unseen = torch.diag_embed(1 - batch.obs_mask.double())
    logarithms = torch.zeros(3, dtype=torch.float64, device=d.device, requires_grad=True)
    search = torch.optim.LBFGS(
        [logarithms], max_iter=LOOPS, tolerance_grad=TOLERANCE, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        search.zero_grad()
        variance, length, sigma = logarithms.exp()
        observed = cost.observed_covariance(
            background, batch, lambda i, j: cost.covariance.scaled_entries(i, j, variance, length)
        )
        # The identity's rows of unseen observations stay as they are.
        factor = cholesky(observed + sigma**2 * (error - unseen) + unseen)
        weights = torch.linalg.solve_triangular(factor, d[:, :, None], upper=False)[:, :, 0]
        value = (0.5 * weights.square().sum(1) + factor.diagonal(dim1=1, dim2=2).log().sum(1)).mean()
        value.backward()
        return value

    with torch.enable_grad():
        search.step(closure)
    variance, length, sigma = logarithms.detach().exp().tolist()
    return Factors(variance, length if cost.covariance.has_length else 1.0, sigma)


METHODS: dict[str, Callable[[VariationalCost, Batch], Factors]] = {"desroziers": desroziers, "likelihood": likelihood}
