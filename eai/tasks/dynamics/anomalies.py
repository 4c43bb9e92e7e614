"""Anomalies of fields from their climatology, in units of their standard deviation, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from eai.core.errors import require
from eai.tasks.dynamics.scores import LOST, States

SAME_PLACE = 6  # decimals of the coordinates of points, in radii
EQUAL = 1e-12  # of the variance around the first state: less is rounding


class Layout(NamedTuple):
    """Which places of a file's grid are nodes.

    ``latitude``, ``longitude``: of all places, in degrees. ``nodes``: flat numbers of those that are nodes.
    ``shape``: of the grid; one number for points that form none. ``regular``: whether each row has one latitude and
    each column one longitude.
    """

    latitude: Float[Tensor, "*shape"]
    longitude: Float[Tensor, "*shape"]
    nodes: Int[Tensor, " n"]
    regular: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.latitude.shape)

    @property
    def positions(self) -> Float[Tensor, "n 3"]:
        """Of the nodes on the unit sphere."""
        return on_sphere(self.latitude, self.longitude)[self.nodes]

    @property
    def weights(self) -> Float[Tensor, " n"]:
        """Of the nodes in means, 1 on average: the cosine of latitude on a regular grid, else equal."""
        if not self.regular:
            return torch.ones(len(self.nodes), dtype=torch.float64)
        cosine = self.latitude.flatten()[self.nodes].deg2rad().cos()
        return cosine / cosine.mean()

    @property
    def static(self) -> Float[Tensor, "n 3"]:
        """What the nodes know of their place: the sine of latitude, the sine and the cosine of longitude."""
        north, east = (degrees.flatten()[self.nodes].deg2rad() for degrees in (self.latitude, self.longitude))
        return torch.stack([north.sin(), east.sin(), east.cos()], dim=1)

    def everywhere(self, values: Float[Tensor, "*b n"]) -> Float[Tensor, "*b m"]:
        """The values at all places, flat; NaN where there is no node."""
        whole = values.new_full((*values.shape[:-1], self.latitude.numel()), torch.nan)
        whole[..., self.nodes.to(values.device)] = values
        return whole


def on_sphere(latitude: Float[Tensor, "*shape"], longitude: Float[Tensor, "*shape"]) -> Float[Tensor, "m 3"]:
    """The unit vectors of all places, flat; degrees become (x, y, z), z to the north pole."""
    north, east = latitude.flatten().deg2rad(), longitude.flatten().deg2rad()
    return torch.stack([north.cos() * east.cos(), north.cos() * east.sin(), north.sin()], dim=1)


def different_places(positions: Float[Tensor, "m 3"]) -> Int[Tensor, " k"]:
    """The numbers of the first points at each place: a grid's row at a pole is one place, and so are 0° and 360°."""
    _, first = np.unique(positions.numpy().round(SAME_PLACE), axis=0, return_index=True)
    return torch.from_numpy(np.sort(first))


def seasonal_forcing(season: Float[Tensor, "*t"], harmonics: int) -> Float[Tensor, "*t f"]:
    """sin 2πs, cos 2πs of the season s, the fraction of the year; nothing (f = 0) where there are no harmonics.

    Args:
        season: s.
        harmonics: of the year in the climatology.
    """
    angle = 2 * torch.pi * season.double()
    return torch.stack([angle.sin(), angle.cos()], dim=-1)[..., : 2 * harmonics]


def seasonal_basis(forcing: Float[Tensor, "*t f"], harmonics: int) -> Float[Tensor, "*t k"]:
    """1, sin 2πs, cos 2πs, …, sin 2πKs, cos 2πKs.

    Args:
        forcing: see :func:`seasonal_forcing`.
        harmonics: K.
    """
    waves = [torch.ones_like(forcing[..., :1].sum(-1), dtype=torch.float64)]
    if harmonics:
        angle = torch.atan2(forcing[..., 0].double(), forcing[..., 1].double())
        waves += [wave for k in range(1, harmonics + 1) for wave in ((k * angle).sin(), (k * angle).cos())]
    return torch.stack(waves, dim=-1)


