from __future__ import annotations

import pytest
import torch

from eai.core.learn.scores import RESAMPLES, SampleMeans, standard_errors, worth_a_curve


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


def test_standard_error_of_a_mean_is_the_scatter_over_the_root_of_the_number(generator: torch.Generator) -> None:
    values, ones = torch.randn(701, generator=generator, dtype=torch.float64) * 3, torch.ones(701, dtype=torch.float64)
    same = {"a": {"m": (values, ones)}, "b": {"m": (values, ones)}}
    errors = standard_errors(same, lambda means: {"root": means["m"] ** 2, "mean": means["m"]})
    expected = values.std().item() / 701**0.5
    # The standard deviation of 100 draws is itself known to 1/√200 = 7 %; allow three of them.
    assert errors["a"]["mean"] == pytest.approx(expected, rel=3 / (2 * RESAMPLES) ** 0.5)
    assert errors["a"] == errors["b"]  # the same resamples for all methods


def test_standard_error_counts_only_samples_that_weigh_and_needs_two() -> None:
    values = torch.tensor([1.0, 2.0, 4.0, 70.0, 90.0], dtype=torch.float64)
    half = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    errors = standard_errors({"a": {"m": (values, half), "none": (values, zero)}}, dict)
    assert 0.3 < errors["a"]["m"] < 1.5
    assert "none" not in errors["a"]
    assert standard_errors({"a": {"m": (values[:1], half[:1])}}, dict) == {}


def test_samples_are_kept_with_weights_of_one_where_none_were_given() -> None:
    means = SampleMeans()
    means.update({"a": torch.tensor([1.0, 3.0]), "b": (torch.tensor([5.0, 7.0]), torch.tensor([0.0, 2.0]))})
    means.update({"a": torch.tensor([4.0]), "b": (torch.tensor([9.0]), torch.tensor([1.0]))})
    kept = {name: (v.tolist(), w.tolist()) for name, (v, w) in means.samples_over_ranks().items()}
    assert kept == {"a": ([1, 3, 4], [1, 1, 1]), "b": ([5, 7, 9], [0, 2, 1])}


LOSSES = {"val/loss": 3.0, "val/background": 1.0, "val/observation": 2.0}
SCORES = {"val/rmse": 0.5, "val/rmse/lead_03": 0.7, "val/mse": 0.25, "val/mse/star": 0.3}


@pytest.mark.parametrize(
    ("losses", "watched", "always", "kept"),
    [
        (LOSSES, (), (), {*LOSSES, "val/rmse", "val/mse"}),  # no part of a score
        (LOSSES, ("mse",), (), {*LOSSES, "val/mse"}),
        (LOSSES, ("mse", "absent"), ("val/rmse/lead_03",), {*LOSSES, "val/mse", "val/rmse/lead_03"}),
        (
            {"val/loss": 1.0, "val/innovation": 1.0},
            ("rmse",),
            (),
            {"val/loss", "val/rmse"},
        ),  # a single term is the loss
    ],
)
def test_few_values_of_an_epoch_are_worth_a_curve(
    losses: dict[str, float], watched: tuple[str, ...], always: tuple[str, ...], kept: set[str]
) -> None:
    few = worth_a_curve(losses, SCORES, watched, always)
    assert few == {name: value for name, value in {**losses, **SCORES}.items() if name in kept}
