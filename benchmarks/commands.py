"""Commands as a user types them, run as processes of their own and watched from outside."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

# "epoch  7/25  train/loss 0.12  val/loss 0.13  val/j_ratio 1.2  3.4 s"
EPOCH = re.compile(r"^epoch +(\d+)/")
SCORE = re.compile(r"(\S+/\S+) (\S+)")


def environment(further: Mapping[str, str] | None = None) -> dict[str, str]:
    """This shell's, without what a Hydra or Lightning process leaves there."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("HYDRA", "PL_"))}
    return kept | {"PYTHONPATH": str(Path(__file__).parents[1])} | dict(further or {})


def seconds_of(arguments: list[str], further: Mapping[str, str] | None = None) -> float:
    """Wall time of ``python arguments`` in an empty directory, to its end."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, *arguments], cwd=folder, env=environment(further), check=True, capture_output=True
        )
        return time.perf_counter() - started


def seconds_until(overrides: list[str], score: str | None = None, bound: float = 0.0) -> tuple[float, int]:
    """Wall time of a cold `eai-train` until the first epoch line in which ``score`` ≤ ``bound``, and that epoch.

    Without a score, until the first line. The command is ended then.

    Raises:
        RuntimeError: it ended without such a line.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "eai.train", f"hydra.run.dir={folder}/run", *overrides]
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        lines = []
        try:
            for line in process.stdout:
                lines.append(line)
                match = EPOCH.match(line)
                if match and (score is None or float(dict(SCORE.findall(line)).get(score, "inf")) <= bound):
                    return time.perf_counter() - started, int(match[1])
        finally:
            process.kill()
            process.wait()
    raise RuntimeError(f"no epoch of {' '.join(command)} met {score} ≤ {bound}: …{''.join(lines[-5:])}")


def peak_mib(arguments: list[str]) -> float:
    """Peak resident memory of ``python arguments`` in an empty directory."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"python {' '.join(arguments)} exited with {process.returncode}")
    return _mib(usage)


def _mib(usage: resource.struct_rusage) -> float:
    return usage.ru_maxrss / (1024 if sys.platform.startswith("linux") else 1024**2)
