"""The lists of mutants fit the code, and the script tells a mutant that is noticed from one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants import run

LISTS = sorted(run.HERE.glob("*.toml"))


@pytest.mark.parametrize("path", LISTS, ids=lambda path: path.stem)
def test_text_of_every_mutant_occurs_once_and_its_tests_exist(path: Path) -> None:
    mutants = run.read_mutants(path)
    assert len({mutant.what for mutant in mutants}) == len(mutants) >= 5
    for mutant in mutants:
        assert mutant.tests
        for test in mutant.tests:
            file, *names = test.split("::")
            text = (run.ROOT / file).read_text()
            assert all(f"def {name.partition('[')[0]}(" in text for name in names), test


def small_tree(folder: Path) -> Path:
    (folder / "eai").mkdir()
    (folder / "tests").mkdir()
    (folder / "eai" / "__init__.py").write_text("def double(x):\n    return 2 * x\n")
    tests = [f"def test_{name}():\n    assert eai.double({x}) == {2 * x}\n" for name, x in (("zero", 0), ("one", 1))]
    (folder / "tests" / "test_it.py").write_text("\n".join(["import eai\n", *tests]))
    return folder


def write_list(folder: Path, find: str = "2 * x", test: str = "tests/test_it.py") -> Path:
    path = folder / "list.toml"
    lines = [
        "[[mutant]]", 'what = "tripled"', 'file = "eai/__init__.py"', f'find = "{find}"', 'replace = "3 * x"',
        f'tests = ["{test}"]',
    ]  # fmt: skip
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(autouse=True)
def plain_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without plugins, which take longer to load than these tests take to run."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.mark.parametrize(("test", "survives"), [("test_zero", True), ("test_one", False)])
def test_mutant_survives_where_its_tests_pass_and_the_tree_is_left_as_it_was(
    test: str, survives: bool, tmp_path: Path
) -> None:
    tree = small_tree(tmp_path)
    (mutant,) = run.read_mutants(write_list(tree, test=f"tests/test_it.py::{test}"), tree)
    before = (tree / "eai" / "__init__.py").read_text()
    assert run.survives(tree, mutant) == survives
    assert (tree / "eai" / "__init__.py").read_text() == before


def test_text_that_does_not_occur_once_and_tests_that_do_not_exist_are_errors(tmp_path: Path) -> None:
    tree = small_tree(tmp_path)
    for find in ("4 * x", "x"):
        with pytest.raises(run.ListError, match=r"tripled: expected its text once in eai/__init__\.py"):
            run.read_mutants(write_list(tree, find=find), tree)
    (mutant,) = run.read_mutants(write_list(tree, test="tests/test_it.py::test_two"), tree)
    with pytest.raises(run.ListError, match="tripled: pytest cannot run"):
        run.survives(tree, mutant)
