"""B estimated from the training period of a user's own file, localised on the sphere."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from eai.core.errors import require
from eai.fields.periods import some_of
from eai.tasks.assimilation.file_states import FileStates
from eai.variational.covariance import gaspari_cohn
from eai.variational.covariance_base import Covariance, DenseCovariance, check_size
from eai.variational.estimated_covariance import nmc_estimate
from eai.variational.geographic import EARTH, GeographicGrid


class FileNMCCovariance(DenseCovariance):
    """B = scale · (1/m) Σ δδᵀ ∘ GC(d; support) + nugget · I, δ = x(t) − x(t − lag) of m pairs of training states.

    They are the very errors of a background that is the state ``lag`` steps earlier: scale 1. The NMC method (Parrish
    and Derber 1992) takes ½ for two forecasts with independent errors. GC is the correlation of Gaspari and Cohn
    (1999), d the chord in km, for which it is positive definite.

    Args:
        states: of the file; differences are those of its training period alone.
        lag: time steps between two states, at least 1.
        scale: above 0.
        support: where the localisation reaches zero, km, up to the Earth's diameter.
        nugget: added to the diagonal, in units of the state squared, 0 or more; fewer differences than points give a
            singular B without it where the localisation is wide.
    """

    def __init__(
        self, states: FileStates, lag: int = 1, scale: float = 1.0, support: float = 3000.0, nugget: float = 0.01
    ) -> None:
        require(lag >= 1, "lag", "at least 1", lag)
        _check(scale, support, nugget)
        super().__init__(*_known(states, type(self)) or _estimated(states, lag, scale, support, nugget))


class FileEnsembleCovariance(DenseCovariance):
    """B = scale · X'ᵀ X'/(m − 1) ∘ GC(d; support) + nugget · I, X' the m training states without their mean.

    The covariance of the climate: of errors as large as anomalies, for scale 1.

    Args:
        states: of the file; members are those of its training period alone.
        scale, support, nugget: see :class:`FileNMCCovariance`.
    """

    def __init__(self, states: FileStates, scale: float = 1.0, support: float = 3000.0, nugget: float = 0.01) -> None:
        _check(scale, support, nugget)
        super().__init__(*_known(states, type(self)) or _estimated(states, 0, scale, support, nugget))


class _Estimate(NamedTuple):
    """What :class:`DenseCovariance` is made of."""

    matrix: Float[Tensor, "n n"]
    grid: GeographicGrid
    eigen: tuple[Float[Tensor, " n"], Float[Tensor, "n n"]]


def _check(scale: float, support: float, nugget: float) -> None:
    require(scale > 0, "scale", "above 0", scale)
    require(0 < support <= 2 * EARTH, "support", f"above 0, at most {2 * EARTH:g} km", support)
    require(nugget >= 0, "nugget", "0 or more", nugget)


@lru_cache(maxsize=2)  # data, cost and net ask for the same one
def _known(states: FileStates, kind: type[DenseCovariance]) -> _Estimate | None:
    """What a checkpoint has of an estimate; None where there is a file.

    Raises:
        ValueError: the checkpoint has none of this kind.
    """
    if not states.of_checkpoint:
        return None
    matrix = states.estimates.get(kind.__name__)
    if matrix is None:
        raise ValueError(f"states: expected a checkpoint with a {kind.__name__}, got one without")
    return _Estimate(matrix, states.grid, torch.linalg.eigh(matrix))


def estimates_in(covariance: Covariance) -> dict[str, Float[Tensor, "n n"]]:
    """The B that are estimated from a file, by the names of their classes: this one, or parts of it.

    Args:
        covariance: of the data.
    """
    found = {}
    if isinstance(covariance, FileNMCCovariance | FileEnsembleCovariance):
        found[type(covariance).__name__] = covariance.values
    for part in covariance.parts:
        found |= estimates_in(part)
    return found


@lru_cache(maxsize=2)  # data, cost and net ask for the same one
def _estimated(states: FileStates, lag: int, scale: float, support: float, nugget: float) -> _Estimate:
    grid = states.grid
    check_size(grid.n)
    steps = states.later(states.periods.train, lag)
    name, least = ("lag", 1) if lag else ("states", 2)
    told = f"{len(states.periods.train)} training steps, of which {len(steps)} follow so many"
    require(len(steps) >= least, name, f"a lag with at least {least} differences", told)
    some = some_of(steps, grid.n)
    if lag:
        estimate = nmc_estimate(states.read(some).double() - states.read(some - lag), scale)
    else:
        estimate = scale * torch.cov(states.read(some).double().T)
    index = torch.arange(grid.n)
    taper = gaspari_cohn(grid.chord(index[:, None], index), support)
    matrix = estimate * taper + nugget * torch.eye(grid.n, dtype=torch.float64)
    values, vectors = torch.linalg.eigh(matrix)
    return _Estimate(matrix, grid, (values, vectors))
