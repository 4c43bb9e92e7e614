"""The site, built as `make docs` does, without running the notebooks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import REPOSITORY

REQUESTS = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*?(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    command += ["--define", "nb_execution_mode=off", str(REPOSITORY / "docs"), str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.mark.slow
def test_site_is_built_without_a_warning_and_has_every_page(site: Path) -> None:
    pages = [path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")]
    assert [
        page for page in pages if "_build" not in page.parts and not (site / page.with_suffix(".html")).is_file()
    ] == []


@pytest.mark.slow
def test_pages_ask_for_nothing_from_outside(site: Path) -> None:
    asked = {page.name: REQUESTS.findall(page.read_text()) for page in site.rglob("*.html")}
    assert {name: found for name, found in asked.items() if found} == {}
    styles = [path.read_text() for path in site.rglob("*.css")]
    assert [found for style in styles for found in re.findall(r"url\([\"']?(?:https?:)?//[^)]+\)", style)] == []


def test_a_request_is_recognised() -> None:
    assert REQUESTS.findall('<script async src="https://x.org/a.js"></script><a href="https://x.org">x</a>') == [
        "https://x.org/a.js"
    ]
    assert REQUESTS.findall('<link rel="icon" href="//x.org/i.png"><img src="_images/a.png">') == ["//x.org/i.png"]
