"""What holds for the code as a whole: public interfaces only, one spelling, no word of this machine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import eai

PACKAGE = Path(eai.__file__).parent
LIBRARIES = {"lightning", "torch", "hydra", "omegaconf", "optuna", "torch_geometric"}
# Attributes that Python itself, or the type of the object, makes public in spite of their underscore.
PUBLIC = {"_replace", "_make", "_fields", "_asdict"}


def private_names(path: Path) -> list[str]:
    """Names with a leading underscore that a file takes from a library, or from an object that is not its own."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in LIBRARIES:
            parts = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            found += [f"{path.name}:{node.lineno} {part}" for part in parts if part.startswith("_")]
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.partition(".")[0] in LIBRARIES]
            found += [f"{path.name}:{node.lineno} {name}" for name in names if "._" in name]
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls", "os")
            if not own and node.attr not in PUBLIC:
                found.append(f"{path.name}:{node.lineno} .{node.attr}")
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_private_interface_is_used(path: Path) -> None:
    assert private_names(path) == []


def test_epochs_have_one_spelling_in_the_configuration() -> None:
    conf = PACKAGE.parent / "conf"
    assert [path for path in conf.rglob("*.yaml") if "${trainer." in path.read_text()] == []
