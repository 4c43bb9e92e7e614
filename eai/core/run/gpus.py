"""Count the processes of a run, and reserve GPUs for the jobs of a parallel sweep."""

from __future__ import annotations

import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from eai.core.errors import ConfigError
from eai.core.schema import Accelerator

log = logging.getLogger("eai")


def process_count(accelerator: Accelerator) -> int:
    """Processes of a run: ``devices`` × ``num_nodes``; ``auto`` is every GPU of the node, or one process on a CPU."""
    on_gpu = accelerator.accelerator in ("gpu", "cuda")
    devices = (torch.cuda.device_count() or 1) if on_gpu else 1
    return (devices if accelerator.devices == "auto" else int(accelerator.devices)) * accelerator.num_nodes


def visible_gpus() -> list[str]:
    """The names of the GPUs that this process may use: those of CUDA_VISIBLE_DEVICES, or their numbers."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


@contextmanager
def reserved_gpus(
    accelerator: Accelerator | None, names: list[str] | None = None, folder: Path | None = None, poll: float = 0.5
) -> Iterator[list[int] | None]:
    """Reserve GPUs that no other job on this machine has; yields their indices, or None where none are needed.

    Jobs that run side by side each get their own. Locks are freed with the process that holds them, however it ends.

    Args:
        accelerator: of the job; None reserves nothing.
        names: of all GPUs; by default the visible ones.
        folder: of the lock files, common to all jobs of this user on this machine.
        poll: seconds between attempts while all are taken.

    Raises:
        ConfigError: more GPUs are asked for than there are.
    """
    if accelerator is None or accelerator.accelerator not in ("gpu", "cuda"):
        yield None
        return
    names = visible_gpus() if names is None else names
    count = len(names) if accelerator.devices == "auto" else int(accelerator.devices)
    if count > len(names):
        raise ConfigError(f"accelerator.devices: expected at most {len(names)}, the GPUs of this machine, got {count}")
    folder = folder or Path(tempfile.gettempdir()) / f"eai-gpus-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ConfigError(f"{folder}: expected a folder of this user; remove it, or set TMPDIR to another place")
    waiting = False
    while True:
        with ExitStack() as locks:
            own: list[int] = []
            for index, name in enumerate(names):
                if len(own) < count and _try_lock(folder / name.replace("/", "_"), locks):
                    own.append(index)
            if len(own) == count:
                yield own
                return
        if not waiting:
            log.info("waiting for %d free GPUs of %d", count, len(names))
            waiting = True
        time.sleep(poll)


def _try_lock(path: Path, locks: ExitStack) -> bool:
    file = path.open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    locks.enter_context(file)
    return True
