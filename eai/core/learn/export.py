"""What a task tells of a batch of test data and its estimates, to be written as a dataset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor


class Variable(NamedTuple):
    """One variable of a dataset, by the conventions of CF.

    ``dims``: the names of its dimensions; one that varies between samples has the samples first.
    ``values``: of it; NaN where a number is missing.
    ``attributes``: ``units``, ``long_name``, ``standard_name`` and others.
    """

    dims: tuple[str, ...]
    values: Tensor
    attributes: Mapping[str, str]


def named(dims: tuple[str, ...], values: Tensor, long_name: str, units: str = "1", **attributes: str) -> Variable:
    """A :class:`Variable` with a name that people read.

    Args:
        dims, values: see there.
        long_name: what it is.
        units: of its values; ``1``: none.
        attributes: further ones.
    """
    return Variable(dims, values, {"long_name": long_name, "units": units, **attributes})
