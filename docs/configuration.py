"""What a configuration may say: every choice below conf/, its keys, and what docstrings say of them."""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from eai.core.cli import CONFIG_DIR
from eai.core.configuration.check import parameters_of
from eai.core.schema import Experiment

CONF = Path(CONFIG_DIR)
_SECTION = re.compile(r"^(Args|Returns?|Raises|Example|Examples|Note|Notes|Shape|Shapes|Attributes|Yields)s?:\s*$")
_ENTRY = re.compile(r"^([*\w]+(?:, [*\w]+)*)(?: \([^)]*\))?: *(.*)$")
_SEE = re.compile(r"^see :(?:class|func):`([\w.]+)`")


@dataclass(frozen=True)
class Key:
    """One key of a choice: its value in the YAML, None where it has the constructor's default, and its meaning."""

    name: str
    value: str
    given: bool
    meaning: str


@dataclass(frozen=True)
class Choice:
    """One YAML: how it is chosen, what its comment says, what it begins from, and its keys."""

    group: str
    name: str
    comment: str
    begins_from: tuple[str, ...]
    keys: tuple[Key, ...]


def groups() -> list[str]:
    """Every group of choices below conf/, as ``data/dynamics``."""
    return sorted({str(path.parent.relative_to(CONF)) for path in CONF.rglob("*.yaml")} - {"."})


def choices(group: str) -> list[Choice]:
    """The choices of a group, sorted by name."""
    return [choice(path) for path in sorted((CONF / group).glob("*.yaml"))]


def choice(path: Path) -> Choice:
    """Read one YAML below conf/."""
    text = path.read_text()
    content = yaml.safe_load(text) or {}
    begins = tuple(spelled_default(item) for item in content.pop("defaults", []) if item != "_self_")
    group = path.parent.relative_to(CONF)
    package = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    prefix = package[1] if package else ".".join(group.parts)
    notes = comments(text)
    keys = tuple(keys_of(content, "" if prefix == "_global_" else prefix, "", notes))
    return Choice(str(group), path.stem, head_comment(text), begins, keys)


def spelled_default(item: Any) -> str:
    """An entry of a defaults list as one text: ``shared/covariance=soar``."""
    if isinstance(item, str):
        return item
    ((key, value),) = item.items()
    return f"{str(key).removeprefix('override ').lstrip('/')}={'null' if value is None else value}"


def head_comment(text: str) -> str:
    """The comment that a YAML begins with, without what is meant for Hydra and the tests."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(("# @package", "# Needs:")):
            lines.append(line.removeprefix("#").removeprefix(" "))
    return "\n".join(lines)


def comments(text: str) -> dict[str, str]:
    """What the comment behind each key says, by the key's dotted name within its file."""
    found: dict[str, str] = {}
    parents: list[tuple[int, str]] = []
    for line in text.splitlines():
        entry = re.match(r"^( *)([\w./@]+):(.*)$", line)
        if not entry:
            continue
        depth = len(entry[1])
        parents = [(at, name) for at, name in parents if at < depth] + [(depth, entry[2])]
        if said := re.search(r"(?:^|\s)# ?(.*)$", entry[3]):
            found[".".join(name for _, name in parents)] = said[1].strip()
    return found


def keys_of(node: Mapping[str, Any], prefix: str, place: str, notes: Mapping[str, str], of: str = "") -> Iterator[Key]:
    """Every key at and below a node of a YAML.

    Args:
        node: as plain dictionaries, lists and values.
        prefix: the dotted key of the node in the whole configuration.
        place: the same within its file.
        notes: the file's comments, see :func:`comments`.
        of: what the argument means that the node is given to.
    """
    target = str(node.get("_target_", ""))
    found = imported(target) if target else None
    meanings = argument_docs(found) if found else {}
    if found or of:
        said = summary(found) if found else ""
        yield Key(prefix, target, True, f"{capital(of)} {said}".strip())
    for name, value in node.items():
        if name in ("_target_", "_partial_"):
            continue
        key, here = ".".join(filter(None, (prefix, str(name)))), ".".join(filter(None, (place, str(name))))
        meaning = joined(meanings.get(str(name), "") or top_level().get(key, ""), notes.get(here, ""))
        if isinstance(value, dict) and value:
            yield from keys_of(value, key, here, notes, meaning)
        else:
            yield Key(key, spelled(value), True, capital(meaning))
    if found and target.startswith("eai."):
        for name, parameter in parameters_of(found)[0].items():
            if name not in node and parameter.default is not parameter.empty:
                yield Key(f"{prefix}.{name}", spelled(parameter.default), False, capital(meanings.get(name, "")))


