"""The processes that work on one sweep: each holds the lock of a file of its own until it ends, however that is."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from eai.core.files import no_links


class Workers:
    """The processes that work on the sweep in a folder, told apart by locks of files in its ``.workers``.

    Where a file system has no locks, every process counts as alive.

    Args:
        folder: the sweep's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ".workers"

    @contextmanager
    def joined(self) -> Iterator[str]:
        """Be one of them inside; yields a name that no other has."""
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._locked(name, wait=True):
            yield name
            (self._folder / name).unlink(missing_ok=True)

    def alive(self, name: str) -> bool:
        """Whether the process of that name is there still."""
        if not (self._folder / name).is_file():
            return False
        try:
            with self._locked(name, wait=False):
                return False
        except OSError:  # held, or no locks here
            return True

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep the others waiting where they call this too, for the moment that the study is looked at and changed."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            try:
                held.enter_context(self._locked("study", wait=True))
            except OSError:  # no locks here: Optuna's own keep the journal whole
                held.close()
            yield

    @contextmanager
    def _locked(self, name: str, wait: bool) -> Iterator[None]:
        with open(self._folder / name, "a", opener=no_links) as file:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
