"""The run that tests of stops, kills and full disks compare with."""

from __future__ import annotations

import pytest

from eai.core.directory import RunDirectory
from tests.core.run.stops import SPARSE
from tests.runs import train_in


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run that nothing interrupts."""
    return train_in(tmp_path_factory.mktemp("whole") / "run", SPARSE)
