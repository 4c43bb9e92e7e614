"""Pages lead where they say, and every command on them is one that works."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser

import eai.compare
import eai.new
from eai.core.cli import CONFIG_DIR, replace_node, split_group_choice
from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.directory import RunDirectory
from eai.core.run.finished import evaluate
from eai.core.sweep.names import first_jobs
from tests.docs.pages import ELSEWHERE, FILES, REPOSITORY, Command, anchors, commands, links, python_blocks, words
from tests.runs import TINY, composed, train_in

COMMANDS = [command for path in FILES for command in commands(path)]
SMALL = ("epochs=1", "accelerator.threads=1", "figures.at_end=false")
# A small run of each task that a page evaluates, with what is on the page.
RUNS = {
    "assimilation": (*TINY[:-4], "model/assimilation=convolution", *SMALL),
    "dynamics": ("task=dynamics", "data.n_train=6", "data.n_val=3", "data.n_test=3", *SMALL),
    "recovery": ("task=recovery", "data.n_train=20", "data.n_val=11", "data.n_test=11", "data.n_extrapolation=5",
                 "model.classical=false", *SMALL),
}  # fmt: skip
ONCE = list({tuple(words(command.text)): command for command in COMMANDS if "<its" not in command.text}.values())
ON_RUNS = [command for command in ONCE if command.text.startswith(("eai-evaluate", "eai-compare"))]
TRAINING = [
    command for command in ONCE if "eai-train " in command.text.partition("(")[0] and command.needs != "cluster"
]
# Tests of every YAML run these.
AS_IT_IS = re.compile(r"^(task|experiment|sweep)=\w+$")


def named(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


@pytest.mark.parametrize("path", FILES, ids=named)
def test_links_lead_to_files_and_headings_that_exist(path: Path) -> None:
    broken = []
    for link in links(path):
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_readme_is_short_and_takes_its_numbers_from_the_tables() -> None:
    readme, tables = (REPOSITORY / "README.md").read_text(), (REPOSITORY / "docs" / "expect.md").read_text()
    assert len(readme.splitlines()) <= 150
    part = readme.partition("## What to expect")[2].partition("\n## ")[0]
    numbers = {number for row in part.splitlines() if row.startswith("| `") for number in re.findall(r"\d+\.\d+", row)}
    assert len(numbers) > 10
    assert {number for number in numbers if number not in tables} == set()


@pytest.mark.parametrize("path", FILES, ids=named)
def test_python_on_a_page_is_python(path: Path) -> None:
    for block in python_blocks(path):
        assert compile(block, named(path), "exec").co_filename == named(path)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "make" in words(c.text)[0]], ids=str)
def test_make_has_the_target(command: Command) -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert words(command.text)[1] in targets


def test_every_other_command_is_a_module_of_the_repository_or_a_tool() -> None:
    assert len(COMMANDS) > 80
    assert {command.needs for command in COMMANDS} <= {None, *ELSEWHERE}
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for command in COMMANDS:
        first, *rest = words(re.sub(r"^(EAI_TRUST=\w+|\.venv/bin/)", "", command.text).strip())
        if command.needs == "cluster" or first in ("make", "eai-train", "eai-evaluate", "eai-compare", "tensorboard"):
            continue
        assert first in ("python", "python3", "eai-new", "eval") or [first, *rest[:1]] == ["pip", "install"], command
        if first.startswith("python"):
            assert rest[0] == "-m"
            assert find_spec(rest[1]) is not None, command
    for page in FILES:
        assert set(re.findall(r"eai\[(\w+)\]", page.read_text())) <= set(extras)


def overrides_of(command: Command) -> list[str]:
    """What follows the command's name, as `eai-train` hands it to Hydra, with placeholders filled."""
    text = re.sub(r"outputs/\w+/<run>|<run>|<images>|<field>", "placeholder", command.text)
    arguments = [word for word in words(text) if not word.startswith("EAI_TRUST=")][1:]
    return [part for argument in arguments for part in replace_node(split_group_choice(argument))]


def jobs_of(overrides: list[str]) -> list[list[str]]:
    """The overrides of the first job of `eai-train -m`, and of one for each further choice of a group."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    with initialize_config_dir(CONFIG_DIR):
        plain = [str(item.input_line) for item in parsed if not item.is_sweep_override()]
        config = compose("train", plain, return_hydra_config=True)
    config.hydra.overrides.task = [item for item in overrides if not item.startswith("hydra")]
    return [list(job.values()) for job in first_jobs(config)]


@pytest.mark.parametrize("command", TRAINING, ids=str)
def test_training_on_a_page_composes_to_a_configuration_that_is_right(command: Command) -> None:
    overrides = overrides_of(command)
    if {"--help", "--cfg", "-sc"} & set(overrides):
        pytest.skip("run by tests/core/test_commands.py")
    if "postprocessing" in command.text:
        pytest.skip("run by tests/test_new.py")
    if len(overrides) == 1 and AS_IT_IS.match(overrides[0]):
        group, _, choice = overrides[0].partition("=")
        assert (Path(CONFIG_DIR) / group / f"{choice}.yaml").is_file()
        return
    for job in jobs_of([item for item in overrides if item != "-m"]) if "-m" in overrides else [overrides]:
        cfg = resolve(composed("train", job))
        if "mylab" not in command.text:  # a package that is not there
            check_experiment(cfg)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], RunDirectory]:
    """``runs(task)``: one small run of a task, made when it is first asked for."""
    folder, made = tmp_path_factory.mktemp("pages"), dict[str, RunDirectory]()

    def run_of(task: str) -> RunDirectory:
        if task not in made:
            made[task] = train_in(folder / "outputs" / task / "run", RUNS[task])
        return made[task]

    return run_of


@pytest.mark.parametrize("command", ON_RUNS, ids=str)
def test_command_on_a_finished_run_works(
    command: Command,
    runs: Callable[[str], RunDirectory],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    task = re.search(r"outputs/(\w+)", command.text)
    assert task
    run = runs(task[1])
    text = re.sub(r"outputs/\w+/<run2?>", str(run.path), command.text)
    monkeypatch.chdir(tmp_path)
    name, *arguments = words(text)
    if name == "eai-compare":
        monkeypatch.chdir(run.path.parents[2])
        eai.compare.main(arguments)
        assert str(run.path.name) in capsys.readouterr().out
        return
    overrides = [part for item in arguments for part in replace_node(split_group_choice(item))]
    if any(item.startswith("+data/") for item in overrides):  # whole data of another name: few of them
        overrides += ["data.n_train=20", "data.n_val=11", "data.n_test=11"]
    score, result = evaluate(composed("evaluate", overrides))
    assert score == score
    assert result.metrics.is_file()


def test_package_that_a_page_begins_with_is_written(tmp_path: Path) -> None:
    assert (eai.new.write_package("mylab", tmp_path) / "pyproject.toml").is_file()
