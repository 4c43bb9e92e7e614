"""Learned stencils and interaction networks: symmetries, linearity, scales, and PyG's own batching. B=3, n=13."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch as BlockDiagonal
from torch_geometric.data import Data

from eai.tasks.dynamics.advection import Fourier, VariableSpeed
from eai.tasks.dynamics.data import Batch, unforced
from eai.tasks.dynamics.forecast import rollout
from eai.tasks.dynamics.graphs import Graph, grid2d, knn, multiscale, ring
from eai.tasks.dynamics.layers import Edges, InteractionLayer, StencilConv
from eai.tasks.dynamics.nets import GraphNet, InteractionNetwork, LearnedStencil

B, N = 3, 13
GRAPHS = [ring(N, 2), multiscale(N, 1, 2), knn([N], 4), grid2d(5, 7, 1), knn([5, 7], 8)]
SIZES = [str(graph.shape) + str(graph.degree) for graph in GRAPHS]


def make_net(graph: Graph, static: int = 0) -> InteractionNetwork:
    torch.manual_seed(0)
    net = InteractionNetwork(graph, 2, 7, static, LearnedStencil(graph, 2, 3, 5, static))
    torch.nn.init.normal_(net.decoder[-1].weight)  # it starts at zero
    return net


def shifted(u: torch.Tensor, shape: tuple[int, ...], by: tuple[int, ...]) -> torch.Tensor:
    return u.unflatten(1, shape).roll(by, dims=list(range(1, 1 + len(shape)))).flatten(1, len(shape))


@pytest.mark.parametrize("graph", GRAPHS, ids=SIZES)
def test_edges_are_sorted_by_target_and_agree_with_their_displacements(graph: Graph) -> None:
    assert graph.edge_index.shape == (2, graph.nodes * graph.degree)
    for e in range(0, graph.edge_index.shape[1], 3):
        source, target = graph.edge_index[:, e].tolist()
        assert target == e // graph.degree
        displacement = graph.edge_attr[e % graph.degree]
        for axis, size in enumerate(graph.shape):
            stride = math.prod(graph.shape[axis + 1 :])
            assert (target // stride + int(displacement[axis])) % size == source // stride % size
        assert displacement[-1].item() == pytest.approx(math.hypot(*displacement[:-1].tolist()))
    pairs = set(map(tuple, graph.edge_index.T.tolist()))
    assert len(pairs) == graph.edge_index.shape[1]
    assert all((i, i) in pairs for i in range(graph.nodes))


def test_graphs_have_the_stated_neighbours() -> None:
    assert multiscale(41, 3, 4).edge_attr[:, 0].tolist() == [-16, -8, -4, -3, -2, -1, 0, 1, 2, 3, 4, 8, 16]
    assert multiscale(41, 3, 4).reach == (16,)
    assert torch.equal(knn([N], 4).edge_index, ring(N, 2).edge_index)
    assert torch.equal(knn([5, 7], 8).edge_index, grid2d(5, 7, 1).edge_index)
    assert sorted(knn([5, 7], 4).edge_attr[:, -1].tolist()) == [0, 1, 1, 1, 1]
    assert grid2d(5, 7, 2).degree == 25


@pytest.mark.parametrize("graph", GRAPHS, ids=SIZES)
@pytest.mark.parametrize("static", [0, 1])
def test_nets_commute_with_translations_of_the_grid(graph: Graph, static: int, generator: torch.Generator) -> None:
    net = make_net(graph, static)
    u = torch.randn(B, graph.nodes, 1, generator=generator)
    known = torch.randn(B, graph.nodes, static, generator=generator)
    by = (2, 3)[-len(graph.shape) :]
    moved = rollout(net, shifted(u, graph.shape, by), shifted(known, graph.shape, by), 3)[:, -1]
    expected = shifted(rollout(net, u, known, 3)[:, -1], graph.shape, by)
    torch.testing.assert_close(moved, expected, rtol=1e-4, atol=1e-4)
    assert (expected - u).abs().max() > 0.1


@pytest.mark.parametrize("layer", ["stencil", "stencil of kinds", "interaction"])
def test_layers_on_a_shared_graph_equal_those_on_a_block_diagonal_batch(layer: str, generator: torch.Generator) -> None:
    graph, width = ring(N, 2), 5
    h = torch.randn(B, N, width, generator=generator)
    batch = BlockDiagonal.from_data_list([Data(x=x, edge_index=graph.edge_index) for x in h])
    torch.manual_seed(0)
    if layer != "interaction":
        conv: nn.Module = StencilConv(width, 4)
        if layer == "stencil":
            weight = torch.randn(B, graph.edge_index.shape[1], 4, generator=generator)
            block_weight = weight.flatten(0, 1)[None]
        else:
            weight = block_weight = torch.randn(graph.degree, 4, generator=generator)
        shared, block = conv(h, graph.edge_index, weight), conv(batch.x, batch.edge_index, block_weight)
    else:
        conv = InteractionLayer(width, 2)
        shared = conv(h, Edges(graph.edge_index, graph.edge_attr, None))
        block = conv(batch.x, Edges(batch.edge_index, graph.edge_attr, None))
    torch.testing.assert_close(shared, block.view(B, N, -1), rtol=0, atol=1e-6)


def test_interaction_layer_equals_an_mlp_on_every_edge(generator: torch.Generator) -> None:
    graph, width = ring(N, 2), 5
    torch.manual_seed(0)
    layer = InteractionLayer(width, 2)
    h = torch.randn(1, N, width, generator=generator)
    got = layer(h, Edges(graph.edge_index, graph.edge_attr, None))[0]
    for i in range(N):
        messages = []
        for e in range(graph.edge_index.shape[1]):
            source, target = graph.edge_index[:, e].tolist()
            if target == i:
                edge = layer.edge(graph.edge_attr[e % graph.degree])
                hidden = torch.nn.functional.silu(layer.target(h[0, i]) + layer.source(h[0, source]) + edge)
                messages.append(layer.combine(hidden))
        update = layer.update_node(torch.cat([h[0, i], torch.stack(messages).mean(0)]))
        torch.testing.assert_close(got[i], h[0, i] + update, rtol=0, atol=1e-5)


@pytest.mark.parametrize("static", [0, 2])
def test_learned_stencil_is_linear_in_the_state(static: int, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    net = LearnedStencil(ring(N, 2), 2, 3, 5, static)
    u, v = torch.randn(2, B, N, 1, generator=generator)
    known = torch.randn(B, N, static, generator=generator)
    got, expected = net(2 * u - 3 * v, known), 2 * net(u, known) - 3 * net(v, known)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_stencil_weights_follow_the_static_features_at_both_ends(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    net = LearnedStencil(ring(N, 2), 1, 3, 5, 1)
    u, known = torch.randn(B, N, 1, generator=generator), torch.randn(B, N, 1, generator=generator)
    other = known.clone()
    other[:, 6] += 1
    changed = (net(u, known) != net(u, other)).any(0)[:, 0]
    assert changed.tolist() == [abs(i - 6) <= 2 for i in range(N)]


@pytest.mark.parametrize("graph", [ring(N, 1), ring(N, 2)], ids=["hops1", "hops2"])
def test_signal_does_not_arrive_from_beyond_the_reach(graph: Graph, generator: torch.Generator) -> None:
    net = make_net(graph)
    u = torch.randn(B, N, 1, generator=generator)
    other = u.clone()
    other[:, 6] += 1
    changed = (net(u, u[:, :, :0]) != net(other, u[:, :, :0])).any(0)[:, 0]
    assert changed.tolist() == [abs(i - 6) <= net.reach[0] for i in range(N)]


def test_scales_are_those_of_the_training_data() -> None:
    data = VariableSpeed(nx=N, modes=3, n_train=50)
    batch: Batch = data.batch("train")
    net = make_net(ring(N, 2), static=1)
    net.fit_scales(batch)
    assert net.delta_std.item() == pytest.approx((batch.u[:, 1:] - batch.u[:, :-1]).std().item())
    assert net.u_std.item() == pytest.approx(batch.u.std().item())
    assert net.static_mean.item() == pytest.approx(batch.static.mean().item())
    assert net.linear is not None
    assert net.linear.static_std.item() == pytest.approx(batch.static.std().item())


def test_interaction_network_does_not_depend_on_the_units_of_its_data(generator: torch.Generator) -> None:
    u, static = torch.randn(B, 5, N, 1, generator=generator), torch.randn(B, N, 2, generator=generator)
    torch.manual_seed(0)
    net = InteractionNetwork(ring(N, 2), 2, 7, 2)
    torch.nn.init.normal_(net.decoder[-1].weight)
    net.fit_scales(unforced(u, static))
    after = net(u[:, 0], static)
    assert (after - u[:, 0]).abs().min() > 1e-3
    # The same data in degrees Fahrenheit, say, and another unit of the static features.
    net.fit_scales(unforced(1.8 * u + 32, 7 * static - 3))
    torch.testing.assert_close(net(1.8 * u[:, 0] + 32, 7 * static - 3), 1.8 * after + 32, rtol=1e-4, atol=1e-3)


def test_interaction_network_starts_as_persistence_plus_its_stencil(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    u = torch.randn(B, N, 1, generator=generator)
    alone = InteractionNetwork(ring(N, 2), 2, 7)
    assert torch.equal(alone(u, u[:, :, :0]), u)
    linear = LearnedStencil(ring(N, 2), 2, 3, 5)
    assert torch.equal(InteractionNetwork(ring(N, 2), 2, 7, linear=linear)(u, u[:, :, :0]), linear(u, u[:, :, :0]))


def test_learned_stencil_learns_to_carry_unseen_fields() -> None:
    data = Fourier(nx=N, modes=3, speed=0.6, n_train=200, n_test=5, nt=2, nt_test=3)
    batch, test = data.batch("train"), data.batch("test")
    torch.manual_seed(0)
    net = LearnedStencil(ring(N, 3), 1, 4, 16)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for _ in range(300):
        optimizer.zero_grad()
        (net(batch.u[:, 0], batch.static) - batch.u[:, 1]).square().mean().backward()
        optimizer.step()
    error = (net(test.u[:, 0], test.static) - test.u[:, 1]).square().mean() / test.u[:, 1].square().mean()
    assert error.sqrt() < 0.03  # persistence has about 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: multiscale(N, 1, 3), "levels: expected 1 ≤ levels ≤ 2"),
        (lambda: multiscale(N, 7, 1), "hops: expected 1 ≤ hops < nx/2"),
        (lambda: knn([N], 13), "k: expected 1 ≤ k < 13"),
        (lambda: knn([N, 2], 3), "shape: expected one or two numbers"),
        (lambda: grid2d(5, 7, 3), "hops: expected 1 ≤ hops < min"),
        (lambda: LearnedStencil(ring(N, 2), channels=0), "channels: expected at least 1, got 0"),
        (lambda: LearnedStencil(ring(N, 2), static_features=-1), "static_features: expected 0 or more, got -1"),
        (lambda: InteractionNetwork(ring(N, 2), width=0), "width: expected at least 1, got 0"),
        (lambda: InteractionNetwork(ring(N, 2), linear=LearnedStencil(ring(9, 2))), "linear: expected a stencil on"),
    ],
)
def test_bad_argument_is_refused_by_its_name(make: Callable[[], GraphNet | Graph], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make()
