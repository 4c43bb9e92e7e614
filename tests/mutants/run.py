"""Apply mutants to a copy of the tree, one at a time, and see that the tests notice each.

    python tests/mutants/run.py                          all lists beside this file
    python tests/mutants/run.py tests/mutants/x.toml     one list
    python tests/mutants/run.py --only sign x.toml       those whose phrase contains "sign"

A list has a table for each mutant:

    [[mutant]]
    what = "a phrase that says what is wrong"
    file = "eai/…/x.py"              # relative to the root of the repository
    find = "text that occurs once"
    replace = "text in its place"
    tests = ["tests/…/test_x.py::test_one", "tests/…/test_y.py"]   # at least one of them must fail

Prints ``killed`` or ``SURVIVED`` for each. Exits with 1 if one survives, and with 2 if a list is wrong: its text is not
found exactly once, or its tests fail or find nothing without the mutant.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COPIED = ("eai", "tests", "conf", "benchmarks", "docs", "pyproject.toml", "Makefile", "README.md", "CONTRIBUTING.md")
PRELOADED = ("torch", "lightning", "torch_geometric", "hydra", "optuna", "pandas", "matplotlib.figure", "torchmetrics",
             "beartype", "tensorboard", "scipy.ndimage", "skimage.restoration")  # fmt: skip
_IMPORTED = ("-W", "ignore:Module already imported so cannot be rewritten")  # a plugin that one of these imports
SECONDS = 300  # that the tests of one mutant may take


@dataclass(frozen=True)
class Mutant:
    """One change that is wrong, and the tests that are to notice it."""

    what: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]


class ListError(Exception):
    """A list of mutants is wrong."""


def read_mutants(path: Path, root: Path = ROOT) -> list[Mutant]:
    """The mutants of a list.

    Args:
        path: of the TOML file.
        root: that the files of mutants are relative to.

    Raises:
        ListError: a key is missing or unknown, a file is, or its text does not occur exactly once.
    """
    mutants = []
    for table in tomllib.loads(path.read_text(encoding="utf-8")).get("mutant", []):
        try:
            mutant = Mutant(**{**table, "tests": tuple(table["tests"])})
        except (KeyError, TypeError) as error:
            raise ListError(f"{path.name}: {table.get('what', table)}: {error}") from error
        source = root / mutant.file
        count = source.read_text(encoding="utf-8").count(mutant.find) if source.is_file() else 0
        if count != 1 or mutant.find == mutant.replace:
            found = f"expected its text once in {mutant.file}, found it {count} times"
            raise ListError(f"{path.name}: {mutant.what}: {found}")
        mutants.append(mutant)
    return mutants


def copy_tree(target: Path, root: Path = ROOT) -> None:
    """Copy what the tests need, without compiled files."""
    for name in COPIED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "_build"))
        elif source.is_file():
            shutil.copy2(source, target / name)


def preload() -> None:
    """Import what takes long and is never mutated, once for all the processes that are forked afterwards."""
    for name in PRELOADED:
        with suppress(ImportError):
            importlib.import_module(name)


def run_tests(tree: Path, tests: Sequence[str]) -> int:
    """The exit code of pytest in a tree, run in a fork of this process; 1 if it takes too long."""
    process = get_context("fork").Process(target=_pytest, args=(tree, tuple(tests)))
    process.start()
    process.join(SECONDS)
    if process.exitcode is None:
        process.kill()
        process.join()
        return 1
    return process.exitcode


def _pytest(tree: Path, tests: Sequence[str]) -> None:
    os.chdir(tree)
    sys.path[:] = [str(tree), *(path for path in sys.path if path not in ("", str(HERE), str(ROOT)))]
    os.environ["PYTHONPATH"] = str(tree)  # of processes that tests start
    # Source files change within a second: compiled ones must not be taken for up to date.
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.partition(".")[0] in ("eai", "tests")]:
        del sys.modules[name]
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-m", "not slow", *_IMPORTED, *tests]))


def survives(tree: Path, mutant: Mutant) -> bool:
    """Whether all tests pass in spite of the mutant; the tree is left as it was.

    Raises:
        ListError: the tests cannot be run at all.
    """
    source = tree / mutant.file
    original = source.read_text(encoding="utf-8")
    source.write_text(original.replace(mutant.find, mutant.replace), encoding="utf-8")
    try:
        code = run_tests(tree, mutant.tests)
    finally:
        source.write_text(original, encoding="utf-8")
    if code not in (0, 1):
        raise ListError(f"{mutant.what}: pytest cannot run {' '.join(mutant.tests)} (exit code {code})")
    return code == 0


def check(mutants: Sequence[Mutant]) -> int:
    """Print what becomes of each mutant; how many survive.

    Raises:
        ListError: the tests fail without a mutant.
    """
    survivors = 0
    preload()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder)
        copy_tree(tree)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        if tests and run_tests(tree, tests) != 0:
            raise ListError(f"the tests must pass without a mutant: {' '.join(tests)}")
        for mutant in mutants:
            started = time.monotonic()
            survived = survives(tree, mutant)
            survivors += survived
            seconds = time.monotonic() - started
            print(
                f"{'SURVIVED' if survived else 'killed':8}  {seconds:5.1f} s  {mutant.file}: {mutant.what}", flush=True
            )
    return survivors


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Apply mutants and see that the tests notice each.")
    parser.add_argument("lists", nargs="*", type=Path, help="TOML files; by default all beside this script")
    parser.add_argument("--only", default="", help="a part of the phrases of the mutants to apply")
    given = parser.parse_args(arguments)
    try:
        lists = [read_mutants(path) for path in given.lists or sorted(HERE.glob("*.toml"))]
        mutants = [mutant for found in lists for mutant in found if given.only in mutant.what]
        survivors = check(mutants)
    except ListError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(mutants) - survivors} of {len(mutants)} mutants killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    raise SystemExit(main())
