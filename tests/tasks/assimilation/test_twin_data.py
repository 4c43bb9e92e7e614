"""Twin experiments have the statistics that the cost assumes; the slides' data are as printed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from eai.core.learn.data import Split
from eai.tasks.assimilation.data import Curves, Prior, RandomFields, Slides, Twin
from eai.variational.batch import Batch
from eai.variational.covariance import GaussianCovariance
from eai.variational.grid import angles
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import (
    Interpolation,
    ObservationOperator,
    PointValue,
    PointwiseFunction,
    WindowAverage,
)
from tests.variational.cases import N, P, double, generator_of, standard_errors

COUNT = 8_001  # samples of the statistical tests; 4.5 to 5 standard errors are allowed, at a fixed seed


def twin(
    operator: ObservationOperator | None = None,
    error: ObservationError | None = None,
    network: ObservationNetwork | None = None,
    prior: Prior | None = None,
    **arguments: Any,
) -> Twin:
    return Twin(
        GaussianCovariance(N, variance=0.7, length=0.9, nugget=0.01),
        operator or PointValue(),
        error or ObservationError(0.3),
        network or ObservationNetwork(P, withheld=2),
        prior or RandomFields(),
        **{"n": N, "n_train": 31, "n_val": 7, "n_test": 11, "batch_size": 8, **arguments},
    )


def largest_deviation(samples: Tensor, covariance: Tensor) -> Tensor:
    """Of the sample covariance from the true one, in standard deviations of its entries."""
    count, variance = len(samples), covariance.diagonal()
    deviation = ((variance[:, None] * variance + covariance**2) / count).sqrt()
    return ((samples.T @ samples / count - covariance).abs() / deviation).max()


def test_truth_departs_from_the_background_with_the_covariance_b() -> None:
    data = twin(n_train=COUNT)
    batch = double(data.batch("train"))
    error = batch.xt - batch.xb
    assert largest_deviation(error, data.covariance.matrix) < 5
    assert standard_errors(error).abs().max() < 4.5
    # And independently of the background.
    assert standard_errors(error[:, :, None] * batch.xb[:, None, :]).abs().max() < 5


NETWORKS = {
    "points": (PointValue(), ObservationNetwork(P, withheld=2)),
    "window": (WindowAverage(3), ObservationNetwork(P, p_min=2, withheld=2, on_grid=False)),
    "interpolation": (Interpolation(), ObservationNetwork(P, withheld=2, on_grid=False, cluster=0.5)),
    "exp": (PointwiseFunction(PointValue(), "exp"), ObservationNetwork(P, withheld=2)),
}
ERRORS = {
    "uniform": ObservationError(0.3),
    "per observation": ObservationError(0.2, sigma_max=0.6),
    "correlated": ObservationError(0.2, sigma_max=0.6, correlation_length=0.7),
}


@pytest.mark.parametrize(("operator", "network"), NETWORKS.values(), ids=NETWORKS.keys())
@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS.keys())
def test_observations_depart_from_the_truth_with_the_covariance_r_withheld_ones_too(
    operator: ObservationOperator, network: ObservationNetwork, error: ObservationError
) -> None:
    data = twin(operator, error, network, n_train=COUNT)
    batch = double(data.batch("train"))
    departure = (batch.y - operator(batch.xt, batch))[:, :, None]
    factor = torch.linalg.cholesky(error.matrix(batch._replace(obs_mask=torch.ones_like(batch.obs_mask)), N))
    white = torch.linalg.solve_triangular(factor, departure, upper=False)[:, :, 0]
    assert largest_deviation(white, torch.eye(network.slots).double()) < 5
    assert standard_errors(white).abs().max() < 4.5
    # In the plainest terms: the variance is σ², at assimilated and at withheld observations.
    for chosen in (batch.obs_mask, batch.obs_withheld):
        excess = (departure[:, :, 0].square() - batch.obs_sigma**2)[chosen == 1]
        assert standard_errors(excess).abs() < 4.5


def test_correlated_errors_of_near_observations_are_alike() -> None:
    error = ObservationError(0.3, correlation_length=2.0)
    data = twin(error=error, network=ObservationNetwork(2, moving=False), n_train=COUNT)
    batch = double(data.batch("train"))
    departure = (batch.y - data.operator(batch.xt, batch)) / 0.3
    apart = (batch.obs_index[0, 0] - batch.obs_index[0, 1]).double() * (2 * math.pi / N)
    correlation = math.exp(-2 * abs(math.sin(apart.item() / 2)) / 2.0)
    assert standard_errors(departure.prod(1) - correlation).abs() < 4.5


def test_moving_network_differs_between_samples_and_a_fixed_one_between_seeds_only() -> None:
    moving = twin().batch("train")
    assert not torch.equal(moving.obs_index[0], moving.obs_index[1])
    fixed = twin(network=ObservationNetwork(P, p_min=2, withheld=2, moving=False))
    names = ("obs_index", "obs_fraction", "obs_mask", "obs_withheld")
    for split in ("train", "val", "test"):
        batch = fixed.batch(split)
        for name in names:
            field = getattr(batch, name)
            assert torch.equal(field, getattr(fixed.batch("train"), name)[:1].expand_as(field))
    other = twin(network=ObservationNetwork(P, p_min=2, withheld=2, moving=False), seed=1)
    assert not torch.equal(other.batch("train").obs_index[0], fixed.batch("train").obs_index[0])


def test_data_repeat_under_a_seed_and_differ_between_seeds_and_splits() -> None:
    first, again, other = twin().batch("train"), twin().batch("train"), twin(seed=1).batch("train")
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.xb, other.xb)
    assert not torch.equal(first.xb[:7], twin().batch("val").xb)
    assert not torch.equal(twin().batch("val").xb, twin().batch("test").xb[:7])


def test_fresh_data_are_new_in_every_epoch_and_repeat_under_a_seed() -> None:
    data, again = twin(fresh=True), twin(fresh=True)
    first = data.batch("train")
    data.samples["train"].set_epoch(1)
    assert not torch.equal(data.batch("train").xb, first.xb)
    assert not torch.equal(data.batch("train").obs_index, first.obs_index)
    again.setup()
    again.samples["train"].set_epoch(1)
    assert all(torch.equal(a, b) for a, b in zip(data.batch("train"), again.batch("train"), strict=True))


def test_splits_have_their_sizes_and_fields_their_shapes_and_precision() -> None:
    data = twin()
    sizes: dict[Split, int] = {"train": 31, "val": 7, "test": 11}
    for split, count in sizes.items():
        batch = data.batch(split)
        assert isinstance(batch, Batch)
        assert batch.xb.shape == batch.xt.shape == (count, N)
        for field in (batch.y, batch.obs_index, batch.obs_fraction[..., 0], batch.obs_sigma, batch.obs_mask):
            assert field.shape == (count, P + 2)
        assert batch.obs_fraction.shape == (count, P + 2, 1)
        assert batch.obs_index.dtype == torch.int64
        assert {field.dtype for field in batch if field.is_floating_point()} == {torch.float32}


def test_curves_of_the_prior_are_sines_and_parabolas_in_equal_numbers() -> None:
    curves = Curves().draw(2001, 60, generator_of(0))
    theta = angles(60)
    # A sine is its own projection onto the first harmonic.
    harmonic = torch.stack([torch.cos(theta), torch.sin(theta)], 1) / 30**0.5
    sine = ((curves - curves @ harmonic @ harmonic.T).abs() < 1e-12).all(1)
    assert abs(sine.double().mean().item() - 0.5) < 4.5 * 0.5 / 2001**0.5
    parabolas = curves[~sine]
    torch.testing.assert_close(parabolas.amax(1), torch.ones(len(parabolas)).double(), rtol=0, atol=1e-12)
    assert parabolas.min() >= -1
    # Third differences of a parabola are zero.
    assert parabolas.diff(n=3, dim=1).abs().max() < 1e-12


def test_random_fields_of_the_prior_have_their_variance_and_spectrum() -> None:
    fields = RandomFields(variance=1.3, k0=2.0, slope=4.0).draw(COUNT, N, generator_of(0))
    assert standard_errors(fields.square() - 1.3).abs().max() < 4.5
    k = torch.arange(N // 2 + 1).double()
    power = torch.fft.rfft(fields).abs().square()
    expected = (1 + (k / 2) ** 2) ** -2.0
    both_sides = torch.cat([expected, expected[1:]]).sum()
    assert standard_errors(power / N - 1.3 * N * expected / both_sides).abs().max() < 4.5


@pytest.mark.parametrize("prior", [Curves(), RandomFields()], ids=["curves", "random fields"])
def test_prior_draws_states_of_any_size(prior: Prior) -> None:
    for n in (8, 13, 1024, 4096):
        states = prior.draw(5, n, generator_of(0))
        assert states.shape == (5, n)
        assert states.dtype == torch.float64
        assert states.isfinite().all()
        assert states.diff(dim=0).abs().amax(1).min() > 0.01


# The slides' data


def test_background_of_the_slides_is_half_the_truth() -> None:
    batch = Slides(n_samples=101).batch("train")
    assert torch.equal(batch.xb, 0.5 * batch.xt)
    assert batch.xt.abs().max() <= 1


def test_slides_observe_three_points_in_each_sixth_the_same_for_all_samples() -> None:
    for seed in range(5):
        batch = Slides(n_samples=101, seed=seed).batch("train")
        index = batch.obs_index[0]
        assert torch.equal(batch.obs_index, index.expand(101, 18))
        assert torch.bincount(index // 10, minlength=6).tolist() == [3] * 6
        assert len(index.unique()) == 18
        assert (batch.obs_fraction == 0).all()
        assert (batch.obs_mask == 1).all()
        assert (batch.obs_withheld == 0).all()


def test_noise_of_the_slides_is_half_of_what_the_loss_is_told() -> None:
    batch = double(Slides().batch("train"))
    noise = (batch.y - batch.xt.gather(1, batch.obs_index)).flatten()
    assert (batch.obs_sigma == torch.tensor(0.05)).all()
    assert standard_errors(noise.square() - 0.025**2).abs() < 4.5
    assert standard_errors(noise).abs() < 4.5


def test_splits_of_the_slides_are_the_same_samples() -> None:
    data = Slides(n_samples=101)
    for split in ("val", "test"):
        same = zip(data.batch("train"), data.batch(split), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
    assert not torch.equal(Slides(n_samples=101, seed=1).batch("train").y, data.batch("train").y)


def test_truths_of_the_slides_have_their_phases_on_a_grid_rounded_to_three_decimals() -> None:
    batch = Slides(n_samples=101).batch("train")
    x = (torch.arange(60).double() * 2 * math.pi / 60 * 1000).round() / 1000
    shifted = x - 2 * math.pi * torch.arange(101)[:, None] / 101
    parabolas = 2 * shifted**2 / (shifted**2).amax(1, keepdim=True) - 1
    # float32 rounds at 6e-8. Each truth has the phase of one curve, and each phase belongs to one truth.
    found = [
        torch.isclose(batch.xt[:, None].double(), curves, rtol=0, atol=1e-6).all(2).nonzero()
        for curves in (torch.sin(shifted), parabolas)
    ]
    phases = torch.cat(found)[:, 1]
    assert sorted(phases.tolist()) == list(range(101))
    order = torch.cat(found)[torch.cat(found)[:, 0].argsort()][:, 1]
    assert not torch.equal(order, torch.arange(101)), "neighbours would look alike in the figures"


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("network.p", {"network": ObservationNetwork(N + 1)}),
        ("network.p", {"network": ObservationNetwork(N - 1, withheld=2)}),
        ("n", {"n": 7}),
        ("covariance", {"n": N + 2}),
        ("operator", {"network": ObservationNetwork(P, on_grid=False)}),
        ("n_train", {"n_train": 0}),
        ("n_val", {"n_val": 0}),
        ("n_test", {"n_test": 0}),
        ("batch_size", {"batch_size": 0}),
        ("seed", {"seed": -1}),
    ],
)
def test_bad_argument_of_a_twin_experiment_is_named(argument: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        twin(**arguments)


def test_function_of_point_values_is_refused_between_grid_points_too() -> None:
    with pytest.raises(ValueError, match=r"^operator: expected"):
        twin(PointwiseFunction(PointValue(), "exp"), network=ObservationNetwork(P, on_grid=False))


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("n", {"n": 61}),
        ("n", {"n": 12}),
        ("n_samples", {"n_samples": 0}),
        ("sigma_o", {"sigma_o": 0.0}),
    ],
)
def test_bad_argument_of_the_slides_is_named(argument: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        Slides(**arguments)


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [("variance", {"variance": 0.0}), ("k0", {"k0": -1.0}), ("slope", {"slope": -1.0})],
)
def test_bad_argument_of_a_prior_is_named(argument: str, arguments: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        RandomFields(**arguments)
