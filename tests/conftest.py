"""Shapes are checked while the tests run: every jaxtyping annotation in eai becomes an assertion."""

from __future__ import annotations

from jaxtyping import install_import_hook

with install_import_hook("eai", "beartype.beartype"):
    import eai.core.training  # noqa: F401
    import eai.tasks.assimilation.task

import pytest
import torch


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20240918)
