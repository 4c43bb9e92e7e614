"""Per-sample diagnostics of an analysis, and the scores computed from their means."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.scores import PerSample
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.geographic import GeographicGrid


def analysis_diagnostics(cost: VariationalCost, batch: Batch, analysis: Float[Tensor, "b n"]) -> dict[str, PerSample]:
    """Per-sample quantities of an analysis; those of observations are weighted by their number.

    On the Earth ``area_…`` are means over area, of what ``mse_…`` are over points.
    """
    x = analysis.double()
    terms = cost(x, batch)
    optimum = cost.optimum(batch)
    p = batch.obs_mask.sum(1)
    gradient, gradient_background = cost.gradient(x, batch), cost.gradient(batch.xb.double(), batch)
    errors = {"background": batch.xb - batch.xt, "analysis": x - batch.xt, "optimum": optimum.state - batch.xt}
    grid, area = cost.covariance.grid, {}
    if isinstance(grid, GeographicGrid):
        weights = grid.weights.to(x.device)
        area = {f"area_{name}": (weights * error.square()).mean(1) for name, error in errors.items()}
    bias = {"bias": cost.bias(x, batch), "bias_true": (batch.xt - batch.xb).mean(1)} if cost.bias_variance else {}
    return {
        **bias,
        **area,
        **{f"mse_{name}": error.square().mean(1) for name, error in errors.items()},
        "j": terms["background"] + terms["observation"],
        "j_background_term": terms["background"],
        "j_optimum": optimum.cost,
        "unconverged": 1 - optimum.converged,
        "j_background": cost.total(batch.xb, batch),
        "p": p,
        "dfs": optimum.dfs,
        "mse_gap": (x - optimum.state).square().mean(1),
        "gradient": (gradient * cost.covariance.multiply(gradient)).sum(1),
        "gradient_background": (gradient_background * cost.covariance.multiply(gradient_background)).sum(1),
        **_departures(cost, batch, x, optimum.background_variance),
    }


def _departures(
    cost: VariationalCost, batch: Batch, x: Float[Tensor, "b n"], variance: Float[Tensor, "b p"]
) -> dict[str, PerSample]:
    p, withheld = batch.obs_mask.sum(1), batch.obs_withheld.sum(1)
    observed, truth = cost.operator(x, batch), cost.operator(batch.xt.double(), batch)
    ob = cost.innovation(batch)
    oa = (batch.y - observed) * batch.obs_mask
    away = (batch.y - observed) * batch.obs_withheld

    def mean(values: Tensor, count: Tensor) -> PerSample:
        return values.sum(1) / count.clamp(min=1), count.double()

    return {
        "o_b": mean(ob, p),
        "o_b_square": mean(ob**2, p),
        "o_a": mean(oa, p),
        "o_a_square": mean(oa**2, p),
        "oa_ob": mean(oa * ob, p),
        "ab_ob": mean((ob - oa) * ob, p),
        "sigma_o_square": mean((cost.obs_error.std(batch) * batch.obs_mask) ** 2, p),
        "sigma_b_square": mean(variance, p),
        "sigma_o_true_square": mean((batch.y - truth) ** 2 * batch.obs_mask, p),
        "sigma_b_true_square": mean((truth - (batch.y - ob)) ** 2 * batch.obs_mask, p),
        "withheld_square": mean(away**2, withheld),
    }


def final_scores(means: Mapping[str, float]) -> dict[str, float]:
    """The scores that the task's docstring defines, from means over samples or observations; NaN without observations.

    A score of withheld observations is left out without them.
    """

    root, spread, ratio = partial(_root, means), partial(_spread, means), _ratio
    j, optimum, background = means["j"], means["j_optimum"], means["j_background"]
    scores = {
        "j_ratio": ratio(j, optimum, math.inf),
        "j_skill": 1 - ratio(j - optimum, background - optimum),
        "optimum_unconverged": means["unconverged"],
        "chi2": ratio(2 * j, means["p"]),
        "rmse_background": root("mse_background"),
        "rmse_analysis": root("mse_analysis"),
        "rmse_optimum": root("mse_optimum"),
        "gap_to_optimum": root("mse_gap"),
        "gradient_norm": math.sqrt(ratio(means["gradient"], means["gradient_background"])),
        "dfs": means["dfs"],
        "dfs_realised": 2 * means["j_background_term"],
        "o_b_mean": means.get("o_b", math.nan),
        "o_b_std": spread("o_b"),
        "o_a_mean": means.get("o_a", math.nan),
        "o_a_std": spread("o_a"),
        "sigma_o": root("sigma_o_square"),
        "sigma_o_desroziers": root("oa_ob"),
        "sigma_b": root("sigma_b_square"),
        "sigma_o_true": root("sigma_o_true_square"),
        "sigma_b_true": root("sigma_b_true_square"),
        "sigma_b_desroziers": root("ab_ob"),
    }
    if "bias" in means:
        scores |= {name: means[name] for name in ("bias", "bias_true")}
    if "withheld_square" in means:
        scores["o_a_withheld"] = root("withheld_square")
    return scores


def in_units(means: Mapping[str, float], variable: str, sigma: float) -> dict[str, float]:
    """Root mean square errors over area, in the units of the variable that states are anomalies of.

    Args:
        means: over samples, of a grid on the Earth, see :func:`analysis_diagnostics`.
        variable: its name.
        sigma: what 1 in the state means.
    """
    states = ("background", "analysis", "optimum")
    return {f"rmse_{name}/{variable}": sigma * _root(means, f"area_{name}") for name in states}


def _root(means: Mapping[str, float], name: str) -> float:
    return math.sqrt(max(means.get(name, math.nan), 0.0))


def _spread(means: Mapping[str, float], name: str) -> float:
    mean = means.get(name, math.nan)
    return math.sqrt(max(means.get(f"{name}_square", math.nan) - mean**2, 0.0))


def _ratio(part: float, whole: float, otherwise: float = math.nan) -> float:
    return part / whole if whole > 0 else otherwise


def with_fewer_observations(batch: Batch, count: int) -> Batch:
    """The batch with at most the first ``count`` assimilated observations of each sample."""
    kept = (batch.obs_mask.cumsum(1) <= count).to(batch.obs_mask.dtype)
    return batch._replace(obs_mask=batch.obs_mask * kept)


def ratio_by_number(
    cost: VariationalCost, batch: Batch, analyses: Mapping[int, Float[Tensor, "b n"]]
) -> list[tuple[int, float]]:
    """(number of observations, J/J*) for analyses made from so many observations."""
    points = []
    for count, analysis in sorted(analyses.items()):
        fewer = with_fewer_observations(batch, count)
        points.append((count, float(cost.total(analysis, fewer).sum() / cost.minimum(fewer).sum())))
    return points


def departures_of_all(
    cost: VariationalCost, batch: Batch, analysis: Float[Tensor, "b n"]
) -> tuple[Float[Tensor, " k"], Float[Tensor, " k"]]:
    """O−B and O−A of all assimilated observations."""
    seen = batch.obs_mask > 0
    oa = batch.y - cost.operator(analysis.double(), batch)
    ob = torch.where(seen, cost.innovation(batch), 0.0)
    return ob[seen], oa[seen]
