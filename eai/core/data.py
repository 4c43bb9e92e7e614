"""Synthetic data: tensors made once from a seed, served in whole batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Generic, Literal, TypeVar, cast

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from eai.core.errors import require

B = TypeVar("B", bound=tuple[Tensor, ...])
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def split_generator(seed: int, split: Split, epoch: int = 0, device: str = "cpu") -> torch.Generator:
    """A random generator of its own for each (seed, split, epoch), statistically independent of the others."""
    word = np.random.SeedSequence([seed, SPLITS.index(split), epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(word & np.uint64(2**63 - 1)))


class Samples(Dataset[B], Generic[B]):
    """The samples of one split as one Batch; a list of indices gives a Batch, without collation.

    With ``fresh`` the samples are generated again for each epoch, from (seed, split, epoch).
    """

    def __init__(self, module: DataModule[B], split: Split, fresh: bool) -> None:
        self._module, self._split, self._fresh, self._epoch = module, split, fresh, 0
        self.all: B = self._generate(0)

    def set_epoch(self, epoch: int) -> None:
        if self._fresh and epoch != self._epoch:
            self.all = self._generate(epoch)
        self._epoch = epoch

    def _generate(self, epoch: int) -> B:
        module = self._module
        return module.generate(self._split, split_generator(module.seed, self._split, epoch, module.device))

    def __len__(self) -> int:
        return len(self.all[0])

    def __getitem__(self, index: int) -> B:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> B:
        chosen = torch.tensor(indices)
        return cast(Any, type(self.all))(*(field[chosen] for field in self.all))


class EpochOrder(Sampler[int]):
    """A new permutation for each epoch that depends on (seed, epoch) alone.

    ``skip`` samples are left out once, at the start of the next epoch: a run that resumes in the
    middle of an epoch goes on with the samples it had not seen.
    """

    def __init__(self, samples: Samples[B], seed: int) -> None:
        self._samples, self._seed, self._epoch, self.skip = samples, seed, 0, 0

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._samples.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._samples)

    def __iter__(self) -> Iterator[int]:
        word = np.random.SeedSequence([self._seed, 3, self._epoch]).generate_state(1, np.uint32)[0]
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(int(word)))
        start, self.skip = self.skip, 0
        yield from order[start:].tolist()


def _whole_batch(batch: B) -> B:
    return batch


class DataModule(LightningDataModule, ABC, Generic[B]):
    """Three splits of synthetic samples, from three seeds derived from ``seed``.

    Args:
        batch_size: samples per step and device.
        seed: of the data; independent of the seed of the weights.
        fresh: generate new training samples for each epoch (endless data).
        device: where samples are generated and kept.
    """

    def __init__(self, batch_size: int, seed: int, fresh: bool, device: Literal["cpu", "cuda"] = "cpu") -> None:
        super().__init__()
        require(batch_size >= 1, "batch_size", "at least 1", batch_size)
        require(0 <= seed < 2**32, "seed", "0 ≤ seed < 2**32", seed)
        require(device == "cpu" or torch.cuda.is_available(), "device", "cpu (no CUDA device was found)", device)
        self.batch_size, self.seed, self.fresh, self.device = batch_size, seed, fresh, device
        self.samples: dict[Split, Samples[B]] = {}

    @abstractmethod
    def generate(self, split: Split, generator: torch.Generator) -> B:
        """All samples of ``split`` as one Batch, on the generator's device; random numbers only from ``generator``."""

    def setup(self, stage: str | None = None) -> None:
        for split in SPLITS:
            if split not in self.samples:
                self.samples[split] = Samples(self, split, fresh=self.fresh and split == "train")

    def batch(self, split: Split, size: int | None = None) -> B:
        """The first ``size`` samples of a split (all, if None) as one Batch."""
        self.setup()
        samples = self.samples[split]
        return samples.__getitems__(list(range(len(samples) if size is None else min(size, len(samples)))))

    def train_dataloader(self) -> DataLoader[B]:
        return self._loader("train", EpochOrder(self.samples["train"], self.seed))

    def val_dataloader(self) -> DataLoader[B]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[B]:
        return self._loader("test")

    def _loader(self, split: Split, order: EpochOrder | None = None) -> DataLoader[B]:
        # A DataLoader draws a number at every start: from a generator of its own, not torch's global one.
        return DataLoader(
            self.samples[split],
            batch_size=self.batch_size,
            sampler=order,
            collate_fn=_whole_batch,
            generator=torch.Generator(),
        )
