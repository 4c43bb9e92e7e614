"""Observing networks: distinct places, masks, voids and clusters."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from eai.variational.networks import ObservationNetwork
from tests.variational.cases import N, P, generator_of, standard_errors

NETWORKS: dict[str, ObservationNetwork] = {
    "points": ObservationNetwork(P),
    "between points": ObservationNetwork(P, on_grid=False),
    "varying number": ObservationNetwork(P, p_min=2),
    "clustered": ObservationNetwork(P, cluster=0.7),
    "void": ObservationNetwork(P, void=2.0),
    "withheld": ObservationNetwork(P, p_min=2, withheld=3, void=1.0, cluster=0.5),
}
networks = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS.keys())


def resultant_length(index: Tensor, n: int) -> Tensor:
    """|mean of exp(iθ)|: 0 for evenly spread, 1 for coinciding positions."""
    angle = index * (2 * math.pi / n)
    return torch.hypot(torch.cos(angle).mean(1), torch.sin(angle).mean(1))


@networks
def test_points_of_a_sample_are_distinct_and_on_the_ring(network: ObservationNetwork) -> None:
    index, fraction, _, _ = network.draw(101, N, generator_of(0))
    assert index.shape == (101, network.slots)
    assert fraction.shape == (101, network.slots, 1)
    assert index.min() >= 0
    assert index.max() < N
    assert (index.sort(1).values.diff(dim=1) > 0).all()
    assert (fraction >= 0).all()
    assert (fraction < 1).all()
    assert bool((fraction == 0).all()) == network.on_grid


@networks
def test_draws_of_a_network_repeat_under_a_seed_and_move_from_sample_to_sample(network: ObservationNetwork) -> None:
    first, again = network.draw(101, N, generator_of(0)), network.draw(101, N, generator_of(0))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    other = network.draw(101, N, generator_of(1))
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0][0], first[0][1])


@networks
def test_number_of_assimilated_observations_is_in_its_range(network: ObservationNetwork) -> None:
    _, _, mask, withheld = network.draw(1001, N, generator_of(0))
    number = mask.sum(1)
    lowest = network.p if network.p_min is None else network.p_min
    assert set(number.tolist()) == set(range(lowest, network.p + 1))
    assert (withheld.sum(1) == network.withheld).all()
    assert (mask * withheld == 0).all()
    assert set(mask.unique().tolist()) | set(withheld.unique().tolist()) <= {0.0, 1.0}


def test_positions_are_uniform_on_the_ring() -> None:
    # χ² of the counts of 13 points, without replacement within a sample, is below that of independent draws:
    # 12 degrees of freedom exceed 40 with probability 7e-5.
    count = 4001
    index, fraction, _, _ = ObservationNetwork(P, on_grid=False).draw(count, N, generator_of(0))
    seen = torch.bincount(index.flatten(), minlength=N).double()
    expected = count * P / N
    assert ((seen - expected).square() / expected).sum() < 40
    assert standard_errors(fraction.flatten().double() - 0.5).abs() < 4.5


def test_each_slot_is_uniform_too() -> None:
    # Otherwise the slots that are padding or withheld would lie elsewhere.
    count = 4001
    index, _, _, _ = ObservationNetwork(P).draw(count, N, generator_of(0))
    for slot in range(P):
        seen = torch.bincount(index[:, slot], minlength=N).double()
        assert ((seen - count / N).square() / (count / N)).sum() < 40


def widest_gap(network: ObservationNetwork, n: int) -> Tensor:
    """The widest arc without observations, of each of 301 samples."""
    index, fraction, _, _ = network.draw(301, n, generator_of(0))
    angle = (index + fraction[..., 0].double()).sort(1).values * (2 * math.pi / n)
    gaps = torch.cat([angle.diff(dim=1), angle[:, :1] + 2 * math.pi - angle[:, -1:]], 1)
    return gaps.amax(1)


on_or_off_grid = pytest.mark.parametrize("on_grid", [True, False], ids=["points", "between points"])


@on_or_off_grid
@pytest.mark.parametrize("cluster", [0.0, 0.7, 0.99])
def test_nothing_is_observed_in_the_void(on_grid: bool, cluster: float) -> None:
    # Positions are computed in float32, hence the 1e-5.
    network = ObservationNetwork(18, on_grid=on_grid, void=2.0, cluster=cluster)
    assert (widest_gap(network, 60) >= 2.0 - 1e-5).all()


def test_void_moves_from_sample_to_sample_around_the_whole_ring() -> None:
    index, _, _, _ = ObservationNetwork(P, void=2.0).draw(4001, N, generator_of(0))
    seen = torch.bincount(index.flatten(), minlength=N).double()
    # A sample's points fall together: χ² larger than of independent draws, by at most p.
    expected = seen.mean()
    assert ((seen - expected).square() / expected).sum() < 40 * P


@on_or_off_grid
@pytest.mark.parametrize("void", [0.5, 1.0, 2.0, 3.0])
def test_as_many_observations_as_the_void_leaves_points_are_possible(on_grid: bool, void: float) -> None:
    n = 60
    free = n - math.ceil(void / (2 * math.pi) * n) - (not on_grid)
    network = ObservationNetwork(free, on_grid=on_grid, void=void)
    network.check_grid(n)
    assert (widest_gap(network, n) >= void - 1e-5).all()
    with pytest.raises(ValueError, match=r"^network.p: expected"):
        ObservationNetwork(free + 1, on_grid=on_grid, void=void).check_grid(n)


def test_clusters_make_the_mean_resultant_length_larger() -> None:
    lengths = []
    for cluster in (0.0, 0.3, 0.6, 0.9, 0.99):
        index, _, _, _ = ObservationNetwork(P, cluster=cluster).draw(501, 60, generator_of(0))
        lengths.append(resultant_length(index, 60).mean().item())
    assert lengths == sorted(lengths)
    # Random directions: sqrt(π/4p) = 0.40. Five neighbours of 60: all but 1.
    assert lengths[0] < 0.45
    assert lengths[-1] > 0.95


def test_withheld_observations_are_as_clustered_as_assimilated_ones() -> None:
    network = ObservationNetwork(P, withheld=P, cluster=0.7)
    index, _, _, withheld = network.draw(4001, 60, generator_of(0))
    assert torch.equal(withheld, (torch.arange(2 * P) >= P).float().expand(4001, 2 * P))
    difference = resultant_length(index[:, :P], 60) - resultant_length(index[:, P:], 60)
    assert standard_errors(difference.double()).abs() < 4.5


@pytest.mark.parametrize(
    ("argument", "build"),
    [
        ("p", lambda: ObservationNetwork(0)),
        ("network.p", lambda: ObservationNetwork(N + 1).check_grid(N)),
        ("network.p", lambda: ObservationNetwork(N, withheld=1).check_grid(N)),
        ("network.p", lambda: ObservationNetwork(N, void=0.1).check_grid(N)),
        ("p_min", lambda: ObservationNetwork(P, p_min=P + 1)),
        ("p_min", lambda: ObservationNetwork(P, p_min=0)),
        ("void", lambda: ObservationNetwork(P, void=-1.0)),
        ("network.void", lambda: ObservationNetwork(P, void=7.0).check_grid(N)),
        ("cluster", lambda: ObservationNetwork(P, cluster=1.0)),
        ("withheld", lambda: ObservationNetwork(P, withheld=-1)),
    ],
)
def test_bad_argument_is_named(argument: str, build: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=f"^{argument}: expected"):
        build()
