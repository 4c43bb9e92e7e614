"""A run of several processes on this machine: torchrun starts them, signals reach them, none is left behind."""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch.distributed as dist

from eai.core.directory import RunDirectory
from eai.core.errors import Interrupted, RankError
from eai.core.learn.ranks import processes
from eai.core.run.gpus import visible_gpus
from eai.core.schema import Accelerator
from eai.core.signals import StopSignals

log = logging.getLogger("eai")
_POLL_SECONDS = 0.1
_BROKEN_CONNECTION = re.compile(r"/gloo/\w+/|Gloo \w+ failed|NCCL error|Connection (reset|closed) by (remote )?peer")


def run_workers(
    run: RunDirectory,
    accelerator: Accelerator,
    count: int,
    checkpoint: Path | None,
    stop: StopSignals,
    lock: int | None,
    gpus: list[int] | None,
) -> dict[str, Any]:
    """Run ``config.yaml`` of the run in ``count`` processes and return what rank 0 reports.

    Args:
        lock: the directory's lock, kept by torchrun too: as long as a worker is there, the directory is taken.
        gpus: indices of the GPUs to use; None leaves all.

    Raises:
        RankError: a process failed; says which and why.
        Interrupted: a signal came; the workers had ``stop_within_seconds`` to save.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += ["--module", "eai.worker", str(run.config), *([str(checkpoint)] if checkpoint else [])]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(accelerator.threads or 1),
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(math.ceil(accelerator.stop_within_seconds)),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    if gpus is not None:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(visible_gpus()[index] for index in gpus)
    # torchrun leaves folders of logs behind, empty ones: give it one that is removed.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
        # Its own account of a failure goes to a file; the ranks report the reason.
        with (run.path / "workers.log").open("ab") as errors:
            torchrun = subprocess.Popen(
                command,
                env=environment | {"TMPDIR": temporary},
                stderr=errors,
                pass_fds=[] if lock is None else [lock],
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        try:
            with stop.deferred():
                _wait(torchrun, accelerator.stop_within_seconds, stop)
        finally:
            _end(torchrun, run)
    return _outcome(run, count, stop)


def _wait(torchrun: subprocess.Popen[bytes], seconds: float, stop: StopSignals) -> None:
    """Wait for the end; pass a signal on, and wait ``seconds`` more after it."""
    deadline = math.inf
    while torchrun.poll() is None and time.monotonic() < deadline:
        if stop.received and deadline == math.inf:
            deadline = time.monotonic() + seconds
            torchrun.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            torchrun.wait(_POLL_SECONDS)


def _end(torchrun: subprocess.Popen[bytes], run: RunDirectory) -> None:
    """Kill what is still running."""
    if torchrun.poll() is None:
        torchrun.kill()
        torchrun.wait()
    for report in run.rank_reports():
        # A recorded process number may have a new owner: a worker of this run names its configuration.
        with suppress(OSError):
            if str(run.config).encode() in Path(f"/proc/{report['pid']}/cmdline").read_bytes():
                os.kill(report["pid"], signal.SIGKILL)


def _outcome(run: RunDirectory, count: int, stop: StopSignals) -> dict[str, Any]:
    reports = run.rank_reports()
    first = next((report for report in reports if report["rank"] == 0), {})
    if first.get("state") == "COMPLETED":
        facts: dict[str, Any] = first["facts"]
        return facts
    if stop.received:
        raise Interrupted(stop.received)
    raise RankError(first_failure(run, count))


def first_failure(run: RunDirectory, count: int) -> str:
    """Why a run of ``count`` processes ended: the first failure, not those that follow from it."""
    reports = run.rank_reports()
    failed = [report for report in reports if report["state"] == "FAILED"]
    causes = [report for report in failed if not report["lost_peer"]]
    if causes:
        return f"rank {causes[0]['rank']}: {causes[0]['reason']}"
    silent = sorted(set(range(count)) - {report["rank"] for report in reports if report["state"] != "RUNNING"})
    if silent:
        ranks = f"rank{'s' if len(silent) > 1 else ''} {', '.join(map(str, silent))}"
        return f"{ranks}: ended without a word (killed, or out of memory?); see {run.path / 'workers.log'}"
    if failed:
        return f"rank {failed[0]['rank']}: {failed[0]['reason']}"
    return f"its processes were stopped from outside; see {run.path / 'workers.log'}"


@contextmanager
def reported(run: RunDirectory, own_rank: int) -> Iterator[dict[str, Any]]:
    """Report the state of one of several processes; yields a dictionary for the facts to report at its end."""
    facts: dict[str, Any] = {}
    run.report_rank(own_rank, state="RUNNING")
    try:
        yield facts
    except Interrupted:
        run.report_rank(own_rank, state="PREEMPTED")
        raise
    except BaseException as error:
        text = f"{type(error).__name__}: {error}"
        run.report_rank(own_rank, state="FAILED", reason=text, lost_peer=_lost_peer(error))
        raise
    run.report_rank(own_rank, state="COMPLETED", facts=facts)


def _lost_peer(error: BaseException) -> bool:
    """Whether a process failed only because another one was gone.

    gloo raises plain RuntimeErrors that name its source file, or the connection that broke.
    """
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and _BROKEN_CONNECTION.search(str(error)) is not None


def root_cause(error: Exception, run: RunDirectory) -> Exception:
    """The error to raise: that of another process, where this one failed only because of it."""
    if processes() == 1 or not _lost_peer(error):
        return error
    return RankError(first_failure(run, processes()))


def die_with_parent() -> None:
    """Ask Linux for SIGTERM when the parent process ends; other systems have no such request."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
