"""``eai-new``: a package of the user's own, with one small task that trains, is compared and tested at once."""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from eai import __version__
from eai.core.cli import call, prepare_streams
from eai.core.errors import ConfigError

SCAFFOLD, NAME = Path(__file__).parent / "scaffold", "mylab"
_INSTALL, _TRAIN = "python -m pip install --editable .", "eai-train task=postprocessing"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    told = argparse.ArgumentParser(
        "eai-new",
        description="Write a package of your own: a task with data, network, scores and baselines, its configuration "
        "and its tests. Change it piece by piece into what you need; eai itself stays as it is.",
        epilog=f"example\n  eai-new {NAME} && cd {NAME} && {_INSTALL} && {_TRAIN}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    told.add_argument("name", help="of the package, as Python imports it")
    told.add_argument("--into", type=Path, default=Path(), metavar="FOLDER", help="where to put it (here)")
    told.add_argument("--version", action="version", version=f"eai {__version__}")
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    prepare_streams()
    typed = parser().parse_args(arguments)
    folder = call(lambda: write_package(typed.name, typed.into))
    print(f"{folder}: written. Next:\n  cd {folder}\n  {_INSTALL}\n  {_TRAIN}")


def write_package(name: str, into: Path) -> Path:
    """Write the package ``name`` into a new folder of that name; return the folder.

    Args:
        name: a Python identifier that nothing installed has.
        into: the folder to write it to.

    Raises:
        ConfigError: the name cannot be used, the folder is there already, or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ConfigError(f"name: expected lower-case letters, digits and _, got {name!r}")
    folder = into / name
    if folder.exists():
        raise ConfigError(f"name: expected a new folder, got {folder}, which exists")
    if name in sys.stdlib_module_names or find_spec(name) is not None:
        raise ConfigError(f"name: expected one that is not taken, got {name!r}, which can be imported already")
    for source in sorted(path for path in SCAFFOLD.rglob("*") if path.is_file() and path.suffix != ".pyc"):
        target = folder / str(source.relative_to(SCAFFOLD)).replace(NAME, name)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(re.sub(rf"\b{NAME}", name, source.read_text()))
        except OSError as error:
            raise ConfigError(f"--into: cannot write {target} ({error.strerror})") from error
    return folder


if __name__ == "__main__":
    main()
