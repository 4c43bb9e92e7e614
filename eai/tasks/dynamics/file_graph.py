"""Which places of a file's grid are nodes, and the graph that joins them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from eai.core.errors import require
from eai.fields import Fields, open_fields
from eai.tasks.dynamics.anomalies import Layout, different_places, on_sphere
from eai.tasks.dynamics.elsewhere import CHECKPOINT, layout_in
from eai.tasks.dynamics.meshes import PointGraph, knn_points

LOOKED = 64  # states from which it is seen where the file has values


def file_points(path: str, variables: Sequence[str], k: int = 8, missing_share: float = 0.0) -> PointGraph:
    """Join the places of a file's grid at which there are values: each with its ``k`` nearest on the sphere.

    Longitudes go round by themselves, and the rows of a grid may end anywhere. Nodes are weighted by the cosine of
    latitude on a regular grid. Neighbours are found by :func:`eai.tasks.dynamics.meshes.knn_points`.

    Args:
        path, variables, missing_share: as those of the data, see
            :class:`eai.tasks.dynamics.netcdf.FieldTrajectories`. Where their file is absent, ``path`` may be a
            checkpoint (.ckpt) of a run on it, which knows the places.
        k: nearest neighbours, 1 ≤ k < number of nodes; those as far away as the last one count too.

    Raises:
        ValueError: the file is not such data, or has fewer nodes.
    """
    known = path.endswith(CHECKPOINT)
    layout = layout_in(path) if known else layout_of(open_fields(path, list(variables)), missing_share)
    return knn_points(layout.positions, k, sphere=True)._replace(area=layout.weights)


def layout_of(fields: Fields, missing_share: float) -> Layout:
    """The nodes of a file's grid: different places at which every variable has values.

    A place is left out if a value is missing there in more than ``missing_share`` of up to 64 states, evenly taken
    from all times.

    Args:
        fields: the file.
        missing_share: 0 ≤ missing_share < 1.

    Raises:
        ValueError: fewer than two places are left.
    """
    require(0 <= missing_share < 1, "missing_share", "0 ≤ missing_share < 1", missing_share)
    steps = np.unique(np.linspace(0, len(fields.times) - 1, LOOKED).round().astype(int))
    absent = np.isnan(fields.read(steps)).any(axis=1).reshape(len(steps), -1).mean(axis=0)
    full = torch.from_numpy(np.flatnonzero(absent <= missing_share))
    require(
        len(full) >= 2,
        "missing_share",
        f"so large that two places or more are left (the fullest lacks values in {absent.min():.2g} of the states)",
        missing_share,
    )
    latitude, longitude = torch.from_numpy(fields.latitude), torch.from_numpy(fields.longitude)
    nodes = full[different_places(on_sphere(latitude, longitude)[full])]
    return Layout(latitude, longitude, nodes, fields.kind == "regular")
