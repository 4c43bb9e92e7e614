"""A page in a headless browser: what it shows, asks for and how it reads."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What the page tells of itself once it is loaded, put where --dump-dom shows it.
PROBE = """<script>addEventListener("load", () => {
  document.documentElement.style.width = "WIDTHpx"; // windows are never as narrow as a telephone
  const told = {
    scroll: document.body.scrollWidth, width: document.body.offsetWidth,
    images: [...document.images].map(one => one.naturalWidth * one.naturalHeight),
    requests: performance.getEntriesByType("resource").map(one => one.name).filter(name => !name.startsWith("data:")),
    colours: [...document.querySelectorAll("body, h1, p, th, td, figcaption, pre, summary")].map(one => {
      let ground = one; while (getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)" && ground.parentElement)
        ground = ground.parentElement;
      return [getComputedStyle(one).color, getComputedStyle(ground).backgroundColor]; }),
  };
  document.body.innerHTML = "<pre id=told>" + JSON.stringify(told) + "</pre>"; });
addEventListener("error", event => { document.title = "ERROR " + event.message; });</script>"""


class Text(HTMLParser):
    """The words of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def words_of(page: str) -> str:
    parser = Text()
    parser.feed(page)
    return " ".join(" ".join(parser.words).split())


def seen_in(page: Path, width: int, dark: bool = False) -> dict[str, Any]:
    probe = page.with_name("probe.html")
    probe.write_text(page.read_text().replace("</body>", PROBE.replace("WIDTH", str(width)) + "</body>"))
    scheme = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1000,900", *scheme]
    own = [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=3000", "--dump-dom"]
    command = [str(CHROMIUM), *options, *own, probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "<title>ERROR" not in done.stdout
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stdout[:500] + done.stderr[:500]
    return json.loads(found[1].replace("&amp;", "&"))


def contrast(one: str, two: str) -> float:
    """WCAG's ratio of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(value) / 255 for value in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def check_page(page: Path, width: int, dark: bool) -> None:
    """No error, no request, images with a size, nothing to scroll aside, contrast AA."""
    if CHROMIUM is None:
        if os.environ.get("CI"):
            pytest.fail("Chromium is absent; CI installs it")
        pytest.skip("Chromium is absent (Debian: apt install chromium)")
    told = seen_in(page, width, dark)
    assert told["requests"] == []
    assert told["images"]
    assert min(told["images"]) > 10_000  # pixels
    assert told["width"] == width
    assert told["scroll"] <= width
    assert min(contrast(*pair) for pair in told["colours"]) >= 4.5  # AA
