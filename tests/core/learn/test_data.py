from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from eai.core.learn.data import SPLITS, Batches, DataModule, Loader, Split, split_generator


class Numbers(NamedTuple):
    x: Tensor
    label: Tensor


class RandomNumbers(DataModule[Numbers]):
    def generate(self, split: Split, generator: torch.Generator) -> Numbers:
        return Numbers(torch.randn(17, 3, generator=generator), torch.arange(17))


def labels_of_epoch(data: RandomNumbers, epoch: int, skip: int = 0) -> list[int]:
    data.setup()
    data.start = (epoch, skip)
    return torch.cat([batch.label for block in data.train_dataloader() for batch in block]).tolist()


def test_splits_differ_and_repeat_under_the_same_seed() -> None:
    one, two, other = (RandomNumbers(4, seed, fresh=False) for seed in (5, 5, 6))
    drawn = [one.batch(split).x for split in SPLITS]
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    for split, x in zip(SPLITS, drawn, strict=True):
        assert torch.equal(two.batch(split).x, x)
        assert not torch.equal(other.batch(split).x, x)


def test_only_the_split_that_is_asked_for_is_made_and_the_others_stay_what_they_are() -> None:
    one, two = RandomNumbers(4, 5, fresh=True), RandomNumbers(4, 5, fresh=True)
    whole = {split: one.batch(split).x for split in SPLITS}
    assert torch.equal(two.batch("test").x, whole["test"])
    assert list(two.samples) == ["test"]
    two.setup("validate")
    assert list(two.samples) == ["test", "val"]
    assert all(torch.equal(two.batch(split).x, whole[split]) for split in reversed(SPLITS))
    for stage, made in (("fit", ["train", "val"]), ("test", ["test"]), (None, list(SPLITS))):
        three = RandomNumbers(4, 5, fresh=True)
        three.setup(stage)
        assert list(three.samples) == made


def test_datasets_leave_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    data = RandomNumbers(4, 0, fresh=True)
    labels_of_epoch(data, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_epoch_is_a_new_permutation_that_depends_on_seed_and_epoch_alone() -> None:
    orders = [labels_of_epoch(RandomNumbers(4, 0, fresh=False), epoch) for epoch in range(4)]
    assert all(sorted(order) == list(range(17)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    assert labels_of_epoch(RandomNumbers(4, 0, fresh=False), 2) == orders[2]


def test_skipping_leaves_out_the_batches_already_seen_once() -> None:
    data = RandomNumbers(4, 0, fresh=False)
    whole = labels_of_epoch(data, 1)
    assert labels_of_epoch(data, 1, skip=2) == whole[8:]


def test_fresh_samples_change_with_the_epoch_and_repeat_with_it() -> None:
    def samples(epoch: int, fresh: bool) -> Tensor:
        data = RandomNumbers(17, 0, fresh)
        data.setup()
        data.start = (epoch, 0)
        ((batch,),) = data.train_dataloader()
        return batch.x[batch.label.argsort()]

    assert torch.equal(samples(0, True), samples(0, False))
    assert not torch.equal(samples(1, True), samples(0, True))
    assert torch.equal(samples(1, True), samples(1, True))
    assert torch.equal(samples(1, False), samples(0, False))


def test_generators_of_neighbouring_seeds_and_epochs_are_unrelated() -> None:
    draws = [torch.randn(2000, generator=split_generator(s, t, e)) for s in (0, 1) for t in SPLITS for e in (0, 1)]
    correlation = torch.corrcoef(torch.stack(draws)) - torch.eye(len(draws))
    # Standard deviation 1/sqrt(2000) = 0.022, 66 pairs.
    assert correlation.abs().max() < 0.1


@pytest.mark.parametrize(("batch_size", "seed", "name"), [(0, 0, "batch_size"), (4, -1, "seed")])
def test_bad_sizes_are_refused_by_name(batch_size: int, seed: int, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}: expected"):
        RandomNumbers(batch_size, seed, fresh=False)


def test_epoch_of_several_passes_serves_what_as_many_epochs_would() -> None:
    one, three = RandomNumbers(4, 0, fresh=False), RandomNumbers(4, 0, fresh=False, passes=3)
    epochs = [labels_of_epoch(one, epoch) for epoch in range(3, 6)]
    assert labels_of_epoch(three, 1) == [*epochs[0], *epochs[1], *epochs[2]]
    assert labels_of_epoch(three, 1, skip=6) == epochs[1][4:] + epochs[2]
    assert len(three.train_dataloader()) == 3 * len(one.train_dataloader()) == 15


def test_batches_sliced_out_at_once_are_those_sliced_out_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = RandomNumbers(4, 0, fresh=False)
    data.setup()
    at_once = list(data.train_dataloader().loader)
    monkeypatch.setattr(Loader, "BYTES", 1)
    one_by_one = list(data.train_dataloader().loader)
    assert [len(batch.label) for batch in at_once] == [4, 4, 4, 4, 1]
    for one, other in zip(one_by_one, at_once, strict=True):
        assert type(one) is type(other) is Numbers
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.label, other.label)


def test_parts_of_a_smaller_batch_weigh_the_same_in_every_pass() -> None:
    samples = RandomNumbers(4, 0, fresh=False)
    samples.setup()
    batches = Batches(samples.samples["train"], 3, seed=0, rank=1, processes=2, passes=2)
    # 17 samples in global batches of 6, 6 and 5; of the last, this process has two of five.
    assert [batches.weight(step) for step in range(len(batches))] == [1, 1, 0.8] * 2