class Anomalies(nn.Module):
    """u = (x − x̄(season)) / σ: x̄ the climatology at each node, σ the standard deviation of each variable's anomalies.

    x̄(s) = a₀ + Σ_k (a_k sin 2πks + b_k cos 2πks), fitted by least squares (:class:`ClimatologyFit`). All are buffers:
    a checkpoint knows what its run was trained with.

    Args:
        coefficients: of the climatology, in the order of :func:`seasonal_basis`.
        std: σ of each variable, above 0.
        layout: of the nodes.
        variables: their names.
        units: of the variables.
    """

    coefficients: Tensor
    std: Tensor
    weights: Tensor

    def __init__(
        self,
        coefficients: Float[Tensor, "k n c"],
        std: Float[Tensor, " c"],
        layout: Layout,
        variables: Sequence[str],
        units: Sequence[str],
    ) -> None:
        super().__init__()
        for name, value in zip(variables, std.tolist(), strict=True):
            require(value > 0, "variables", "fields that change in the training period", name)
        self.layout, self.variables, self.units = layout, tuple(variables), tuple(units)
        self.register_buffer("coefficients", coefficients)
        self.register_buffer("std", std)
        # Of the data's grid, so not part of a checkpoint.
        self.register_buffer("weights", layout.weights, persistent=False)

    @property
    def harmonics(self) -> int:
        """Of the year, in the climatology."""
        return (len(self.coefficients) - 1) // 2

    def climatology(self, forcing: Float[Tensor, "*t f"]) -> Float[Tensor, "*t n c"]:
        """x̄ in the variables' units, at the seasons of which ``forcing`` holds sine and cosine."""
        basis = seasonal_basis(forcing.to(self.std.device), self.harmonics)
        return torch.einsum("...k,knc->...nc", basis, self.coefficients.double())

    def standardised(self, x: Float[Tensor, "*t n c"], forcing: Float[Tensor, "*t f"]) -> Float[Tensor, "*t n c"]:
        """The anomalies u of fields x in the variables' units."""
        return ((x.to(self.std.device).double() - self.climatology(forcing)) / self.std.double()).float()

    def physical(self, u: Float[Tensor, "*t n c"], forcing: Float[Tensor, "*t f"]) -> Float[Tensor, "*t n c"]:
        """The fields x, in the variables' units, of anomalies u."""
        return u.double() * self.std.double() + self.climatology(forcing)

    def maps(self, u: Float[Tensor, "*t n c"], forcing: Float[Tensor, "*t f"]) -> Float[Tensor, "*t c *shape"]:
        """The fields of anomalies u on the whole grid, in the variables' units; NaN where there is no node."""
        return self.layout.everywhere(self.physical(u, forcing).mT).unflatten(-1, self.layout.shape)

    def squares(self, predicted: States, truth: States) -> Float[Tensor, "b l c"]:
        """Mean square error over the nodes, weighted by their areas, in units of σ², at most ``LOST``²."""
        error = (predicted - truth).square()
        mean = (error * self.weights.to(error)[:, None]).mean(2)
        return mean.nan_to_num(LOST**2, LOST**2, LOST**2).clamp(max=LOST**2)

    def nrmse(self, predicted: States, truth: States) -> Float[Tensor, "b l"]:
        """√ of the mean of :meth:`squares` over the variables; 1 is an error of the size of the training anomalies."""
        return self.squares(predicted, truth).mean(2).sqrt()

    def square_errors(self, predicted: States, truth: States, leads: Sequence[int]) -> dict[str, Float[Tensor, " b"]]:
        """``square/<variable>``, mean over all leads, and ``square/<variable>/lead_01`` … of each sample.

        Args:
            predicted, truth: states after 1, 2, … steps.
            leads: to name.
        """
        squares = self.squares(predicted, truth)
        found = {}
        for channel, variable in enumerate(self.variables):
            found[f"square/{variable}"] = squares[:, :, channel].mean(1)
            found |= {f"square/{variable}/lead_{lead:02d}": squares[:, lead - 1, channel] for lead in leads}
        return found

    def rms_errors(self, means: Mapping[str, float]) -> dict[str, float]:
        """``rmse/<variable>/lead_01`` …, in the variables' units, from the means named ``square/<variable>/lead_01`` …

        RMSE = σ √(mean square error) over nodes and forecasts; without a lead, over all leads too.

        Args:
            means: over samples, by name.
        """
        found = {}
        for variable, std in zip(self.variables, self.std.tolist(), strict=True):
            for name, mean in means.items():
                if name == f"square/{variable}" or name.startswith(f"square/{variable}/"):
                    found[name.replace("square/", "rmse/", 1)] = std * mean**0.5
        return found


class ClimatologyFit:
    """Sums over training states from which the climatology and the deviations from it follow, state by state.

    Args:
        harmonics: of the year in the climatology.
    """

    def __init__(self, harmonics: int) -> None:
        self.harmonics, self.count = harmonics, 0
        self._first: Tensor | None = None

    _normal: Tensor
    _moment: Tensor
    _square: Tensor

    def add(self, x: Float[Tensor, "t n c"], season: Float[Tensor, " t"]) -> None:
        """Count some states.

        Args:
            x: in the variables' units, none missing.
            season: the fraction of the year of each.
        """
        if not len(x):
            return
        basis = seasonal_basis(seasonal_forcing(season, self.harmonics), self.harmonics)
        if self._first is None:
            self._first, size = x[0].double(), basis.shape[1]  # an origin near the mean: sums keep their digits
            self._normal = basis.new_zeros(size, size)
            self._moment = basis.new_zeros(size, *x.shape[1:])
            self._square = basis.new_zeros(x.shape[1:])
        x = x.double() - self._first
        self._normal += basis.T @ basis
        self._moment += torch.einsum("tk,tnc->knc", basis, x)
        self._square += x.square().sum(0)
        self.count += len(x)

    def result(self) -> tuple[Float[Tensor, "k n c"], Float[Tensor, " c"]]:
        """Coefficients of the climatology, and σ of each variable: rms of the anomalies over states and nodes."""
        assert self._first is not None, "states were added"
        coefficients = torch.linalg.solve(self._normal, self._moment.flatten(1)).view_as(self._moment)
        rest = (self._square - (coefficients * self._moment).sum(0)).mean(0)
        coefficients[0] += self._first
        # What is left of equal states is rounding.
        rest = torch.where(rest > EQUAL * self._square.mean(0), rest, 0)
        return coefficients, (rest / self.count).sqrt()
