"""Nets on points with any number of neighbours, with several channels and with more features of the edges."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from eai.core.cli import replace_node
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.tasks.dynamics.adapters import GridModel, NodeModel
from eai.tasks.dynamics.contraction import ContractionNet
from eai.tasks.dynamics.graphs import Graph, grid2d, ring
from eai.tasks.dynamics.interface import check_call, check_grid
from eai.tasks.dynamics.layers import InteractionLayer, table_of
from eai.tasks.dynamics.meshes import PointGraph, icosphere, knn_points
from eai.tasks.dynamics.nets import GCN, InteractionNetwork, LearnedStencil
from eai.tasks.dynamics.point_contraction import PointContraction
from eai.tasks.dynamics.sphere import Sphere
from tests.runs import Train
from tests.tasks.dynamics.test_point_contraction import scattered

B, N, C, S = 2, 17, 3, 2
IRREGULAR = knn_points(scattered(N, 2), 3)


def as_points(graph: Graph) -> PointGraph:
    """The same edges, self-loops included, as a graph of points."""
    source, target = graph.edge_index
    order = (target * graph.nodes + source).argsort()
    reverse = torch.empty_like(source)
    reverse[order] = (source * graph.nodes + target).argsort()
    places = torch.arange(graph.nodes, dtype=torch.float64)[:, None].expand(-1, len(graph.shape))
    edge_attr = graph.edge_attr.repeat(graph.nodes, 1)
    return PointGraph(graph.edge_index, reverse, edge_attr, places, torch.ones(graph.nodes).double(), 1.0)


def seeded(make: Callable[[], nn.Module], scale: float = 0.4) -> nn.Module:
    net = make().double()
    generator = torch.Generator().manual_seed(0)
    for weight in net.parameters():
        nn.init.normal_(weight, std=scale, generator=generator)
    return net


def state(nodes: int, channels: int = C) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    u, static = (torch.randn(B, nodes, f, dtype=torch.float64, generator=generator) for f in (channels, S))
    return u, static


def test_table_has_every_edge_once_and_shares_that_add_up_to_one() -> None:
    degrees = torch.bincount(IRREGULAR.edge_index[1])
    assert degrees.min() < degrees.max()
    edges = table_of(IRREGULAR)
    assert edges.share is not None
    taken = edges.share.flatten() > 0
    torch.testing.assert_close(edges.edge_index[:, taken], IRREGULAR.edge_index)
    torch.testing.assert_close(edges.edge_features[taken], torch.asinh(IRREGULAR.edge_attr))
    assert (edges.edge_index[0, ~taken] == edges.edge_index[1, ~taken]).all()
    torch.testing.assert_close(edges.share.sum(1), torch.ones(N))


def test_messages_on_an_irregular_graph_are_the_mean_over_each_nodes_own_neighbours() -> None:
    layer = seeded(lambda: InteractionLayer(5, 3))
    assert isinstance(layer, InteractionLayer)
    edges = table_of(IRREGULAR)
    h = state(N, 5)[0]
    got = layer(h, edges._replace(edge_features=edges.edge_features.double()))
    known = layer.edge(torch.asinh(IRREGULAR.edge_attr).double())
    source, target = IRREGULAR.edge_index
    for i in range(N):
        here = target == i
        messages = silu(layer.target(h[:, i, None]) + layer.source(h[:, source[here]]) + known[here])
        expected = h[:, i] + layer.update_node(torch.cat([h[:, i], layer.combine(messages.mean(1))], 1))
        torch.testing.assert_close(got[:, i], expected)


NETS: dict[str, Callable[[Graph | PointGraph], nn.Module]] = {
    "interaction": lambda graph: InteractionNetwork(graph, 2, 6, S, state_channels=C),
    "stencil": lambda graph: LearnedStencil(graph, 2, 3, 5, S, state_channels=C),
    "stencil of nothing static": lambda graph: LearnedStencil(graph, 2, 3, 5, 0, state_channels=C),
    "both": lambda graph: InteractionNetwork(graph, 2, 6, S, LearnedStencil(graph, 2, 3, 5, S, C), C),
}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("graph", [ring(N, 2), grid2d(3, 5, 1)], ids=["ring", "grid"])
def test_graph_of_points_gives_on_a_regular_grid_what_the_grids_own_graph_gives(name: str, graph: Graph) -> None:
    u, static = state(graph.nodes)
    static = static if "nothing" not in name else static[:, :, :0]
    one, two = (seeded(lambda: NETS[name](each)) for each in (graph, as_points(graph)))  # noqa: B023
    torch.testing.assert_close(two(u, static), one(u, static), rtol=0, atol=1e-9)


def test_contraction_on_points_gives_on_a_ring_what_the_contraction_of_rings_gives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = ring(N, 2)
    net = seeded(lambda: ContractionNet(graph, 6, 1, static_features=S, state_channels=C), 0.6)
    assert isinstance(net, ContractionNet)
    with torch.no_grad():
        for weight in net.linear.parameters():
            weight.zero_()
    u, static = state(N)
    exchanged, diffused = (part.flatten(1, 2) for part in net.edge_weights(u, static))
    points = PointContraction(as_points(graph), 4, static_features=S, state_channels=C).double()
    monkeypatch.setattr(points, "edge_weights", lambda u, static: (exchanged, diffused, None))
    torch.testing.assert_close(points(u, static), net(u, static), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NETS)
def test_nodes_may_be_numbered_in_any_order(name: str) -> None:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    other = knn_points(IRREGULAR.positions[order], 3)
    u, static = state(N)
    static = static if "nothing" not in name else static[:, :, :0]
    one, two = (seeded(lambda: NETS[name](each)) for each in (IRREGULAR, other))  # noqa: B023
    torch.testing.assert_close(two(u[:, order], static[:, order]), one(u, static)[:, order])


def test_whatever_else_is_known_of_an_edge_reaches_the_net() -> None:
    u, static = state(N)
    more = torch.rand(len(IRREGULAR.reverse), 1, generator=torch.Generator().manual_seed(5))
    graphs = [IRREGULAR._replace(edge_attr=torch.cat([IRREGULAR.edge_attr, by * more], 1)) for by in (0, 1)]
    for make in (NETS["interaction"], lambda graph: PointContraction(graph, 6, static_features=S, state_channels=C)):
        without, with_ = (seeded(lambda: make(graph))(u, static) for graph in graphs)  # noqa: B023
        assert (without - with_).abs().max() > 1e-3


CHANNELS: dict[str, Callable[[], nn.Module]] = {
    "gcn": lambda: GCN(ring(N, 2), 6, 2, state_channels=C),
    "pyg": lambda: NodeModel(_Mixed(), IRREGULAR, S, C),
    "grid": lambda: GridModel(nn.Conv1d(C + S, C, 3, padding=1, padding_mode="circular"), [N], S, C),
    "contraction": lambda: ContractionNet(ring(N, 2), 6, 1, static_features=S, state_channels=C),
    "points": lambda: PointContraction(IRREGULAR, 6, 1, S, state_channels=C),
    **{name: (lambda make=make: make(IRREGULAR)) for name, make in NETS.items() if "nothing" not in name},
}


class _Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(C + S, C)

    def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
        return self.lin(x)


@pytest.mark.parametrize("name", CHANNELS)
def test_every_channel_reaches_every_other(name: str) -> None:
    net = seeded(CHANNELS[name])
    u, static = state(N)
    torch.testing.assert_close(net(u, static)[1:], net(u[1:], static[1:]))
    for channel in range(C):
        other = u.clone()
        other[:, :, channel] += 1
        changed = (net(other, static) - net(u, static)).abs().amax((0, 1))
        assert (changed > 1e-6).all()


@pytest.mark.parametrize("name", ["contraction", "points"])
def test_energy_of_all_channels_together_never_grows(name: str) -> None:
    net = seeded(CHANNELS[name], 1.0)
    u, static = state(N)
    for _ in range(5):
        after = net(u, static).detach()
        assert (after.square().sum((1, 2)) <= u.square().sum((1, 2)) * (1 + 1e-12)).all()
        u = after


def test_channels_turn_into_each_other_and_keep_their_energy() -> None:
    net = seeded(CHANNELS["points"], 0.7)
    assert isinstance(net, PointContraction)
    with torch.no_grad():
        net.weigh.weight.zero_()
        net.weigh.bias[:] = 0
        net.weigh.bias[C * C :] = -1e4
    u, static = state(N)
    turned = net.edge_weights(u, static)[2]
    assert turned is not None
    torch.testing.assert_close(turned, -turned.mT)
    # The Taylor series of sub-steps of norm 0.8 is right to 1e-6.
    expected = (torch.matrix_exp(turned) @ u[..., None])[..., 0]
    torch.testing.assert_close(net(u, static), expected, rtol=0, atol=1e-5)


def test_checkpoints_of_one_channel_from_before_there_were_several_are_read() -> None:
    net, other = (seeded(lambda: ContractionNet(ring(N, 2), 6, 1, growth=True)) for _ in range(2))
    other.load_state_dict({name: torch.zeros_like(value) for name, value in other.state_dict().items()})
    ours = ("u_", "delta_", "linear.")
    old = {name: value[0] if name.startswith(ours) else value for name, value in net.state_dict().items()}
    assert old["u_mean"].ndim == 0
    other.load_state_dict(old)
    for name, value in other.state_dict().items():
        torch.testing.assert_close(value, net.state_dict()[name])


def test_mistakes_are_named() -> None:
    data = Sphere(level=1, width=0.6, n_train=1, n_val=1, n_test=1)
    far = icosphere(1)
    turned = far._replace(positions=far.positions.roll(1, 0))
    with pytest.raises(ConfigError, match=r"model\.net\.graph: expected the points of data, in their order"):
        check_grid(InteractionNetwork(turned, 2), data)
    with pytest.raises(ConfigError, match=r"model\.net\.graph: expected the grid of data, \(42,\), got \(12,\)"):
        check_grid(InteractionNetwork(icosphere(0), 2), data)
    fast = Sphere(level=1, width=0.6, wind=2.5, n_train=1, n_val=1, n_test=1)
    check_grid(InteractionNetwork(far, 3), fast)
    with pytest.raises(ConfigError, match=r"a reach of at least 3 cells per step.* got a reach of 1\.\d+"):
        check_grid(InteractionNetwork(far, 2), fast)
    net = InteractionNetwork(far, 2, static_features=3, state_channels=2)
    with pytest.raises(ConfigError, match=r"model\.net\.state_channels: expected 1, what data gives, got 2"):
        check_call(net, net, data.batch("val"))
    with pytest.raises(ValueError, match=r"graph: expected one whose nodes all have equally many neighbours"):
        GCN(far)
    with pytest.raises(ValueError, match=r"graph: expected that of a periodic grid, got one of points"):
        ContractionNet(far)
    with pytest.raises(ValueError, match=r"graph: expected one of points, got that of a periodic grid"):
        PointContraction(ring(N, 2))


def test_points_and_their_graph_may_stand_in_the_configuration(train: Train) -> None:
    places = ",".join(f"[{x}]" for x in range(9))
    graph = f"{{_target_: eai.tasks.dynamics.meshes.knn_points, positions: [{places}], k: 2, periodic: [9]}}"
    run = train(
        "task=dynamics", "data.nx=9", "data.modes=2", "data.n_train=4", "data.n_val=2", "data.n_test=2",
        "data.nt_test=4", "model.leads=[1,3]", "model.net.linear=null", "epochs=1", "validate_every_n_epochs=1",
        "figures.at_end=false", *replace_node(f"model.net.graph={graph}"),
    )  # fmt: skip
    assert read_json(run.metrics)["test/nrmse/lead_03"] < 10
