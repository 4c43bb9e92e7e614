"""Time steps in periods that share none: training, then validation, then test data."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from eai.core.errors import require
from eai.fields.fields import Fields
from eai.fields.times import date_like

FITTED = 2**28  # bytes of training data that statistics are estimated from, at most


class Periods(NamedTuple):
    """Numbers of the time steps of each split: contiguous, one period after the other, no step in two of them."""

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def split_times(
    of: Fields | np.ndarray,
    val_share: float,
    test_share: float,
    val_from: str | None,
    test_from: str | None,
    gap: int,
) -> Periods:
    """Divide time into three periods.

    Args:
        of: fields, or their times in order.
        val_share, test_share: of all steps, for validation and test; not looked at where there are dates.
        val_from, test_from: dates such as 2009-01-31 at which those periods begin; both or none.
        gap: steps left out at the end of the training and of the validation period, so that what follows is no mere
            repetition of what came before.

    Raises:
        ValueError: a share or date is impossible, or leaves no step to one of the periods.
    """
    times = of if isinstance(of, np.ndarray) else of.times
    require(gap >= 0, "gap", "0 or more", gap)
    require(
        (val_from is None) == (test_from is None), "test_from", "a date where val_from is one, else null", test_from
    )
    if val_from is None or test_from is None:
        for name, share in (("val_share", val_share), ("test_share", test_share)):
            require(0 < share < 1, name, "0 < share < 1", share)
        require(val_share + test_share < 1, "val_share", f"less than 1 - test_share = {1 - test_share:g}", val_share)
        val, test = (len(times) - round(len(times) * share) for share in (val_share + test_share, test_share))
    else:
        val, test = (
            int(np.count_nonzero(times < date_like(times, name, text)))
            for name, text in (("val_from", val_from), ("test_from", test_from))
        )
        require(val < test, "test_from", f"a date after val_from with steps between, {val_from}", test_from)
    steps = np.arange(len(times))
    periods = Periods(steps[: max(0, val - gap)], steps[val : max(val, test - gap)], steps[test:])
    for split, period in periods._asdict().items():
        told = f"{len(times)} steps from {times[0]} to {times[-1]}, of which the {split} period gets none"
        name = "path" if val_from is None else f"{'val' if split == 'train' else split}_from"
        if len(period) == 0:
            raise ValueError(f"{name}: expected steps for training, validation and test, got {told}")
    return periods


def runs_without_gap(times: np.ndarray, indices: np.ndarray) -> list[np.ndarray]:
    """Divide steps wherever they do not follow each other: a number is left out, or time jumps.

    Time jumps where a step is longer than one and a half times the median step, so that months and years of different
    lengths are no gaps.

    Args:
        times: of all steps of the fields, in order.
        indices: of the steps to divide, increasing.

    Returns:
        Indices of steps that follow each other, at least one run unless ``indices`` is empty.
    """
    if len(indices) == 0:
        return []
    length = np.diff(times)
    seconds = length / np.timedelta64(1, "s") if times.dtype.kind == "M" else [step.total_seconds() for step in length]
    jumps = np.asarray(seconds, dtype=np.float64) > 1.5 * np.median(seconds) if len(length) else np.zeros(0, dtype=bool)
    broken = (np.diff(indices) != 1) | jumps[indices[:-1]]
    return np.split(np.asarray(indices), np.nonzero(broken)[0] + 1)


def some_of(steps: np.ndarray, values: int) -> np.ndarray:
    """As many of the steps, evenly taken, as 256 MiB hold in double precision; at least two of two or more.

    Args:
        steps: numbers of time steps.
        values: of each step.
    """
    most = max(2, FITTED // (8 * values))
    return steps[:: -(-len(steps) // most)]
