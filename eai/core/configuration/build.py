"""From the nodes of a checked configuration to objects."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import hydra
from hydra.errors import InstantiationException
from omegaconf import DictConfig

from eai.core.configuration.trust import whitelist
from eai.core.errors import ConfigError


@contextmanager
def named_by_key(key: str) -> Iterator[None]:
    """Turn what constructors refuse into a ``ConfigError`` that starts with the key of their node."""
    # Imports torch.
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except InstantiationException as error:
        raise ConfigError(str(error).replace("\n", " ")) from error
    except (ValueError, TypeError, MisconfigurationException) as error:
        # Hydra notes on the error which node was being built.
        notes = [note.removeprefix("full_key: ") for note in getattr(error, "__notes__", ()) if "full_key: " in note]
        where = notes[0] if notes else key
        joint = "." if re.match(r"[\w.]+: expected", str(error)) else ": "
        raise ConfigError(f"{where}{joint}{error}") from error


def build(cfg: DictConfig, key: str, **arguments: Any) -> Any:
    """Instantiate the node ``key``; a ``ConfigError`` says by key what cannot be built."""
    with named_by_key(key), _no_temporary_files():
        return hydra.utils.instantiate(cfg[key], _convert_="all", _execution_whitelist_=whitelist(), **arguments)


@contextmanager
def _no_temporary_files() -> Iterator[None]:
    """Remove what is written to the temporary folder inside: torch_geometric leaves a file for each kind of layer."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before
