"""Packages of the user's own that a configuration may build from, and whose ``conf`` joins Hydra's search path.

Trust is given outside of configurations: by an installed package that declares the entry point ``eai.packages``, or by
naming packages in the environment variable ``EAI_TRUST``. A run directory or an experiment file never gives it.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from eai.core.errors import ConfigError

GROUP, VARIABLE = "eai.packages", "EAI_TRUST"
# Of these a configuration may build what `configuration/trust.py` lists; as a whole they can load and run anything.
_NEVER = (*sys.stdlib_module_names, "eai", "torch", "lightning", "hydra", "omegaconf", "numpy")


def trusted_packages() -> tuple[str, ...]:
    """The dotted names of the packages that are trusted, installed ones first.

    Raises:
        ConfigError: ``EAI_TRUST`` names something else than packages, or a library that is not the user's.
    """
    names = [*_declared(tuple(sys.path))]
    for name in os.environ.get(VARIABLE, "").split(","):
        name = name.strip()
        if not name:
            continue
        if not all(part.isidentifier() for part in name.split(".")):
            raise ConfigError(f"{VARIABLE}: expected names of packages separated by commas, got {name!r}")
        if name.partition(".")[0] in _NEVER:
            raise ConfigError(f"{VARIABLE}: expected packages of your own, got {name!r}")
        names.append(name)
    return tuple(dict.fromkeys(names))


@cache
def _declared(path: tuple[str, ...]) -> tuple[str, ...]:
    """What the packages on Python's ``path`` declare; looked up once, because a file of each of them is opened."""
    return tuple(point.value.partition(":")[0] for point in entry_points(group=GROUP))


def package_of(target: str) -> str | None:
    """The trusted package that a target lies in; None if there is none.

    Args:
        target: a dotted name.
    """
    return next((name for name in trusted_packages() if target.startswith(f"{name}.")), None)


def how_to_trust(target: str) -> str:
    """What a user can do to have a target built; empty where nothing can be done.

    Args:
        target: a dotted name.
    """
    package = target.partition(".")[0]
    if not package.isidentifier() or package in _NEVER:
        return ""
    return (
        f"the package {package} is not trusted; if you trust it, set {VARIABLE}={package} in the environment, "
        f"or install it with the entry point {GROUP}"
    )


def versions(targets: Iterable[str]) -> dict[str, str]:
    """The trusted packages that ``targets`` lie in, with their versions; ``unknown`` of a folder that is not installed.

    Args:
        targets: dotted names.
    """
    found = {}
    for package in sorted({name for target in targets if (name := package_of(target))}):
        top = package.partition(".")[0]
        try:
            found[package] = version(packages_distributions().get(top, [top])[0])
        except PackageNotFoundError:
            found[package] = "unknown"
    return found


def config_folders() -> dict[str, Path]:
    """The ``conf`` folder of each trusted package that has one; nothing is imported to find it.

    Raises:
        ConfigError: a package does not exist.
    """
    folders = {}
    for package in trusted_packages():
        top, *below = package.split(".")
        try:
            spec = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            spec = None
        if spec is None:
            raise ConfigError(f"package {package}: not found; is it installed, or its folder on PYTHONPATH?")
        for place in spec.submodule_search_locations or ():
            folder = Path(place, *below, "conf")
            if folder.is_dir():
                folders[package] = folder
    return folders


class PackagesPath(SearchPathPlugin):
    """Let the configuration folders of trusted packages follow eai's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for package, folder in config_folders().items():
            search_path.append(package, f"file://{folder}")
