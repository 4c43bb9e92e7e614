"""The processes of one run: their group, their ranks, and how they agree.

Every function also works with a single process, where nothing is communicated. Objects travel over gloo on the CPU, so
that asking never waits for a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from omegaconf import DictConfig, OmegaConf

from eai.core.errors import ConfigError
from eai.core.files import flat_keys

T = TypeVar("T")


def cluster_environment() -> ClusterEnvironment:
    """What started this process: torchrun, a SLURM job step of several tasks, or a person."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment()
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        # Lightning's own requeueing can hang; eai handles the signals.
        return SLURMEnvironment(auto_requeue=False)
    return LightningEnvironment()


@contextmanager
def joined(environment: ClusterEnvironment) -> Iterator[None]:
    """Join the processes that ``environment`` started into one group, inside."""
    size = environment.world_size()
    if size == 1:
        yield
        return
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    if torch.cuda.is_available():
        torch.cuda.set_device(environment.local_rank() % torch.cuda.device_count())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, rank=environment.global_rank(), world_size=size)
    yield
    # Not after an error: this would wait for processes that may be gone.
    dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def gather(value: T) -> list[T]:
    """Collect the values of all processes, in the order of ranks, in every process."""
    if processes() == 1:
        return [value]
    values: list[Any] = [None] * processes()
    dist.all_gather_object(values, value)
    return values


def from_rank_zero(function: Callable[[], T]) -> T:
    """Call ``function`` in rank 0 only; every rank returns its result, or raises its error."""
    if processes() == 1:
        return function()
    box: list[Any] = [None, None]
    if rank() == 0:
        try:
            box[0] = function()
        except Exception as error:
            box[1] = error
    dist.broadcast_object_list(box, src=0)
    if box[1] is not None:
        raise box[1]
    return box[0]


class Agreement:
    """The maximum over processes of each value, requested now and awaited later.

    In between the processes go on computing, so that agreeing once per step costs next to nothing.
    """

    def __init__(self, *values: int) -> None:
        self._own, self._work = list(values), None
        if processes() > 1:
            self._tensor = torch.tensor(values)
            self._work = dist.all_reduce(self._tensor, dist.ReduceOp.MAX, async_op=True)

    def result(self) -> list[int]:
        if self._work is None:
            return self._own
        self._work.wait()
        return self._tensor.tolist()


def same_everywhere(cfg: DictConfig) -> None:
    """Make sure that every process has the same configuration.

    Args:
        cfg: of this process.

    Raises:
        ConfigError: it differs; names the keys.
    """
    if processes() == 1:
        return
    own = {key: repr(value) for key, value in flat_keys(OmegaConf.to_container(cfg, resolve=True)).items()}
    everywhere = gather(own)
    keys = {key for key in own if any(other.get(key) != everywhere[0].get(key) for other in everywhere)}
    keys |= {key for other in everywhere for key in other.keys() ^ everywhere[0].keys()}
    if keys:
        raise ConfigError(
            f"{', '.join(sorted(keys))}: expected the same in all processes, rank {rank()} differs from another"
        )
