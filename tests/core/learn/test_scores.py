from __future__ import annotations

import pytest
import torch

from eai.core.learn.scores import SampleMeans


def test_means_do_not_depend_on_how_samples_are_batched(generator: torch.Generator) -> None:
    values = torch.randn(23, generator=generator)
    results = []
    for size in (1, 5, 7, 23):
        means = SampleMeans()
        for part in values.split(size):
            means.update({"score": part})
        results.append(means.compute()["score"])
    assert results == pytest.approx([values.double().mean().item()] * 4, rel=1e-12)


def test_weighted_mean_counts_only_what_the_weights_count() -> None:
    means = SampleMeans()
    means.update({"a": (torch.tensor([1.0, 5.0, 9.0]), torch.tensor([1.0, 0.0, 3.0]))})
    means.update({"a": (torch.tensor([2.0]), torch.tensor([4.0]))})
    assert means.compute() == {"a": (1 + 27 + 8) / 8}


def test_score_that_applies_to_no_sample_is_left_out() -> None:
    means = SampleMeans()
    means.update({"a": (torch.ones(3), torch.zeros(3)), "b": torch.ones(3)})
    assert means.compute() == {"b": 1.0}


def test_state_continues_where_it_was_saved() -> None:
    whole, first, second = SampleMeans(), SampleMeans(), SampleMeans()
    parts = torch.tensor([0.1, 0.7, 3.0]), torch.tensor([1e8, 2.0])
    for part in parts:
        whole.update({"a": part})
    first.update({"a": parts[0]})
    second.restore(first.state())
    second.update({"a": parts[1]})
    assert second.compute() == whole.compute()
