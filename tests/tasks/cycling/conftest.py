"""Fixtures of the cycling tests."""

from __future__ import annotations

import pytest

from eai.tasks.cycling import references


@pytest.fixture(autouse=True)
def little_tuning(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tune references among few values, where the test is not about them."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(references, "INFLATIONS", (1.05,))
        monkeypatch.setattr(references, "SCALES", (0.1, 1.0))
