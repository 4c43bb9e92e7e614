"""Tests under a real SLURM of two nodes, which `tests/slurm/cluster start` sets up; nothing is started here."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import NoReturn

import pytest

CLUSTER = Path(__file__).with_name("cluster")
NODES = {"node1", "node2"}


def without_slurm(reason: str) -> NoReturn:
    """A developer may lack SLURM; CI must not lose these tests without noticing."""
    message = f"no SLURM for tests: {reason}; start one with `{CLUSTER} start`"
    if os.environ.get("CI"):
        pytest.fail(f"CI is set: {message}", pytrace=False)
    pytest.skip(message)


@pytest.fixture(scope="session")
def slurm() -> dict[str, str]:
    """The environment in which `srun` and `sbatch` reach the running cluster, and no job's variables leak in."""
    file = Path(os.environ.get("EAI_SLURM_DIR") or "/tmp/eai-slurm") / "env"
    if not file.exists():
        without_slurm(f"{file} does not exist")
    lines = [line.removeprefix("export ") for line in file.read_text().splitlines()]
    foreign = ("SLURM", "SBATCH", "SRUN", "HYDRA", "PL_", "COV", "MASTER_", "SUBMITIT")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(foreign)}
    environment |= dict(line.split("=", 1) for line in lines)
    try:
        sinfo = ["sinfo", "--noheader", "--states=idle,alloc,mix,comp", "--Node", "--format=%N"]
        answer = subprocess.run(sinfo, env=environment, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        without_slurm(f"the SLURM of {file} does not answer: {error}")
    if set(answer.stdout.split()) != NODES:
        without_slurm(f"the SLURM of {file} has nodes {answer.stdout.split()} up, expected {sorted(NODES)}")
    return environment
