"""Shapes are checked while the tests run: every jaxtyping annotation in eai becomes an assertion."""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
from pathlib import Path

from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401 - named as a string below

with install_import_hook("eai", "tests.typechecker.check"):
    import eai.core.run.finished
    import eai.core.run.run
    import eai.fields
    import eai.systems
    import eai.tasks
    import eai.variational

    for package in (eai.tasks, eai.systems, eai.variational, eai.fields):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)

import pytest
import torch

import eai.evaluate
from eai.core.directory import RunDirectory
from tests.runs import TINY, Train, train_in

torch.set_num_threads(1)


@pytest.fixture
def train(tmp_path: Path) -> Train:
    """``train(*overrides, run="name")``: a run in a directory of this test."""
    return lambda *overrides, run="run", **how: train_in(tmp_path / run, overrides, **how)


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    return train_in(tmp_path_factory.mktemp("trained") / "run", TINY)


@pytest.fixture
def finished(trained_once: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of a finished run, free to be damaged."""
    shutil.copytree(trained_once.path, tmp_path / "finished")
    return RunDirectory(tmp_path / "finished")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20240918)


@pytest.fixture
def clean_environment() -> dict[str, str]:
    """The environment of a fresh shell, for commands run as processes."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA", "PL_", "COV"))}
