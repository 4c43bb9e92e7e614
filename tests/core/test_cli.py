"""What is typed takes the form that Hydra understands."""

from __future__ import annotations

import pytest

from eai.core.cli import replace_node, split_group_choice


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data=recovery/varied", "data/recovery=varied"),
        ("data=recovery/varied,recovery/fields", "data/recovery=varied,fields"),
        ("model=a/x,b/y", "model=a/x,b/y"),
        ("data.path=a/b", "data.path=a/b"),
        ("task=dynamics", "task=dynamics"),
        ("-m", "-m"),
    ],
)
def test_group_choice_with_a_folder_takes_the_form_that_hydra_matches(typed: str, meant: str) -> None:
    assert split_group_choice(typed) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("model.net={_target_: lab.Net, width: 3}", ["~model.net", "+model.net={_target_: lab.Net, width: 3}"]),
        ("model.net={_target_:a.B},{_target_:a.C}", ["~model.net", "+model.net={_target_:a.B},{_target_:a.C}"]),
        ("model.net={width: 3}", ["model.net={width: 3}"]),
        ("+model.x={_target_: a.B}", ["+model.x={_target_: a.B}"]),
        ("model.net.width=3", ["model.net.width=3"]),
    ],
)
def test_node_given_whole_replaces_the_former_one(typed: str, meant: list[str]) -> None:
    assert replace_node(typed) == meant
