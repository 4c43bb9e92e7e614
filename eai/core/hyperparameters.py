"""A resolved configuration as a flat table: dotted keys and plain values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf


def flat_keys(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of the leaves of nested dictionaries; a list is a leaf."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    dot = "." if prefix else ""
    return {k: v for name, item in node.items() for k, v in flat_keys(item, f"{prefix}{dot}{name}").items()}


def flat_hyperparameters(cfg: DictConfig) -> dict[str, str | float]:
    """What TensorBoard's HParams tab can show: numbers, booleans and texts under dotted keys.

    TensorBoard's writer drops a None and with it the key, so that rows of one sweep would not line up
    where a value is null in some jobs; it is therefore written as the text ``null``, and a list as its text.
    """
    plain = flat_keys(OmegaConf.to_container(cfg, resolve=True))
    return {key: "null" if value is None else _plain(value) for key, value in plain.items()}


def _plain(value: Any) -> str | float:
    return value if isinstance(value, str | int | float) else str(value)
