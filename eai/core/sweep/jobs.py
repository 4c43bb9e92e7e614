"""The jobs of a sweep: which they are, what became of them, and how a signal reaches them. Free of torch."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from omegaconf import DictConfig

from eai.core.directory import DONE, RunDirectory
from eai.core.errors import ConfigError, RunInUseError

log = logging.getLogger("eai")
STOP_SECONDS = 13.0


class Jobs:
    """The jobs of the sweep in ``folder``; an empty file in ``.jobs`` records each by its path below ``folder``.

    Args:
        config: Hydra's, of the sweep or of one of its jobs.
    """

    def __init__(self, config: DictConfig) -> None:
        # A job may run in another working directory (hydra.job.chdir).
        self.folder = Path(config.hydra.runtime.cwd) / config.hydra.sweep.dir
        self._records = self.folder / ".jobs"

    def add(self, run_dir: str) -> None:
        """Record the job that runs in ``run_dir``.

        Raises:
            ConfigError: that is the sweep's own directory.
        """
        name = os.path.relpath(run_dir, self.folder)
        if name == ".":
            raise ConfigError(f"hydra.sweep.subdir: expected a directory for each job, got {self.folder} for all")
        self._records.mkdir(exist_ok=True)
        (self._records / quote(name, safe="+")).touch()

    def clear(self) -> None:
        """Forget all jobs."""
        for record in self._records.glob("*"):
            record.unlink()

    def states(self) -> dict[str, dict[str, Any]]:
        """The content of ``status.json`` by job; empty where none has been written."""
        return {name: _state(self.folder / name) for name in sorted(unquote(p.name) for p in self._records.glob("*"))}

    def report(self, code: int) -> int:
        """Print the leaderboard and the jobs that did not complete; printing never changes the exit code.

        Args:
            code: exit code of the sweep so far.

        Returns:
            ``code``, or 1 where it is 0 and a job is not done. Jobs that another process runs are its own affair.
        """
        states = self.states()
        elsewhere = {name for name, state in states.items() if self._runs_elsewhere(name, state)}
        done = Counter(state["state"] for state in states.values() if state.get("state") in DONE)
        bad = {n: state for n, state in states.items() if state.get("state") not in DONE and n not in elsewhere}
        if states:
            self.summarise(last=True)
            tell(self._leaderboard())
        for name, state in bad.items():
            reason = f": {state['reason']}" if state.get("reason") else ""
            tell(f"{state.get('state', 'NOT STARTED')} {_short(self.folder / name)}{reason}", error=True)
        counts = [f"{done['COMPLETED']} of {len(states)} jobs COMPLETED"]
        counts += [f"{done['PRUNED']} PRUNED"] if done["PRUNED"] else []
        counts += [f"{len(elsewhere)} running in another process"] if elsewhere else []
        tell(f"{', '.join(counts)} in {_short(self.folder)}", error=bool(bad))
        if code in (130, 143):
            tell("stopped; the same command continues", error=True)
        return code or int(bool(bad) or not states)

    def _runs_elsewhere(self, name: str, state: dict[str, Any]) -> bool:
        """Whether another process holds the directory of a RUNNING job."""
        if state.get("state") != "RUNNING":
            return False
        try:
            with RunDirectory(self.folder / name).locked():
                return False
        except RunInUseError:
            return True

    def _leaderboard(self) -> str:
        from eai.core.compare.show import compare

        try:
            return compare([self.folder], failures=False)
        except Exception as error:  # the exit code matters more
            log.warning("no leaderboard of %s: %s: %s", self.folder, type(error).__name__, error)
            return ""

    def summarise(self, last: bool = False) -> None:
        """Write the summary of the sweep.

        Args:
            last: no job follows.
        """
        from eai.core.compare.summary import write_summary

        write_summary(self.folder, last)

    def stop(self, signum: int) -> None:
        """Pass a signal on to every job that runs in a child of this process, and wait until all have saved.

        Only children are told: a process id in a status file may belong to a stranger by now.
        """
        told: set[int] = set()
        deadline, quiet = time.monotonic() + STOP_SECONDS, 0
        # A job that is just starting is RUNNING a moment later.
        while quiet < 3 and time.monotonic() < deadline:
            children = {child.pid for child in multiprocessing.active_children()}
            pids = {state.get("pid") for state in self.states().values() if state.get("state") == "RUNNING"}
            running = {pid for pid in pids & children if pid is not None}
            for pid in running - told:
                with suppress(ProcessLookupError):
                    os.kill(pid, signum)
            told |= running
            quiet = 0 if running else quiet + 1
            time.sleep(0.2)
        raise SystemExit(130 if signum == signal.SIGINT else 143)


def _state(folder: Path) -> dict[str, Any]:
    try:
        return RunDirectory(folder).state()
    except ConfigError as error:
        return {"state": "UNREADABLE", "reason": str(error)}


def _short(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def tell(text: str, error: bool = False) -> None:
    """Print ``text``, with a question mark for what the stream's encoding lacks; ignore a closed stream.

    Args:
        text: the line or lines.
        error: to stderr.
    """
    stream = sys.stderr if error else sys.stdout
    with suppress(OSError, ValueError):
        encoding = getattr(stream, "encoding", None) or "utf-8"
        print(text.encode(encoding, "replace").decode(encoding), file=stream, flush=True)
