"""HTML pages that need nothing beside themselves: the package's templates, figures as data."""

from __future__ import annotations

import base64
import io
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

BROAD = 800  # pixels; a wider figure takes both columns, so that its text can be read


def page(template: str, **told: Any) -> bytes:
    """A page of one of the package's templates.

    Args:
        template: its name.
        told: its values.
    """
    return _templates().get_template(template).render(**told).encode()


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("eai.core.compare"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip


def png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file.

    Args:
        figure: to draw.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def image(name: str, content: bytes, caption: str, kind: str = "png") -> dict[str, str | bool]:
    """A figure as a template takes it.

    Args:
        name: of the figure, in words.
        content: of its file.
        caption: what to see in it.
        kind: ``png`` or ``gif``.
    """
    broad = kind == "png" and int.from_bytes(content[16:20], "big") > BROAD
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"name": name, "source": source, "caption": caption, "broad": broad}