@cache
def top_level() -> dict[str, str]:
    """What each key of the top level means that no class is built of, by its dotted name."""
    found = argument_docs(Experiment)
    for field, hint in typing.get_type_hints(Experiment).items():
        for inner in (hint, *typing.get_args(hint)):
            if is_dataclass(inner):
                told = argument_docs(typing.cast(type, inner))
                found |= {f"{field}.{part.name}": told.get(part.name, "") for part in fields(inner)}
    return found


def capital(text: str) -> str:
    """The text as a sentence: begun with a capital letter, unless it begins with a symbol or code, and ended."""
    text = text.strip()
    if re.match(r"[a-z][a-z]|a ", text):
        text = text[0].upper() + text[1:]
    return text if not text or text[-1] in ".…:?!" else f"{text}."


def joined(documented: str, noted: str) -> str:
    """What the docstring says, and what the YAML's comment adds."""
    plain, note = documented.rstrip(".").lower(), noted.rstrip(".").lower()
    if plain in note:
        return noted
    return documented if note in plain else f"{documented.rstrip('.')}. Here: {noted}"


def spelled(value: Any) -> str:
    """A value as YAML, on one line."""
    return (
        yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True).removesuffix("...\n").strip()
    )


@cache
def imported(target: str) -> Callable[..., Any]:
    """The class or function that a ``_target_`` names."""
    module, _, name = target.rpartition(".")
    return getattr(importlib.import_module(module), name)


def summary(target: Callable[..., Any]) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join((inspect.getdoc(target) or "").partition("\n\n")[0].split())


def argument_docs(target: Callable[..., Any]) -> dict[str, str]:
    """What the docstrings of a class, its bases and its constructor, or of a function, say of each argument."""
    owners = [target, *target.__mro__[1:]] if inspect.isclass(target) else [target]
    found: dict[str, str] = {}
    for owner in owners:
        for text in (owner.__doc__, owner.__init__.__doc__ if inspect.isclass(owner) else None):
            for name, told in section(inspect.cleandoc(text or "")).items():
                told = followed(name, told, owner.__module__)
                # Libraries write at length; their first sentence is enough here.
                found.setdefault(name, told if owner.__module__.startswith("eai.") else first_sentence(told))
    return found


def first_sentence(text: str) -> str:
    return re.split(r"(?<=\w[.)])\s+(?=[A-Z])", text, maxsplit=1)[0]


def followed(name: str, told: str, module: str) -> str:
    """What another docstring says of an argument, where this one, in ``module``, refers to it."""
    if not (see := _SEE.match(told)):
        return told
    target = see[1] if "." in see[1] else f"{module}.{see[1]}"
    return argument_docs(imported(target)).get(name, told)


def section(docstring: str) -> dict[str, str]:
    """The entries below ``Args:``; ``a, b: …`` stands for both."""
    found: dict[str, str] = {}
    names: list[str] = []
    inside, indent = False, None
    for line in docstring.splitlines():
        if _SECTION.match(line):
            inside, indent, names = line.startswith("Args"), None, []
        elif inside and line.strip():
            depth = len(line) - len(line.lstrip())
            if depth == 0:
                inside = False
                continue
            indent = depth if indent is None else indent
            entry = _ENTRY.match(line.strip()) if depth == indent else None
            if entry:
                names = [name.lstrip("*") for name in entry[1].split(", ")]
            for name in names:
                found[name] = f"{found.get(name, '')} {entry[2] if entry else line.strip()}".strip()
    return found
