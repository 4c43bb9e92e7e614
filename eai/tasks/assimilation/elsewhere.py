"""A run where the file that it was trained on is absent: what its checkpoint keeps of it, and analyses of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.geographic import GeographicGrid
from eai.variational.observations import ObservationOperator

CHECKPOINT = ".ckpt"
KEY = "states"  # in a checkpoint, beside the weights


class Scaling(NamedTuple):
    """How states x = (v − c)/σ come from values v of a variable: see :class:`eai.tasks.assimilation.file_states`.

    ``mean``: c, float64 (12, n), one of each month, or (1, n).
    """

    variable: str
    grid: GeographicGrid
    mean: Float[Tensor, "m n"]
    sigma: float

    def climatology(self, months: Int[Tensor, " b"]) -> Float[Tensor, "b n"]:
        """c of these months, 1 to 12."""
        return self.mean[(months - 1) % len(self.mean)]


def kept(scaling: Scaling, matrix: Float[Tensor, "n n"] | None) -> dict[str, Any]:
    """What a checkpoint keeps of the file, as tensors and primitives; of B the upper triangle, in single precision.

    Args:
        scaling: of the states.
        matrix: B, where it is estimated from the file.
    """
    grid = scaling.grid
    places = {"latitude": grid.latitude, "longitude": grid.longitude, "periodic": grid.periodic[1]}
    content = {"variable": scaling.variable, "mean": scaling.mean, "sigma": scaling.sigma, **places}
    if matrix is not None:
        upper = torch.triu_indices(*matrix.shape)
        content["covariance"] = matrix.cpu()[upper[0], upper[1]].float()
    return content


def found_in(path: str) -> dict[str, Any]:
    """What :func:`kept` has put into a checkpoint.

    Args:
        path: of the checkpoint.

    Raises:
        ValueError: the run was on no file, or an earlier version of eai wrote the checkpoint.
    """
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=True).get(KEY)
    require(found is not None, "path", "a checkpoint of a run on a file, with its grid and climatology", path)
    return dict(found)


def scaling_of(found: Mapping[str, Any]) -> Scaling:
    """The scaling that was kept.

    Args:
        found: see :func:`found_in`.
    """
    grid = GeographicGrid(found["latitude"].tolist(), found["longitude"].tolist(), found["periodic"])
    return Scaling(found["variable"], grid, found["mean"], found["sigma"])


def matrix_of(found: Mapping[str, Any]) -> Float[Tensor, "n n"]:
    """B that was kept, float64.

    Args:
        found: see :func:`found_in`.
    """
    n = len(found["latitude"]) * len(found["longitude"])
    matrix, upper = torch.zeros(n, n, dtype=torch.float64), torch.triu_indices(n, n)
    matrix[upper[0], upper[1]] = found["covariance"].double()
    return matrix + matrix.triu(1).T


class Given(NamedTuple):
    """A background and observations of one's own, all in the variable's units; b samples, p observations.

    ``background``: on the grid of the training data, latitudes northwards, longitudes eastwards. ``months``: of each
    sample, 1 to 12. ``latitude``, ``longitude``: of the observations, degrees, inside of the grid. ``values``: NaN
    where there is none. ``sigma``: standard deviations of their errors.
    """

    background: Float[Tensor, "b ny nx"]
    months: Int[Tensor, " b"]
    latitude: Float[Tensor, "b p"]
    longitude: Float[Tensor, "b p"]
    values: Float[Tensor, "b p"]
    sigma: Float[Tensor, "b p"]


def batch_of(scaling: Scaling, operator: ObservationOperator, given: Given) -> Batch:
    """The batch of a background and observations; the truth is NaN.

    Args:
        scaling: of the run's states.
        operator: H, linear.
        given: in the variable's units.

    Raises:
        ValueError: another grid, observations outside of it, or errors that are not above 0.
    """
    grid, shape = scaling.grid, tuple(given.background.shape[1:])
    require(shape == grid.shape, "background", f"fields of {grid.shape[0]} × {grid.shape[1]}", shape)
    inside = grid.contains(given.latitude.flatten(), given.longitude.flatten())
    require(bool(inside.all()), "latitude", "observations inside of the grid", f"{int((~inside).sum())} outside")
    require(bool((given.sigma > 0).all()), "sigma", "above 0", given.sigma.min().item())
    require(operator.linear, "operator", "a linear H", type(operator).__name__)
    index, fraction = grid.locate_degrees(given.latitude.flatten(), given.longitude.flatten())
    climatology = scaling.climatology(given.months)
    xb = (given.background.flatten(1).double() - climatology) / scaling.sigma
    used, sigma = given.values.isfinite(), (given.sigma / scaling.sigma).float()
    batch = Batch(
        xb=xb.float(),
        y=torch.zeros_like(sigma),
        obs_index=index.view(sigma.shape),
        obs_fraction=fraction.view(*sigma.shape, grid.d).float(),
        obs_sigma=sigma,
        obs_mask=used.float(),
        obs_withheld=torch.zeros_like(sigma),
        xt=torch.full_like(xb, torch.nan).float(),
        obs_sigma_true=sigma,
    )
    departure = (given.values.double() - operator(climatology, batch)) / scaling.sigma
    return batch._replace(y=torch.where(used, departure, 0.0).float())
