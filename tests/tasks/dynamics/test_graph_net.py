"""The graph and the net of slide 2.1, and what a net without positions can never do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch.nn.functional import leaky_relu
from torch_geometric.data import Batch as BlockDiagonal
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

from eai.tasks.dynamics.graphs import chord_radius, ring
from eai.tasks.dynamics.layers import NeighbourMean
from eai.tasks.dynamics.nets import GCN

B, N, SPEED = 3, 13, 0.6
NOTHING = torch.zeros(B, N, 0)
BOUND = math.sin(SPEED) ** 2 / 2  # 0.1594


def test_graph_at_25_points_is_that_of_the_slides_and_equals_two_hops() -> None:
    angle = 2 * np.pi * np.arange(25) / 25
    expected = np.zeros((25, 25))
    for i in range(25):
        for j in range(25):
            chord = np.hypot(np.sin(angle[i]) - np.sin(angle[j]), np.cos(angle[i]) - np.cos(angle[j]))
            expected[i, j] = chord < 0.5
    for graph in (chord_radius(25, 0.5), ring(25, hops=2)):
        joined = np.zeros((25, 25))
        joined[tuple(graph.edge_index.numpy())] = 1
        np.testing.assert_array_equal(joined, expected)
        assert graph.edge_index.shape == (2, 125)
        assert graph.reach == (2,)


def test_reach_counts_cells_round_the_ring() -> None:
    for hops in (1, 3, 6):
        graph = ring(N, hops)
        assert graph.reach == (hops,)
        assert graph.edge_index.shape[1] == N * (2 * hops + 1)
    assert chord_radius(N, 0.01).reach == (0,)
    assert GCN(ring(N, 3), layers=2).reach == (6,)


def test_signal_does_not_arrive_from_beyond_the_reach(generator: torch.Generator) -> None:
    net = GCN(ring(N, 2), width=7, layers=2)
    u = torch.randn(B, N, 1, generator=generator)
    other = u.clone()
    other[:, 6] += 1
    changed = (net(u, NOTHING) != net(other, NOTHING)).any(0)[:, 0]
    assert changed.tolist() == [abs(i - 6) <= net.reach[0] for i in range(N)]


def test_net_of_the_slides_has_4771_parameters() -> None:
    assert sum(p.numel() for p in GCN(ring(25, 2)).parameters()) == 4771


@pytest.mark.parametrize("position", [True, False])
def test_shared_graph_gives_the_same_as_a_block_diagonal_batch(position: bool, generator: torch.Generator) -> None:
    graph = ring(N, 2)
    net = GCN(graph, width=7, position=position)
    u = torch.randn(B, N, 1, generator=generator)
    location = ((torch.arange(N) + 1) / N)[:, None]
    states = [torch.cat([state, location], 1) if position else state for state in u]
    batch = BlockDiagonal.from_data_list([Data(x=x, edge_index=graph.edge_index) for x in states])
    h = batch.x
    for ours in net.convolutions:
        # It normalises for itself and adds missing self-loops.
        reference = GCNConv(ours.lin.in_channels, ours.lin.out_channels)
        reference.load_state_dict(ours.state_dict())
        h = leaky_relu(reference(h, batch.edge_index))
    torch.testing.assert_close(net(u, NOTHING), net.head(h).view(B, N, 1), rtol=0, atol=1e-6)


def test_means_by_matrix_and_by_gathering_are_the_same(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    h = torch.randn(N, B, 7, generator=generator)
    small = NeighbourMean(ring(N, 2))
    monkeypatch.setattr(NeighbourMean, "SMALL", N - 1)
    large = NeighbourMean(ring(N, 2))
    assert large.matrix is None
    torch.testing.assert_close(large(h), small(h), rtol=0, atol=1e-6)


def test_net_without_positions_commutes_with_reflection_and_rotation_of_the_ring(generator: torch.Generator) -> None:
    u = torch.randn(B, N, 1, generator=generator)
    torch.manual_seed(0)
    blind, located = (GCN(ring(N, 2), width=20, layers=2, position=position) for position in (False, True))
    torch.testing.assert_close(blind(u.flip(1), NOTHING), blind(u, NOTHING).flip(1), rtol=0, atol=1e-6)
    torch.testing.assert_close(blind(u.roll(5, 1), NOTHING), blind(u, NOTHING).roll(5, 1), rtol=0, atol=1e-6)
    assert (located(u.flip(1), NOTHING) - located(u, NOTHING).flip(1)).abs().max() > 1e-3


def mirrored_pairs(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """States and next states of right-moving waves, a set that a reflection maps onto itself.

    The mirror image of sin(kx − φ) is sin(−kx − φ) = sin(kx − φ'), φ' = −φ − π: the same wave at another time.
    """
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    phase = torch.cat([phase, -phase - math.pi])
    x = 2 * math.pi / N * torch.arange(N, dtype=torch.float64)
    return torch.sin(x - phase)[:, :, None], torch.sin(x - phase - SPEED)[:, :, None]


def mirror(u: torch.Tensor) -> torch.Tensor:
    """u(x) → u(−x): point 0 stays."""
    return u.flip(1).roll(1, 1)


def test_no_reflection_symmetric_prediction_beats_half_the_squared_sine_of_the_speed(
    generator: torch.Generator,
) -> None:
    u, target = mirrored_pairs(5, generator)
    images = torch.cat([u[5:], u[:5]])
    torch.testing.assert_close(mirror(u), images, rtol=0, atol=1e-12)
    # f(Ru) = R f(u) must serve two targets at once: best is their mean, cos(v) u; half their difference remains.
    both = torch.stack([target, mirror(torch.cat([target[5:], target[:5]]))])
    torch.testing.assert_close(both.mean(0), math.cos(SPEED) * u, rtol=0, atol=1e-12)
    assert (target - both.mean(0)).square().mean().item() == pytest.approx(BOUND, rel=1e-12)
    # A linear stencil fitted by least squares reaches that bound if it is symmetric, and zero if it is not.
    symmetric = torch.stack([u, u.roll(1, 1) + u.roll(-1, 1)], -1).reshape(-1, 2)
    best = symmetric @ torch.linalg.lstsq(symmetric, target.reshape(-1, 1), driver="gelsd").solution
    torch.testing.assert_close(best, math.cos(SPEED) * u.reshape(-1, 1), rtol=0, atol=1e-12)
    free = torch.stack([u.roll(1, 1), u.roll(-1, 1)], -1).reshape(-1, 2)
    residual = free @ torch.linalg.lstsq(free, target.reshape(-1, 1)).solution - target.reshape(-1, 1)
    assert residual.abs().max() < 1e-12


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Nets this small lose more by sharing the work than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_training_does_not_bring_a_net_without_positions_below_the_bound(generator: torch.Generator) -> None:
    u, target = (field.float() for field in mirrored_pairs(4, generator))
    best = {}
    for position in (False, True):
        torch.manual_seed(0)
        net = GCN(ring(N, 2), width=20, layers=2, position=position)
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        losses = []
        for _ in range(400):
            optimizer.zero_grad()
            loss = (net(u, u[:, :, :0]) - target).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        best[position] = min(losses)
    assert BOUND - 1e-5 < best[False] < 1.05 * BOUND
    assert best[True] < 0.85 * BOUND


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ring(2, 1), "nx: expected at least 3, got 2"),
        (lambda: ring(N, 7), r"hops: expected 1 ≤ hops < nx/2 = 6\.5, got 7"),
        (lambda: chord_radius(2, 0.5), "nx: expected at least 3, got 2"),
        (lambda: chord_radius(N, 0.0), "radius: expected above 0, got 0.0"),
        (lambda: GCN(ring(N, 2), width=0), "width: expected at least 1, got 0"),
        (lambda: GCN(ring(N, 2), layers=0), "layers: expected at least 1, got 0"),
    ],
)
def test_bad_argument_is_refused_by_its_name_and_value(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
