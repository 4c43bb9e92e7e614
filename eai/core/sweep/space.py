"""Overrides of Hydra's as what Optuna searches: choices, ranges and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer


def search_space(texts: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Optuna's distributions by key, and the overrides that all trials share.

    Args:
        texts: overrides; of one key the last counts.
    """
    items = {item.get_key_element(): item for item in OverridesParser.create().parse_overrides(list(texts))}
    swept = {key: _distribution(item) for key, item in items.items() if item.is_sweep_override()}
    return swept, [str(item.input_line) for key, item in items.items() if key not in swept]


def _distribution(item: Override) -> Any:
    """Numbers in an interval or a range stay ordered; anything else is one of several categories."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = item.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        distribution = IntDistribution if whole else FloatDistribution
        return distribution(value.start, value.end, log="log" in value.tags)
    options = list(item.sweep_iterator(transformer=Transformer.encode))
    if isinstance(value, RangeSweep) and len(options) > 1 and not value.shuffle:
        numbers = sorted(float(option) for option in options)
        if all(number.is_integer() for number in numbers):
            return IntDistribution(int(numbers[0]), int(numbers[-1]), step=int(numbers[1] - numbers[0]))
        return FloatDistribution(numbers[0], numbers[-1], step=abs(float(value.step)))
    return CategoricalDistribution(options)
