"""A run where the file that it was trained on is absent: what its checkpoint keeps of it, and analyses of one's own."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from eai.core.errors import require
from eai.variational.batch import Batch
from eai.variational.geographic import GeographicGrid
from eai.variational.observations import ObservationOperator, check_between

CHECKPOINT = ".ckpt"
KEY = "states"  # in a checkpoint, beside the weights


class Scaling(NamedTuple):
    """How states x = (v − c)/σ come from values v of a variable: see :class:`eai.tasks.assimilation.file_states`.

    ``mean``: c, float64 (12, n), one of each month, NaN where training has none, or (1, n).
    """

    variable: str
    grid: GeographicGrid
    mean: Float[Tensor, "m n"]
    sigma: float

    def climatology(self, months: Int[Tensor, " b"]) -> Float[Tensor, "b n"]:
        """c of these months, 1 to 12."""
        return self.mean[months - 1 if len(self.mean) > 1 else torch.zeros_like(months)]


def kept(scaling: Scaling, estimates: Mapping[str, Float[Tensor, "n n"]]) -> dict[str, Any]:
    """What a checkpoint keeps of the file, as tensors and primitives; of each B the upper triangle.

    Args:
        scaling: of the states.
        estimates: the B that are estimated from the file, by name.
    """
    grid = scaling.grid
    places = {"latitude": grid.latitude, "longitude": grid.longitude, "periodic": grid.periodic[1]}
    upper = torch.triu_indices(grid.n, grid.n) if estimates else torch.zeros(2, 0, dtype=torch.long)
    packed = {name: matrix.cpu()[upper[0], upper[1]] for name, matrix in estimates.items()}
    return {"variable": scaling.variable, "mean": scaling.mean, "sigma": scaling.sigma, **places, "covariances": packed}


def found_in(path: str) -> dict[str, Any]:
    """What :func:`kept` has put into a checkpoint.

    Args:
        path: of the checkpoint.

    Raises:
        ValueError: the run was on no file, or an earlier version of eai wrote the checkpoint.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True).get(KEY)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"path: expected a checkpoint, got {path} ({type(error).__name__})") from error
    require(found is not None, "path", "a checkpoint of a run on a file, with its grid and climatology", path)
    return dict(found)


def scaling_of(found: Mapping[str, Any]) -> Scaling:
    """The scaling that was kept.

    Args:
        found: see :func:`found_in`.
    """
    grid = GeographicGrid(found["latitude"].tolist(), found["longitude"].tolist(), found["periodic"])
    return Scaling(found["variable"], grid, found["mean"], found["sigma"])


def matrices_of(found: Mapping[str, Any]) -> dict[str, Float[Tensor, "n n"]]:
    """The B that were kept, by name, float64.

    Args:
        found: see :func:`found_in`.
    """
    n = len(found["latitude"]) * len(found["longitude"])
    upper, matrices = torch.triu_indices(n, n), {}
    for name, packed in found["covariances"].items():
        matrices[name] = torch.zeros(n, n, dtype=torch.float64)
        matrices[name][upper[0], upper[1]] = matrices[name][upper[1], upper[0]] = packed
    return matrices


class Given(NamedTuple):
    """A background and observations of one's own, all in the variable's units; b samples, p observations.

    ``background``: on the grid of the training data, latitudes northwards, longitudes eastwards, no NaN. ``months``: of
    each sample, 1 to 12. ``latitude``, ``longitude``: of the observations, degrees, inside of the grid. ``values``: NaN
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
        ValueError: another grid, shapes that do not fit, a month that training does not know, missing values of the
            background, observations outside of the grid, or errors that are not above 0.
    """
    grid = scaling.grid
    used = _checked(scaling, operator, given)
    place = [torch.where(used, degrees.double(), 0).flatten() for degrees in (given.latitude, given.longitude)]
    index, fraction = grid.locate_degrees(*place)
    check_between(operator, bool((fraction.view(*used.shape, -1)[used] == 0).all()), "some of these")
    climatology = scaling.climatology(given.months)
    xb = (given.background.flatten(1).double() - climatology) / scaling.sigma
    sigma = (given.sigma / scaling.sigma).float()
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


def _checked(scaling: Scaling, operator: ObservationOperator, given: Given) -> Bool[Tensor, "b p"]:
    """Where there are observations."""
    grid, (count, *shape) = scaling.grid, given.background.shape
    require(tuple(shape) == grid.shape, "background", f"fields of {grid.shape[0]} × {grid.shape[1]}", tuple(shape))
    require(tuple(given.months.shape) == (count,), "months", f"{count}, one of each field", tuple(given.months.shape))
    for name in ("latitude", "longitude", "sigma"):
        size, expected = tuple(getattr(given, name).shape), tuple(given.values.shape)
        require(size == expected and len(size) == 2 and size[0] == count, name,
                f"as many as values, {expected}, of {count} fields", size)  # fmt: skip
    known = (given.months >= 1) & (given.months <= 12)
    known = known & scaling.climatology(given.months.clamp(1, 12)).isfinite().all(1)
    require(bool(known.all()), "months", "1 to 12, of which training has a climatology", given.months.tolist())
    absent = int(given.background.isnan().sum())
    require(absent == 0, "background", "a value everywhere", f"none at {absent} points")
    used = given.values.isfinite()
    inside = grid.contains(given.latitude.flatten(), given.longitude.flatten()).view(used.shape)
    outside = int((used & ~inside).sum())
    require(outside == 0, "latitude", "observations inside of the grid", f"{outside} outside")
    require(bool((given.sigma > 0).all()), "sigma", "above 0", given.sigma.min().item() if given.sigma.numel() else 0)
    require(operator.linear, "operator", "a linear H", type(operator).__name__)
    return used
