"""What an analysis in a cycle can be trained on. Only :class:`Supervised` knows the truth.

A loss says with ``leads`` how many forecasts of each analysis it needs, and with ``through_time`` whether gradients
pass through the forecasts of the cycle to the analyses before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.cycling.cycle import Cycled
from eai.tasks.cycling.data import Batch, at
from eai.variational.cost import VariationalCost
from eai.variational.observations import ObservationOperator


class Loss(nn.Module, ABC):
    """A loss of a pass through a cycle, in per-cycle terms.

    Attributes:
        leads: forecasts of each analysis that it needs.
        through_time: whether gradients pass through the forecasts of the cycle.
    """

    leads: int = 1
    through_time: bool = True

    @abstractmethod
    def forward(self, output: Cycled, batch: Batch) -> dict[str, Float[Tensor, " b"]]: ...


class Innovation(Loss):
    """The mean of (y − H(M x_a))²/σ² over the observations of the next 1 … ``leads`` times: term ``innovation``.

    The expected value is 1 + E|H(M x_a) − H(x_t)|²/σ²: no filter has less than the best one, and neither the truth nor
    a background-error covariance is needed to see it. Gradients pass through the model and all analyses of the window.

    Args:
        operator: H.
        leads: forecasts of each analysis that are compared.
    """

    def __init__(self, operator: ObservationOperator, leads: int = 1) -> None:
        super().__init__()
        require(leads >= 1, "leads", "at least 1", leads)
        self.operator, self.leads = operator, leads

    def forward(self, output: Cycled, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        count, steps = output.analysis.shape[:2]
        total, weight = output.last.new_zeros(count), output.last.new_zeros(count)
        for lead in range(1, self.leads + 1):
            state = output.ahead[:, :, lead - 1]
            observed = at(batch, slice(lead, lead + steps), state)
            departure = (observed.y - self.operator(observed.xb, observed)) / observed.obs_sigma
            total = total + (departure.square() * observed.obs_mask).sum(1).view(count, steps).sum(1)
            weight = weight + observed.obs_mask.sum(1).view(count, steps).sum(1)
        return {"innovation": total / weight.clamp(min=1)}


class Variational(Loss):
    """The 3D-Var cost J of each analysis, with a static B; terms ``background`` and ``observation``, as in slide 2.3.

    Its optimum is 3D-Var in a cycle. No gradient passes from one analysis to the one before: each minimises its own J.

    Args:
        cost: J.
    """

    leads, through_time = 0, False

    def __init__(self, cost: VariationalCost) -> None:
        super().__init__()
        self.cost = cost

    def forward(self, output: Cycled, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        count, steps = output.analysis.shape[:2]
        observed = at(batch, slice(0, steps), output.background)
        terms = self.cost(output.analysis.flatten(0, 1), observed)
        return {name: term.view(count, steps).mean(1) for name, term in terms.items()}


class Window(Loss):
    """The strong-constraint 4D-Var cost over L steps, J_b(x_a) + Σ_{l=0}^{L} J_o(M^l x_a), with the static B of J.

    The gradient passes through the L forecasts, exactly; not from one analysis to the one before. Terms ``background``
    and ``observation``.

    Args:
        cost: J, for B, H and R.
        steps: L.
    """

    through_time = False

    def __init__(self, cost: VariationalCost, steps: int = 4) -> None:
        super().__init__()
        require(steps >= 1, "steps", "at least 1", steps)
        self.cost, self.leads = cost, steps

    def forward(self, output: Cycled, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        count, steps = output.analysis.shape[:2]
        terms = self.cost(output.analysis.flatten(0, 1), at(batch, slice(0, steps), output.background))
        observation = terms["observation"]
        for lead in range(1, self.leads + 1):
            observed = at(batch, slice(lead, lead + steps), output.ahead[:, :, lead - 1])
            observation = observation + self.cost.observation_term(observed.xb, observed).to(observation.dtype)
        terms = {"background": terms["background"], "observation": observation}
        return {name: term.view(count, steps).mean(1) for name, term in terms.items()}


class Supervised(Loss):
    """The mean square distance of the analyses from the truth, term ``mse``: the ceiling, which no centre can train.

    Gradients pass through the model and all analyses of the window.
    """

    leads = 0

    def forward(self, output: Cycled, batch: Batch) -> dict[str, Float[Tensor, " b"]]:
        steps = output.analysis.shape[1]
        return {"mse": (output.analysis - batch.truth[:, :steps]).square().flatten(1).mean(1)}
