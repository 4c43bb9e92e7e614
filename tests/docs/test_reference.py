"""The reference of the configuration: every choice is on a page, and every argument has its meaning."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import yaml

from docs import configuration
from docs.directives import code, described, markdown
from eai.core.schema import Experiment
from eai.tasks.dynamics.advection import Advection2D
from tests.docs.pages import REPOSITORY

REFERENCE = REPOSITORY / "docs" / "reference"


def test_every_group_is_on_one_page() -> None:
    told = [
        line for path in REFERENCE.glob("*.md") for line in re.findall(r"^```\{choices\} (.*)$", path.read_text(), re.M)
    ]
    assert Counter(" ".join(told).split()) == dict.fromkeys(configuration.groups(), 1)


@pytest.mark.parametrize("group", configuration.groups())
def test_every_argument_of_our_classes_has_a_meaning(group: str) -> None:
    if group in ("experiment", "sweep"):
        pytest.skip("overlays, which do not say of which class their keys are")
    for choice in configuration.choices(group):
        nodes = {key.name: key.value for key in choice.keys if re.fullmatch(r"\w+(\.\w+)+", key.value)}
        for key in choice.keys:
            if nodes.get(key.name.rpartition(".")[0], "").startswith("eai."):
                assert key.meaning, key


def test_keys_of_a_choice_are_those_of_its_file_and_of_the_constructors() -> None:
    path = configuration.CONF / "data" / "dynamics" / "advection_2d.yaml"
    content = yaml.safe_load(path.read_text())
    keys = {key.name: key for key in configuration.choice(path).keys}
    assert {f"data.{name}" for name in content} - {"data._target_"} <= set(keys)
    assert keys["data"].value == content["_target_"]
    assert keys["data.nx"].value == "20"
    assert keys["data.nx"].meaning == keys["data.ny"].meaning == "Rows and columns, at least 3."
    assert keys["data.n_train"].meaning == "Trajectories per split."  # of Unpack[Sizes], documented by a parent
    assert keys["data.batch_size"].meaning == "Samples per step and device."  # "see DataModule"
    assert all(key.given for key in keys.values())


def test_default_that_a_yaml_leaves_alone_is_shown_as_one() -> None:
    keys = {key.name: key for key in configuration.choice(configuration.CONF / "model/dynamics/interaction.yaml").keys}
    assert not keys["model.net.state_channels"].given
    assert keys["model.net.state_channels"].value == "1"
    assert keys["model.unroll.noise"].meaning.startswith("Standard deviation of Gaussian noise")
    assert "Here: teaches the net" in keys["model.unroll.noise"].meaning


def test_comments_belong_to_their_keys() -> None:
    text = "# head\na: 1  # one\nb:\n  c: [1, 2]   # two\n  d: 3\ne: '#no'\n"
    assert configuration.comments(text) == {"a": "one", "b.c": "two"}
    assert configuration.head_comment("# @package data\n# What it is.\n# Needs: task=x\na: 1\n# no\n") == "What it is."


def test_arguments_are_read_as_docstrings_write_them() -> None:
    told = configuration.section(
        "Sum.\n\nArgs:\n    a, b: both,\n        and on.\n    *c (int, optional): third.\n\nRaises:\n    E: d.\n"
    )
    assert told == {"a": "both, and on.", "b": "both, and on.", "c": "third."}


def test_every_key_of_the_top_level_has_a_meaning() -> None:
    top = configuration.top_level()
    assert {name for name in Experiment.__dataclass_fields__ if not top.get(name)} == set()
    assert [name for name, meaning in top.items() if not meaning] == []


def test_meaning_follows_a_docstring_that_refers_to_another() -> None:
    assert configuration.argument_docs(Advection2D)["seed"].startswith("of the data")


def test_text_of_a_docstring_is_kept_in_a_table() -> None:
    assert markdown("|k| ≤ ``a|b``, J* of <n>, see :class:`~eai.x.Y`") == r"\|k\| ≤ `a\|b`, J\* of \<n>, see `eai.x.Y`"
    assert code("``x``") == "`x`"


def test_choice_is_headed_by_what_is_typed() -> None:
    lines = list(described(configuration.choice(configuration.CONF / "task" / "assimilation.yaml")))
    assert lines[0] == "## `task=assimilation`"
    assert any("Begins from `shared/covariance=gaussian`" in line for line in lines)
