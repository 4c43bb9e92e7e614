"""What the learned analysis is measured against: optimal interpolation, 3D-Var, ensembles, the Kalman filter.

Every method makes the same test cycles from the same cold start with the same observations, all cycles at once. What
can be tuned is tuned on validation data, whose truth it may see: that favours the references.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor

from eai.tasks.cycling.cycle import Estimate, cycle
from eai.tasks.cycling.data import Batch, Cycles
from eai.tasks.cycling.ensemble import Ensemble, EnsembleTransform, LocalTransform, PerturbedObservations
from eai.tasks.cycling.forecast import Exact, finished
from eai.tasks.cycling.kalman import kalman
from eai.tasks.cycling.linear import StaticGain
from eai.variational import batch as variational

Method = Callable[[Batch], Estimate]
CYCLES, STEPS = 16, 400  # of the validation data, on which references are tuned
INFLATIONS = (1.0, 1.01, 1.02, 1.03, 1.05, 1.08, 1.15, 1.3)
# LETKF has a radius as well, in grid points, and a decomposition at each point: fewer values, on fewer cycles.
LOCAL_CYCLES, LOCAL_STEPS, LOCAL_INFLATIONS, RADII = 4, 300, (1.02, 1.05, 1.1, 1.2), (3.0, 5.0, 8.0, 12.0)
SCALES = tuple(2.0**k for k in range(-8, 2))  # of the climate's covariance, as 3D-Var's B


def climate(data: Cycles, count: int = 2048) -> Float[Tensor, "s n"]:
    """States of the model's climate, from free runs: what a centre knows without any observation, float64.

    Args:
        data: whose system it is.
        count: number of states.
    """
    return data.system.random_states(count, torch.Generator(data.device).manual_seed(data.seed))


class References:
    """The reference methods of some data, tuned when they are first called.

    Args:
        data: the cycles.
        leads: of the forecasts that are scored.
        members: of the ensembles: perturbed observations, square root, local.
    """

    def __init__(self, data: Cycles, leads: int, members: tuple[int, int, int] = (40, 24, 20)) -> None:
        self._data, self._leads, self._members = data, leads, members
        self._model = Exact(data.system)
        self._ensembles: dict[type[Ensemble], Ensemble] = {}  # as tuned

    def methods(self) -> dict[str, Method]:
        """By name, the cheapest first."""
        data = self._data
        methods: dict[str, Method] = {
            "free_run": self._free_run,
            "optimal_interpolation": self._optimal_interpolation,
            "var3d": lambda batch: self._var3d(batch, self._static_covariance),
            **{name: partial(self._run, kind, members) for name, (kind, members) in self._kinds().items()},
        }
        if data.system.linear and data.operator.linear:
            methods["kalman"] = partial(kalman, data, leads=self._leads)
            if data.uniform:
                methods["kalman_steady"] = partial(kalman, data, leads=self._leads, steady=True)
        return methods

    def members(self) -> dict[str, int]:
        """How many members each ensemble has, by the name of its method."""
        return {name: members for name, (_, members) in self._kinds().items()}

    def ensembles(self) -> dict[str, Ensemble]:
        """The ensembles as they were tuned, by the names of their methods."""
        return {name: self._tuned(kind, members) for name, (kind, members) in self._kinds().items()}

    def _kinds(self) -> dict[str, tuple[type[Ensemble], int]]:
        data, (one, two, three) = self._data, self._members
        kinds: dict[type[Ensemble], int] = {PerturbedObservations: one, EnsembleTransform: two}
        # Where there is more to know than members can, localisation is what makes an ensemble work.
        if data.network.slots < data.n or data.n > one:
            kinds[LocalTransform] = three
        return {f"{kind.name}_{members}": (kind, members) for kind, members in kinds.items()}

    def _run(self, kind: type[Ensemble], members: int, batch: Batch) -> Estimate:
        return self._tuned(kind, members).run(batch, self._leads)

    @cached_property
    def _climate(self) -> Float[Tensor, "s n"]:
        return climate(self._data)

    def _validation(self, cycles: int = CYCLES, steps: int = STEPS) -> Batch:
        return _first_cycles(self._data.batch("val", cycles), steps + self._data.ahead)

    def _skill(self, estimate: Estimate, batch: Batch) -> float:
        """RMSE of the analyses of validation cycles, infinite if one was lost."""
        steps = estimate.analysis.shape[1]
        spun_up = min(self._data.spin_up, steps // 2)
        error = (estimate.analysis - batch.truth[:, :steps])[:, spun_up:].square().mean().sqrt().item()
        return error if error == error else torch.inf

    def _free_run(self, batch: Batch) -> Estimate:
        return self._static(batch, lambda observed: observed.xb)

    def _optimal_interpolation(self, batch: Batch) -> Estimate:
        """The analysis of the climate's mean, with the climate's covariance, at each time by itself."""
        states = self._climate.to(batch.y.device)
        gain = StaticGain(self._data, states.T.cov().float())
        middle = states.mean(0).float().expand(len(batch.y), -1)
        return self._static(batch, lambda observed: gain(observed._replace(xb=middle)))

    def _var3d(self, batch: Batch, covariance: Float[Tensor, "n n"]) -> Estimate:
        return self._static(batch, StaticGain(self._data, covariance.float().to(batch.y.device)))

    @cached_property
    def _static_covariance(self) -> Float[Tensor, "n n"]:
        """B of 3D-Var: the climate's covariance, scaled; then the covariance of its background errors, scaled."""
        batch = self._validation()

        def best(shape: Tensor) -> tuple[float, Tensor, Estimate]:
            tried = []
            for scale in SCALES:
                estimate = self._var3d(batch, scale * shape)
                tried.append((self._skill(estimate, batch), scale * shape, estimate))
            return min(tried, key=lambda one: one[0])

        first = best(self._climate.to(batch.y.device).T.cov())
        steps = first[2].background.shape[1]
        error = (first[2].background - batch.truth[:, :steps])[:, steps // 2 :].flatten(0, 1)
        second = best((error.T @ error / len(error)).double())
        return min((first, second), key=lambda one: one[0])[1]

    def _static(self, batch: Batch, analyse: Callable[[variational.Batch], Tensor]) -> Estimate:
        steps = batch.y.shape[1] - self._data.ahead
        none = batch.start[:, :, None][:, :, :0]
        made = cycle(lambda observed, memory: (analyse(observed), memory), self._model, batch, batch.start, none, steps)
        return finished(self._model, batch, made.analysis, made.background, self._leads)

    def _tuned(self, kind: type[Ensemble], members: int) -> Ensemble:
        """The method with the inflation, and radius, of the least error on validation data."""
        if kind not in self._ensembles:
            local = kind is LocalTransform
            batch = self._validation(LOCAL_CYCLES, LOCAL_STEPS) if local else self._validation()
            tried = []
            for radius, inflation in product(RADII, LOCAL_INFLATIONS) if local else product((None,), INFLATIONS):
                method = kind(self._data, self._model, self._climate, members, inflation, radius)
                tried.append((self._skill(method.run(batch, 0), batch), method))
            self._ensembles[kind] = min(tried, key=lambda one: one[0])[1]
        return self._ensembles[kind]

    def tuned_to(self) -> Mapping[str, Mapping[str, float]]:
        """What each ensemble that was run was tuned to."""
        return {
            f"{kind.name}_{method.members}": {
                "inflation": method.inflation,
                **({"radius": method.radius} if method.radius else {}),
            }
            for kind, method in self._ensembles.items()
        }


def _first_cycles(batch: Batch, times: int) -> Batch:
    cut = {name: getattr(batch, name)[:, :times] for name in Batch._fields if name not in ("start", "window")}
    return batch._replace(**cut)
