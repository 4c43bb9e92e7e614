"""The pages as the tests read them: Markdown files, their headings, links and shell commands."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
FILES = sorted(
    [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "eai" / "scaffold" / "README.md"]
    + [path for path in (REPOSITORY / "docs").rglob("*.md") if "_build" not in path.parts]
)
_FENCE = re.compile(r"^(`{3,})(.*?)\n(.*?)^\1`*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[(?:[^\[\]]|`[^`]*`)*\]\(([^)\s]+)\)")
# What a command needs that a test has not, as the second word behind ```bash.
ELSEWHERE = ("cluster", "gpu")


@dataclass(frozen=True)
class Command:
    """One command of a page, and what it needs that a test has not."""

    page: Path
    text: str
    needs: str | None

    def __str__(self) -> str:
        return f"{self.page.relative_to(REPOSITORY)}: {self.text}"


def without_code(text: str) -> str:
    return re.sub(r"`[^`\n]+`", "", _FENCE.sub("", text))


def links(path: Path) -> list[str]:
    """The targets of links and pictures that lie in this repository."""
    return [link for link in _LINK.findall(without_code(path.read_text())) if "://" not in link]


def anchors(path: Path) -> set[str]:
    """What a link to a heading of this page may name, as GitHub and MyST spell it."""
    titles = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(path: Path) -> list[Command]:
    """Every command of the ```bash blocks and of inline code, with lines that go on joined."""
    text = path.read_text()
    found: list[Command] = []
    for _, info, body in _FENCE.findall(text):
        language, _, needs = info.strip().partition(" ")
        if language == "bash":
            lines = body.replace("\\\n", " ").splitlines()
            found += [Command(path, line.strip(), needs or None) for line in lines if words(line)]
    inline = re.findall(r"`((?:eai-\w+|make|python -m|tensorboard) [^`]+)`", _FENCE.sub("", text))
    return found + [Command(path, item, None) for item in inline if not re.search(r"…|GROUP|KEY", item)]


def words(line: str) -> list[str]:
    """A command's words, without comments."""
    try:
        return shlex.split(line, comments=True)
    except ValueError:
        return []


def python_blocks(path: Path) -> list[str]:
    """The ```python blocks of a page."""
    return [body for _, info, body in _FENCE.findall(path.read_text()) if info.strip() == "python"]
