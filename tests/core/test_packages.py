"""Packages of the user's own: trusted outside of configurations, and named by their key when they fail."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoints, entry_points
from pathlib import Path

import pytest
from hydra.core.plugins import Plugins

import eai
from eai.core.cli import _unknown_choice
from eai.core.configuration.build import build
from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.packages import PackagesPath, config_folders, trusted_packages, versions
from tests.runs import TINY, Train, composed

NETS = """\
from subprocess import run
import torch
from torch import nn

class Damped(nn.Module):
    def __init__(self, factor=0.5, inner=None, **more):
        super().__init__()
        self.factor, self.inner, self.more = nn.Parameter(torch.tensor(float(factor))), inner, more

    def forward(self, batch):
        return self.factor * batch.xb

def make(factor):
    return Damped(factor)
"""
NET = "model.net={_target_: my_lab.nets.Damped, factor: 0.3}"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on Python's path with the package ``my_lab``."""
    folder = tmp_path / "lab"
    conf = folder / "my_lab" / "conf" / "model" / "assimilation"
    conf.mkdir(parents=True)
    (folder / "my_lab" / "__init__.py").touch()
    (folder / "my_lab" / "nets.py").write_text(NETS)
    (folder / "my_lab" / "broken.py").write_text("import torch\n\n1 / 0\n")
    (conf / "damped.yaml").write_text("# @package model\ndefaults: [increment_mlp]\n")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_lab"]:
        del sys.modules[name]


@pytest.fixture
def trusted_lab(lab: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EAI_TRUST", "my_lab")
    return lab


def checked(*overrides: str) -> None:
    check_experiment(resolve(composed("train", [*TINY[:-2], "~model.net", f"+{overrides[0]}", *overrides[1:]])))


def test_package_is_refused_until_it_is_trusted_and_the_message_says_how(
    lab: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.net\._target_: 'my_lab\.nets\.Damped' is refused: .*EAI_TRUST=my_lab"
    ):
        checked(NET)
    assert "my_lab" not in sys.modules
    monkeypatch.setenv("EAI_TRUST", "other_lab, my_lab")
    checked(NET)


def test_installed_package_is_trusted_by_its_entry_point_and_known_by_its_version(lab: Path) -> None:
    info = lab / "my_lab-1.2.3.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-lab\nVersion: 1.2.3\n")
    (info / "entry_points.txt").write_text("[eai.packages]\nlab = my_lab\n")
    (info / "top_level.txt").write_text("my_lab\n")
    (info / "RECORD").write_text("my_lab/__init__.py,,\n")
    assert trusted_packages() == ("my_lab",)
    assert versions(["my_lab.nets.Damped", "eai.tasks.x.Y"]) == {"my_lab": "1.2.3"}
    checked(NET)


def test_configuration_of_a_trusted_package_joins_the_search_path(trusted_lab: Path) -> None:
    assert config_folders() == {"my_lab": trusted_lab / "my_lab" / "conf"}
    assert "my_lab" not in sys.modules  # looked for without importing it
    Plugins.instance().register(PackagesPath)
    cfg = composed("train", ["task=assimilation", "model/assimilation=damped"])
    assert cfg.model.net._target_.endswith("IncrementMLP")
    assert "assimilation/damped" in _unknown_choice("model/assimilation", "dumped")


def test_run_of_a_trusted_package_names_it_and_is_read_only_where_it_is_trusted(
    trusted_lab: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(*TINY[:-2], "~model.net", f"+{NET}", "epochs=1", "figures.at_end=false")
    assert read_json(run.status)["packages"] == {"my_lab": "unknown"}  # a folder, not installed
    assert type(eai.load_run(run.path).module.net).__name__ == "Damped"
    monkeypatch.delenv("EAI_TRUST")
    with pytest.raises(ConfigError, match="EAI_TRUST=my_lab"):
        eai.load_run(run.path)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ("{_target_: my_lab.nets.run, args: ls}", "not what it imports"),
        ("{_target_: my_lab.nets.torch.load, f: x}", "does not exist"),
        ("{_target_: my_lab.nets._hidden}", "expected a class"),
        ("{_target_: my_lab.nets.Absent}", "does not exist"),
        ("{_target_: my_lab.broken.Net}", r"cannot be imported \(ZeroDivisionError: division by zero\)"),
        ("{_target_: my_lab.nets.Damped, inner: {_target_: os.getcwd}}", r"net\.inner\._target_: expected a class"),
        ("{_target_: my_lab.nets.make, scale: 1}", "unknown key.*known here: factor"),
        ("{_target_: my_lab.nets.make}", "model.net.factor: missing"),
        ("{_target_: torch.nn.Conv2d, in_channels: two, out_channels: 1, kernel_size: 3}", "expected int, got 'two'"),
    ],
)
def test_mistakes_in_foreign_nodes_are_named_by_their_key(trusted_lab: Path, node: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^model\.net\S*: .*{message}|{message}"):
        checked(f"model.net={node}")


@pytest.mark.parametrize(
    "node",
    [
        "{_target_: my_lab.nets.make, factor: 2}",
        "{_target_: my_lab.nets.Damped, anything: [1, {a: 2}], inner: {_target_: torch.nn.GELU}}",
        "{_target_: torch.nn.Conv2d, in_channels: 2, out_channels: 1, kernel_size: [3, 5], padding: [1, 2]}",
        "{_target_: torch.nn.TransformerEncoder, num_layers: 1, "
        "encoder_layer: {_target_: torch.nn.TransformerEncoderLayer, d_model: 4, nhead: 2, batch_first: true}}",
    ],
)
def test_functions_keywords_and_layers_of_libraries_can_be_built(trusted_lab: Path, node: str) -> None:
    override = f"model.net={node}"
    checked(override)
    cfg = composed("train", [*TINY[:-2], "~model.net", f"+{override}"])
    assert build(resolve(cfg).model, "net") is not None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("os", "of your own, got 'os'"),
        ("torch.serialization", "of your own"),
        ("eai", "of your own"),
        ("my lab", "separated by commas"),
    ],
)
def test_trust_in_what_is_no_package_of_ones_own_is_refused(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EAI_TRUST", value)
    with pytest.raises(ConfigError, match=f"^EAI_TRUST: .*{message}"):
        trusted_packages()


def test_trusted_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAI_TRUST", "no_such_lab.nets")
    with pytest.raises(ConfigError, match=r"package no_such_lab\.nets: not found"):
        config_folders()


def test_layers_of_torch_geometric_leave_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    node = "{_target_: torch_geometric.nn.GraphConv, in_channels: 3, out_channels: 2}"
    build(resolve(composed("train", [*TINY[:-2], "~model.net", f"+model.net={node}"])).model, "net")
    assert list(tmp_path.iterdir()) == []


def test_what_installed_packages_declare_is_looked_up_once_for_a_whole_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def counted(group: str) -> EntryPoints:
        asked.append(group)
        return entry_points(group=group)

    monkeypatch.setattr("eai.core.packages.entry_points", counted)
    monkeypatch.syspath_prepend(tmp_path)  # another path than before, so nothing is known of it
    cfg = resolve(composed("train", ["task=dynamics"]))
    check_experiment(cfg)
    check_experiment(cfg)
    assert asked == ["eai.packages"]
