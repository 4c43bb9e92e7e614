"""What the pages of the reference take from the code when the site is built.

* ``{choices} data/dynamics …``: the choices of these groups, with every key.
* ``{top-level}``: the keys of conf/train.yaml itself.
* ``{command-help} train``: what ``eai-train --help`` prints.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from docs import configuration
from docs.configuration import Choice, Key

_CODE = re.compile(r"(``.+?``|(?::[\w:]+:)?`[^`]+`)")


def markdown(text: str) -> str:
    """The text of a docstring or comment as Markdown: its code as code, all other signs as they are."""
    parts = _CODE.split(text)
    return "".join(
        code(part) if place % 2 else re.sub(r"([*_<\[|])", r"\\\1", part) for place, part in enumerate(parts)
    )


def code(text: str) -> str:
    """What a docstring marks as code, or as the name of a class, as Markdown in a cell of a table."""
    name = re.match(r":[\w:]+:`~?([^`]+)`", text)
    inside = name[1] if name else text.strip("`")
    return f"`{inside.replace('|', chr(92) + '|')}`"


def table(keys: Sequence[Key]) -> Iterator[str]:
    """A table of keys with their values; what a YAML leaves to the constructor stands in brackets."""
    yield "{.keys}"
    yield "| key and value | meaning |"
    yield "| --- | --- |"
    for key in keys:
        entry = code(f"{key.name}: {key.value}".removesuffix(": "))
        yield f"| {entry if key.given else f'({entry})'} | {markdown(key.meaning)} |"
    yield ""


def described(choice: Choice) -> Iterator[str]:
    """A heading, what the comment says, and the keys of a choice."""
    yield f"## `{choice.group}={choice.name}`"
    yield ""
    yield markdown(choice.comment)
    yield ""
    if choice.begins_from:
        yield f"Begins from {', '.join(f'`{item}`' for item in choice.begins_from)}."
        yield ""
    if choice.keys:
        yield from table(choice.keys)


class Generated(SphinxDirective):
    """A directive whose content is Markdown that the code makes."""

    optional_arguments = 1
    final_argument_whitespace = True

    def lines(self) -> Iterator[str]:
        raise NotImplementedError

    def run(self) -> list[nodes.Node]:
        self.env.note_reread()  # in every build: what the code says may have changed
        return self.parse_text_to_nodes("\n".join(self.lines()), allow_section_headings=True)


class Choices(Generated):
    def lines(self) -> Iterator[str]:
        for group in self.arguments[0].split():
            for choice in configuration.choices(group):
                yield from described(choice)


class TopLevel(Generated):
    def lines(self) -> Iterator[str]:
        yield from table(configuration.choice(configuration.CONF / "train.yaml").keys)


class CommandHelp(Generated):
    def run(self) -> list[nodes.Node]:
        self.env.note_reread()
        command = [sys.executable, "-m", f"eai.{self.arguments[0]}", "--help"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return [nodes.literal_block(printed, printed.rstrip(), language="text")]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("choices", Choices)
    app.add_directive("top-level", TopLevel)
    app.add_directive("command-help", CommandHelp)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
