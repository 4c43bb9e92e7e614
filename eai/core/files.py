"""Small files: written whole or not at all, read with errors that name them. Free of torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eai.core.errors import ConfigError

PACKAGE = "package:"  # begins the path of a file inside of an installed Python package


def finite_or_none(value: Any) -> Any:
    """Replace every non-finite float by None: JSON has no NaN."""
    if isinstance(value, Mapping):
        return {key: finite_or_none(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def to_json(content: Mapping[str, Any]) -> str:
    return json.dumps(finite_or_none(content), indent=2, allow_nan=False) + "\n"


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Write a file under a temporary name in its folder, and rename it once it is on the disk: whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file, whole or not at all; numbers that are not finite become null."""
    write_whole(path, to_json(content).encode())


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"cannot read {path}: expected a JSON object, got {type(content).__name__}")
    return content


def no_links(path: str, flags: int) -> int:
    """Open without following a symbolic link, which a stranger's run directory may hold: for ``open(opener=…)``."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def flat_keys(node: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted keys of the leaves of nested dictionaries; a list is a leaf."""
    if not isinstance(node, Mapping):
        return {prefix: node}
    dot = "." if prefix else ""
    return {k: v for name, item in node.items() for k, v in flat_keys(item, f"{prefix}{dot}{name}").items()}
