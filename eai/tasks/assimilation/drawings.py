"""Which figures the assimilation task draws: curves on a ring, maps on a plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.learn.figures import Drawing
from eai.tasks.assimilation import maps, plots
from eai.tasks.assimilation.scores import departures_of_all, ratio_by_number, with_fewer_observations
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost

FEW = 40  # observations of a sample of which every second number is tried


def of_analyses(cost: VariationalCost, batch: Batch, analysis: Float[Tensor, "b n"]) -> Mapping[str, Drawing]:
    """Analyses beside truth, background and optimum.

    Args:
        cost: J.
        batch: backgrounds and observations.
        analysis: of the network.
    """
    if cost.covariance.grid.d == 1:
        optimum, spread = cost.minimiser(batch), cost.analysis_variance(batch).sqrt()
        return {"analysis": plots.analyses(batch, analysis, optimum, spread)}
    few = Batch(*(field[:2] for field in batch))
    drawn = maps.analyses(cost.covariance.grid, few, analysis[:2], cost.minimiser(few), cost.operator.linear)
    return {"analysis": drawn}


def at_end(
    cost: VariationalCost, batch: Batch, many: Batch, predict: Callable[[Batch], Float[Tensor, "b n"]]
) -> Mapping[str, Drawing]:
    """The data, B, increments of single observations, departures, and J/J* by number of observations.

    Args:
        cost: J.
        batch: samples that are shown.
        many: samples for statistics.
        predict: the network's analysis.
    """
    grid, one = cost.covariance.grid, with_fewer_observations(many, 1)
    analyses = {m: predict(with_fewer_observations(many, m)) for m in numbers(int(many.obs_mask.sum(1).max()))}
    single = predict(one) - one.xb, cost.minimiser(one) - one.xb
    if grid.d == 1:
        drawn = {
            "data": plots.data_pairs(batch),
            "background_covariance": plots.covariance(cost.covariance.matrix),
            "single_observation": plots.single_observation(one, *single),
        }
    else:
        points = torch.arange(grid.n, device=many.xb.device)
        middle = grid.flat([points.new_tensor(size // 2) for size in grid.shape])
        drawn = {
            "data": maps.data_pairs(grid, batch),
            "background_covariance": maps.covariance(grid, cost.covariance.entries(points, middle)),
            "single_observation": maps.single_observation(grid, one, *single),
        }
    return {
        **drawn,
        "departures": plots.departures(*departures_of_all(cost, many, predict(many))),
        "cost_by_number": plots.cost_by_number(ratio_by_number(cost, many, analyses), grid.n),
    }


def numbers(most: int) -> list[int]:
    """Numbers of observations to try: every second up to forty, else 1, 2, 5, 10, 20, …

    Args:
        most: of a sample.
    """
    if most <= FEW:
        return sorted({1, *range(2, most + 1, 2)})
    steps = (first * 10**power for power in range(len(str(most))) for first in (1, 2, 5))
    return sorted({*(number for number in steps if number < most), most})
