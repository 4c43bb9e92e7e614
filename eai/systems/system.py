"""What a dynamical system is, and the classical Runge-Kutta method."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require


class System(ABC):
    """Equations on n points, advanced from one analysis time to the next.

    Attributes:
        n: size of the state.
        linear: whether :meth:`step` is, so that a Kalman filter is exact.
        stochastic: whether a truth of this system has model noise (see :meth:`noise`).
        interval: time between two analyses, in the system's units.
        bound: absolute values beyond which no state of the climate is, by a wide margin.
    """

    n: int
    bound: float = math.inf
    interval: float = 1.0
    linear: bool = False
    stochastic: bool = False

    @abstractmethod
    def step(self, state: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        """The state one interval later, without noise."""

    @abstractmethod
    def random_states(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """``count`` independent states of the system's climate, float64."""

    def noise(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """What the truth gets added in one interval, float64: nothing, unless the system is stochastic."""
        return torch.zeros(count, self.n, dtype=torch.float64, device=generator.device)

    def noise_covariance(self) -> Float[Tensor, "n n"]:
        """The covariance Q of :meth:`noise`, float64."""
        return torch.zeros(self.n, self.n, dtype=torch.float64)

    def trajectory(
        self, first: Float[Tensor, "b n"], steps: int, generator: torch.Generator | None = None
    ) -> Float[Tensor, "b t n"]:
        """``first`` and the states after 1 … ``steps`` − 1 intervals, with noise if a generator is given."""
        states = [first]
        for _ in range(steps - 1):
            state = self.step(states[-1])
            states.append(state if generator is None else state + self.noise(len(first), generator))
        return torch.stack(states, 1)


def rk4(tendency: Callable[[Tensor], Tensor], state: Tensor, dt: float, steps: int = 1) -> Tensor:
    """``steps`` steps of the classical Runge-Kutta method of order 4.

    Args:
        tendency: f of dx/dt = f(x).
        state: x.
        dt: of one step.
        steps: number of steps.
    """
    for _ in range(steps):
        k1 = tendency(state)
        k2 = tendency(torch.add(state, k1, alpha=dt / 2))
        k3 = tendency(torch.add(state, k2, alpha=dt / 2))
        k4 = tendency(torch.add(state, k3, alpha=dt))
        state = torch.add(state, k1 + 2 * (k2 + k3) + k4, alpha=dt / 6)
    return state


class Integrated(System):
    """A system of ordinary differential equations, by Runge-Kutta 4.

    Args:
        n: size of the state.
        dt: time step.
        interval: between two analyses, a multiple of ``dt``.
        spin_up: time after which a random start counts as a state of the climate.

    Raises:
        ValueError: the interval is no multiple of ``dt``, or the integration blows up.
    """

    def __init__(self, n: int, dt: float, interval: float, spin_up: float) -> None:
        require(dt > 0, "dt", "above 0", dt)
        steps = round(interval / dt)
        fits = steps >= 1 and math.isclose(steps * dt, interval, rel_tol=1e-6)
        require(fits, "interval", f"a multiple of dt = {dt}, at least one", interval)
        self.n, self.dt, self.interval, self.spin_up, self._steps = n, dt, interval, spin_up, steps
        trial = rk4(self.tendency, self.rough(4, torch.Generator().manual_seed(0)), dt, round(spin_up / dt))
        stable = bool(trial.isfinite().all())
        require(stable, "dt", "a time step at which Runge-Kutta 4 is stable; the integration blew up", dt)
        self.bound = 4 * trial.abs().max().item()

    @abstractmethod
    def tendency(self, state: Float[Tensor, "*b n"]) -> Float[Tensor, "*b n"]:
        """dx/dt."""

    @abstractmethod
    def rough(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        """States from which the climate is reached after ``spin_up``, float64."""

    def step(self, state: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
        return rk4(self.tendency, state, self.dt, self._steps)

    def random_states(self, count: int, generator: torch.Generator) -> Float[Tensor, "b n"]:
        return rk4(self.tendency, self.rough(count, generator), self.dt, round(self.spin_up / self.dt))
