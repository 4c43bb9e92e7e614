"""Runs of twelve steps, and signals that reach them at a chosen one."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.core.run.children import trainer_of
from tests.runs import TINY

# Three epochs of four steps, the last one of which is smaller; last.ckpt after every second epoch only.
BLOCKS = (*TINY, "figures.at_end=false", "reporting.checkpoint_every_n_epochs=2")
# An interval in steps that is never reached: every block is a single step, at which a test can stop the run.
SPARSE = (*BLOCKS, "reporting.checkpoint_every_n_steps=1000")
STEPS = 12
OFTEN = (*BLOCKS, "reporting.checkpoint_every_n_steps=2")


def signal_at(monkeypatch: pytest.MonkeyPatch, owner: type, hook: str, step: int, signum: int) -> None:
    """Send a signal to this process before ``hook`` is called after so many steps."""
    original = getattr(owner, hook)

    def with_signal(self: Any, *arguments: Any, **named: Any) -> Any:
        if trainer_of(self, arguments).global_step == step:
            os.kill(os.getpid(), signum)
        return original(self, *arguments, **named)

    monkeypatch.setattr(owner, hook, with_signal)
