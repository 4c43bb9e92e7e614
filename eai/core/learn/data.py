"""Synthetic data: tensors made once from a seed, served in whole batches."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, Generic, Literal, TypeVar, cast

import numpy as np
import torch
from lightning import LightningDataModule
from torch import Tensor

from eai.core.errors import require
from eai.core.learn.ranks import processes, rank

B = TypeVar("B", bound=tuple[Tensor, ...])
Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
# What Lightning's stages need; all else needs everything.
STAGES: dict[str | None, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",)}


def split_generator(seed: int, split: Split, epoch: int = 0, device: str = "cpu") -> torch.Generator:
    """A random generator of its own for each (seed, split, epoch), statistically independent of the others."""
    word = np.random.SeedSequence([seed, SPLITS.index(split), epoch]).generate_state(1, np.uint64)[0]
    return torch.Generator(device).manual_seed(int(word & np.uint64(2**63 - 1)))


def widened(fields: B) -> B:
    """A batch or estimate with float32 in place of 16-bit numbers, which sums of squares overflow or round away."""
    wide = (f.to(torch.promote_types(f.dtype, torch.float32)) if f.is_floating_point() else f for f in fields)
    return cast(B, type(fields)._make(wide))  # type: ignore[attr-defined]


class Samples(Generic[B]):
    """The samples of one split as one Batch; several indices at once give a Batch, without collation.

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

    def __getitem__(self, indices: Tensor) -> B:
        indices = indices.to(self.all[0].device)
        return cast(Any, type(self.all))(*(field.index_select(0, indices) for field in self.all))


class Splits(dict[Split, Samples[B]]):
    """The samples of each split, made when they are first asked for.

    Args:
        make: the samples of a split.
    """

    def __init__(self, make: Callable[[Split], Samples[B]]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, split: Split) -> Samples[B]:
        self[split] = self._make(split)
        return self[split]


