"""A key that would change two places is refused; a portable configuration means the same elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import eai
from eai.core.configuration.resolve import portable, refuse_shared
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from tests.runs import Train, composed


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("model.loss.covariance.length", "shared.covariance.length"),
        ("data.covariance.length", "shared.covariance.length"),
        ("model.net.cost.obs_error.sigma", "shared.obs_error.sigma"),  # through two interpolations
        ("model.net.first_guess.cost.precision", "model.loss.precision"),
    ],
)
def test_key_below_an_interpolated_node_is_refused_for_it_would_change_two_places(key: str, place: str) -> None:
    cfg = composed("train", ["task=assimilation"])
    with pytest.raises(
        ConfigError, match=f"^{re.escape(key)}: would change {re.escape(place)}, which other nodes use too"
    ):
        refuse_shared(cfg, ["epochs", key])
    refuse_shared(cfg, [place, "model.optimizer.lr", "data.true_covariance.length", "new.key", "data.covariance"])


def test_run_with_an_override_of_two_places_is_refused(train: Train, finished: RunDirectory) -> None:
    override = "model.loss.covariance.length=0.5"
    for refused in (lambda: train("task=assimilation", override), lambda: eai.load_run(finished.path, [override])):
        with pytest.raises(ConfigError, match=r"^model\.loss\.covariance\.length: would change shared"):
            refused()


def test_paths_become_absolute_but_those_of_packages_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for typed, meant in [
        ("package:iris_sample_data/sample_data/a.nc", "package:iris_sample_data/sample_data/a.nc"),
        ("folder/*.nc", str(tmp_path / "folder/*.nc")),
        ("~/a.nc", str(tmp_path / "home/a.nc")),
    ]:
        assert portable(OmegaConf.create({"data": {"path": typed}})).data.path == meant
