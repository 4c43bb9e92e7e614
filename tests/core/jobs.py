"""Commands run as processes of their own, with a time limit, and with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from eai.core.files import read_json


@contextmanager
def started(module: str, *arguments: str, cwd: Path, env: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """``python -m eai.<module>``, alone in its session; whatever of it is still there at the end is killed."""
    with (cwd / "output.txt").open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", f"eai.{module}", *arguments],
            cwd=cwd,
            env=dict(env),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for pid in {process.pid, *processes_in(cwd)}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait(timeout=30)


def run(module: str, *arguments: str, cwd: Path, env: Mapping[str, str], timeout: float = 240) -> int:
    with started(module, *arguments, cwd=cwd, env=env) as process:
        return process.wait(timeout=timeout)


def until(condition: Callable[[], object], seconds: float = 120) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def processes_in(folder: Path) -> list[int]:
    """Processes that name ``folder`` on their command line, or were started in it."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            here = str(folder) in (entry / "cmdline").read_text() or (entry / "cwd").resolve() == folder
        except OSError:
            continue
        if here and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found


def states(folder: Path) -> dict[str, str]:
    """The state of every job directly below a sweep's directory."""
    return {path.parent.name: read_json(path)["state"] for path in sorted(folder.glob("*/status.json"))}


def report(run_dir: Path, rank: int) -> dict[str, object]:
    path = run_dir / ".ranks" / f"{rank}.json"
    return read_json(path) if path.is_file() else {}


def only(paths: Sequence[Path] | Iterator[Path]) -> Path:
    (path,) = paths
    return path