class Batches:
    """The indices of each batch of an epoch, for one of ``processes`` that share the work.

    All processes together take, step by step, what one process with ``processes`` times the batch size takes: of
    each such global batch, process ``rank`` has the rank-th part. Nothing is padded. A global batch that is smaller
    than the others is divided as evenly as it can be; ``weight`` says how a mean over a part counts.

    Args:
        samples: of the split; told the epoch before each one.
        batch_size: samples per step and process.
        seed: of a new order in each pass, which depends on (seed, pass since the start) alone; None keeps the samples
            in order.
        rank: of this process.
        processes: that share the work.
        passes: through the samples in an epoch.
    """

    def __init__(
        self,
        samples: Samples[B],
        batch_size: int,
        seed: int | None = None,
        rank: int = 0,
        processes: int = 1,
        passes: int = 1,
    ) -> None:
        self._samples, self._seed, self._rank, self._processes = samples, seed, rank, processes
        self._global_size, self._epoch, self._passes = batch_size * processes, 0, passes
        self._skip = 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Begin within an epoch: leave out its first ``batch`` batches, once."""
        self.set_epoch(epoch)
        self._skip = batch

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        self._samples.set_epoch(epoch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self._samples), self._global_size)
        # In order, a process without samples of the last batch has one batch less.
        return self._passes * (whole + (rest > self._rank if self._seed is None else rest > 0))

    def __iter__(self) -> Iterator[Tensor]:
        start, self._skip = self._skip, 0
        for whole in islice(self._global_batches(), start, None):
            part = whole.tensor_split(self._processes)[self._rank]
            if len(part) or self._seed is not None:
                # Ranks must step together; an empty rank repeats one sample with weight 0.
                yield part if len(part) else whole[:1]

    def weight(self, step: int) -> float:
        """Of a mean over this process's part of batch ``step``: 1 wherever all parts have equally many samples.

        Σ_r weight_r · mean_r / processes is the mean over the global batch.
        """
        step %= len(self) // self._passes
        size = min(self._global_size, len(self._samples) - step * self._global_size)
        part = size // self._processes + (self._rank < size % self._processes)
        return part * self._processes / size

    def _global_batches(self) -> Iterator[Tensor]:
        for number in range(self._epoch * self._passes, (self._epoch + 1) * self._passes):
            yield from self._order(number).split(self._global_size)

    def _order(self, number: int) -> Tensor:
        if self._seed is None:
            return torch.arange(len(self._samples))
        word = np.random.SeedSequence([self._seed, 3, number]).generate_state(1, np.uint32)[0]
        return torch.randperm(len(self._samples), generator=torch.Generator().manual_seed(int(word)))


class Loader(Generic[B]):
    """Serves the batches whose indices ``sampler`` names: slices of tensors in memory.

    Handing on a small batch takes torch's DataLoader longer than training on it takes a small net. Here there is
    nothing to collate, nothing to load in other processes, and the sampler knows the share of each process.

    Args:
        samples: of the split.
        sampler: the indices of each batch; Lightning tells it the epoch.
    """

    batch_sampler = None  # Lightning asks for it where there is a sampler
    BYTES = 2**20  # slice out as many small batches at once as fit in here

    def __init__(self, samples: Samples[B], sampler: Batches) -> None:
        self.samples, self.sampler = samples, sampler

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[B]:
        per_sample = sum(field.nbytes for field in self.samples[torch.tensor([0])])
        order = iter(self.sampler)
        for first in order:
            at_once = max(1, self.BYTES // (per_sample * len(first)))
            indices = [first, *islice(order, at_once - 1)]
            block, sizes = self.samples[torch.cat(indices)], [len(part) for part in indices]
            make: Any = type(block)._make  # type: ignore[attr-defined]
            yield from map(make, zip(*(field.split(sizes) for field in block), strict=True))


class Blocks(Generic[B]):
    """Serves training batches in blocks: lists of consecutive batches that pass through Lightning's loop together.

    Lightning's loop takes about as long as a training step of a small net; a block pays for it once. Blocks grow until
    one takes ``SECONDS``, so that signals and timers, which act between blocks, need not wait for longer.

    Args:
        loader: of the batches.
        single: make every block a single batch, where something is to happen between two training steps.
    """

    batch_sampler = None
    SECONDS, LARGEST = 0.1, 64

    def __init__(self, loader: Loader[B], single: bool) -> None:
        self.loader, self.sampler, self._single = loader, loader.sampler, single
        self._size = 1

    def __len__(self) -> int:
        if not self._single:
            raise TypeError("the number of blocks depends on how long they take")
        return len(self.loader)

    def __iter__(self) -> Iterator[list[B]]:
        batches = iter(self.loader)
        while block := list(islice(batches, self._size)):
            started = time.monotonic()
            yield block
            seconds = time.monotonic() - started
            if not self._single and seconds < self.SECONDS / 2:
                self._size = min(2 * self._size, self.LARGEST)
            elif seconds > self.SECONDS:
                self._size = max(1, self._size // 2)


class DataModule(LightningDataModule, ABC, Generic[B]):
    """Three splits of synthetic samples, from three seeds derived from ``seed``.

    Args:
        batch_size: samples per step and device.
        seed: of the data; independent of the seed of the weights.
        fresh: generate new training samples for each epoch (endless data).
        device: where samples are generated and kept.
        passes: through the training samples in an epoch. Where a pass is a single step, what happens once per epoch
            would cost more than the step; passes are shuffled as so many epochs would be.
    """

    def __init__(
        self, batch_size: int, seed: int, fresh: bool, device: Literal["cpu", "cuda"] = "cpu", passes: int = 1
    ) -> None:
        super().__init__()
        require(batch_size >= 1, "batch_size", "at least 1", batch_size)
        require(0 <= seed < 2**32, "seed", "0 ≤ seed < 2**32", seed)
        require(device == "cpu" or torch.cuda.is_available(), "device", "cpu (no CUDA device was found)", device)
        require(passes >= 1, "passes", "at least 1", passes)
        self.batch_size, self.seed, self.fresh, self.device = batch_size, seed, fresh, device
        self.passes = passes
        self.samples: Splits[B] = Splits(self.make)
        self.single_steps = True  # one training step per pass through Lightning's loop; see `Blocks`
        self.start = (0, 0)  # first epoch of the training, and its batches to skip

    @property
    def evaluation_batch_size(self) -> int:
        """Samples per validation or test step: without gradients there is room for four times as many."""
        return 4 * self.batch_size

    @abstractmethod
    def generate(self, split: Split, generator: torch.Generator) -> B:
        """All samples of ``split`` as one Batch, on the generator's device; random numbers only from ``generator``."""

    def make(self, split: Split) -> Samples[B]:
        """The samples of a split; by default they are generated at once. Override this, not ``setup``, for others."""
        return Samples(self, split, fresh=self.fresh and split == "train")

    def setup(self, stage: str | None = None) -> None:
        for split in STAGES.get(stage, SPLITS):
            _ = self.samples[split]

    def batch(self, split: Split, size: int | None = None) -> B:
        """The first ``size`` samples of a split (all, if None) as one Batch; no other split is made for it."""
        samples = self.samples[split]
        return samples[torch.arange(len(samples))[:size]]

    def train_dataloader(self) -> Blocks[B]:
        loader = self._loader("train", self.batch_size, self.seed, self.passes)
        loader.sampler.start_at(*self.start)
        return Blocks(loader, self.single_steps)

    def val_dataloader(self) -> Loader[B]:
        return self._loader("val", self.evaluation_batch_size)

    def test_dataloader(self) -> Loader[B]:
        return self._loader("test", self.evaluation_batch_size)

    def _loader(self, split: Split, batch_size: int, seed: int | None = None, passes: int = 1) -> Loader[B]:
        samples = self.samples[split]
        return Loader(samples, Batches(samples, batch_size, seed, rank(), processes(), passes))
