"""What a task tells of a batch of test data and its estimates, to be written as a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


class Parted(NamedTuple):
    """A variable of numbers in single precision that is too large to be held, and is written part by part.

    ``dims``: as those of a :class:`Variable`, two or more. ``shape``: of a batch of it.
    ``parts``: along the second dimension, one after another, each with as many entries there as the first; the last
    one may have fewer.
    ``length``: of the parts along the second dimension.
    ``attributes``: see there.
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    parts: Iterator[Tensor]
    length: int
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
