"""Stop a run at a safe point on SIGINT, SIGTERM or SIGUSR1."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from eai.core.errors import Interrupted

log = logging.getLogger("eai")
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# A terminal sends Ctrl-C to the whole process group, whose members pass it on: count them as one within this time.
_ONE_SIGNAL_SECONDS = 0.5


class StopSignals:
    """Within this context a stopping signal raises ``Interrupted``; within ``deferred()`` it waits for a safe point.

    ``received`` is the first signal that came, or 0. A second one, half a second later or more, raises at once.
    """

    def __init__(self) -> None:
        self.received = 0
        self._since, self._deferring = 0.0, False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._previous = self.take()
        return self

    def take(self) -> dict[int, Any]:
        """Handle the signals from here on; returns the handlers before."""
        # Python delivers signals to the main thread only: elsewhere there is nothing to handle.
        if threading.current_thread() is not threading.main_thread():
            return {}
        return {signum: signal.signal(signum, self._handle) for signum in STOPPING}

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        if kind is None:
            self.check()  # it came too late to stop anything inside: what follows is not begun

    def check(self) -> None:
        """Raise ``Interrupted`` if a signal came: Python drops what a handler raises inside a callback of C code."""
        if self.received:
            raise Interrupted(self.received)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside, signals only set ``received``, which the caller checks at its safe points."""
        before, self._deferring = self._deferring, True
        try:
            yield
        finally:
            self._deferring = before

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.received and now - self._since < _ONE_SIGNAL_SECONDS:
            return
        again = bool(self.received)
        if not again:
            self.received, self._since = signum, now
        if again or not self._deferring:
            raise Interrupted(self.received)  # the first says why: SLURM's warning, which SIGTERM follows, requeues
        log.warning("%s: stopping after this batch; once more stops at once", signal.Signals(signum).name)


@contextmanager
def held_back() -> Iterator[None]:
    """Deliver a stopping signal only after what is inside is done, or has raised: the record of how a run ended.

    A blocked signal would not do, as another thread of the process would take it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    handlers = {signum: signal.getsignal(signum) for signum in STOPPING}
    try:
        for signum in STOPPING:
            signal.signal(signum, lambda signum, _: came.append(signum))
        yield
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
        if came:
            signal.raise_signal(came[0])
