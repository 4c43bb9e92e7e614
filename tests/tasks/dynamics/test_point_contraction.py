"""The step whose energy cannot grow, on points of a line, a plane and the sphere, and a run on the sphere."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import eai
from eai.core.files import read_json
from eai.tasks.dynamics.meshes import PointGraph, icosphere, icosphere_neighbours, knn_points, radius_points
from eai.tasks.dynamics.point_contraction import PointContraction
from eai.tasks.dynamics.sphere_geometry import east_north
from tests.runs import Train

SMALL = ("data.level=1", "data.width=0.6", "data.n_train=4", "data.n_val=2", "data.n_test=2", "data.nt_test=5",
         "data.batch_size=2", "model.net.width=4",
         "epochs=1", "validate_every_n_epochs=1", "figures.at_end=false")  # fmt: skip


def scattered(count: int, axes: int) -> Tensor:
    return torch.rand(count, axes, dtype=torch.float64, generator=torch.Generator().manual_seed(axes))


GRAPHS = {
    "line": knn_points(scattered(11, 1), 2),
    "plane": radius_points(scattered(20, 2), 0.45, periodic=(1.0, 1.0)),
    "sphere": icosphere(1),
    "two rings": icosphere_neighbours(2, 2)._replace(area=torch.linspace(0.5, 1.5, 162, dtype=torch.float64)),
}


def net_of(graph: PointGraph, scale: float = 0.5, **arguments: object) -> PointContraction:
    torch.manual_seed(0)
    net = PointContraction(graph, width=6, static_features=3, **arguments).double()  # type: ignore[arg-type]
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=scale)
    return net


def states(nodes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    u, static = (torch.randn(2, nodes, f, dtype=torch.float64, generator=generator) for f in (1, 3))
    return u, static


def energy(net: PointContraction, u: Tensor) -> Tensor:
    return (net.area[:, None] * u.square()).sum((1, 2))


@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize(("layers", "scale"), [(0, 0.3), (0, 2.0), (1, 0.5)])
def test_energy_never_grows_whatever_the_weights_and_the_graph(graph: PointGraph, layers: int, scale: float) -> None:
    net = net_of(graph, scale, layers=layers)
    u, static = states(graph.nodes)
    for _ in range(6):
        after = net(u, static).detach()
        assert (energy(net, after) <= energy(net, u) * (1 + 1e-12)).all()
        u = after


def test_step_is_the_exponential_of_its_generator_and_without_diffusion_keeps_the_energy() -> None:
    graph = GRAPHS["two rings"]
    net = net_of(graph, 0.3)
    with torch.no_grad():
        net.weigh.bias[1] = -1e4
    u, static = states(graph.nodes)
    exchanged, diffused, turned = net.edge_weights(u, static)
    assert diffused.abs().max() == 0
    assert turned is None
    matrix = torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64)
    matrix[graph.edge_index[1], graph.edge_index[0]] = exchanged[0, :, 0, 0]
    torch.testing.assert_close(matrix, -matrix.T)
    after = net(u, static)
    expected = torch.matrix_exp(matrix / net.area[:, None]) @ u[0]
    torch.testing.assert_close(after[0], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(energy(net, after), energy(net, u), rtol=1e-5, atol=0)


def test_mass_is_kept_where_asked() -> None:
    net = net_of(GRAPHS["two rings"], 0.3, conserve_mass=True)
    u, static = states(net.graph.nodes)
    u = u - (net.area[:, None] * u).mean(1, keepdim=True)
    # Areas are float32.
    assert (net.area[:, None] * net(u, static)).mean(1).abs().max() < 1e-6


@pytest.mark.parametrize("layers", [0, 2])
def test_nodes_may_be_numbered_in_any_order(layers: int) -> None:
    graph = GRAPHS["plane"]
    order = torch.randperm(graph.nodes, generator=torch.Generator().manual_seed(3))
    other = radius_points(graph.positions[order], 0.45, periodic=(1.0, 1.0))
    u, static = states(graph.nodes)
    one, two = (net_of(each, layers=layers) for each in (graph, other))
    torch.testing.assert_close(two(u[:, order], static[:, order]), one(u, static)[:, order])


def turn(axis: Tensor, angle: float) -> Tensor:
    """The matrix of a rotation."""
    x, y, z = axis.tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.eye(3, dtype=torch.float64) + math.sin(angle) * cross + (1 - math.cos(angle)) * cross @ cross


@pytest.mark.parametrize("layers", [0, 1])
def test_step_commutes_with_the_rotations_of_the_mesh(layers: int) -> None:
    graph = icosphere_neighbours(2, 2)
    net = net_of(graph, layers=layers, vector=[0, 1], scalars=[])
    rotation = turn(graph.positions[0], 2 * math.pi / 5)  # about a corner of the icosahedron
    moved = graph.positions @ rotation.T
    place = (moved @ graph.positions.T).argmax(1)  # node i comes to the place of node place[i]
    torch.testing.assert_close(moved, graph.positions[place])
    u, static = states(graph.nodes)
    wind = (static[..., :2, None] * east_north(graph.positions)).sum(2) @ rotation.T
    v, winds = torch.empty_like(u), torch.empty_like(static)
    v[:, place] = u
    winds[:, place] = torch.cat([(east_north(moved) @ wind[..., None])[..., 0], static[:, :, 2:]], 2)
    torch.testing.assert_close(net(v, winds)[:, place], net(u, static), rtol=1e-6, atol=1e-6)


def test_two_rings_are_the_neighbours_and_theirs() -> None:
    graph, near = icosphere_neighbours(2, 2), icosphere(2)
    joined = torch.zeros(near.nodes, near.nodes)
    joined[near.edge_index[1], near.edge_index[0]] = 1
    expected = ((joined + joined @ joined) > 0) & ~torch.eye(near.nodes, dtype=torch.bool)
    got = torch.zeros_like(expected)
    got[graph.edge_index[1], graph.edge_index[0]] = True
    assert torch.equal(got, expected)
    torch.testing.assert_close(graph.area, near.area)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"vector": [0]}, "vector: expected null, or the places of two of the 3 static features, got"),
        ({"vector": [0, 3]}, "vector: expected null, or the places of two"),
        ({"scalars": [7]}, "scalars: expected places of the 3 static features"),
        ({"layers": -1}, "layers: expected 0 or more, got -1"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told.replace("[", r"\[")):
        net_of(GRAPHS["sphere"], **arguments)


@pytest.mark.parametrize("flow", ["rotation", "deformation"])
def test_run_on_the_sphere_is_scored_beside_schemes_on_its_mesh(flow: str, train: Train) -> None:
    run = train(
        "task=dynamics", "data/dynamics=sphere", f"data.flow={flow}", "model/dynamics=point_contraction", *SMALL
    )
    scores, others = read_json(run.metrics), read_json(run.baselines)
    assert set(others) == {"persistence", "climatology", "upwind", "semi_lagrangian_nearest", "semi_lagrangian_linear",
                           "reference"}  # fmt: skip
    assert others["reference"]["test/nrmse"] == 0
    assert all(of.keys() == scores.keys() for of in others.values())
    assert "largest_gain" not in read_json(run.measurements)["model"]  # waves are those of a grid
    loaded = eai.load_run(run.path)
    batch = loaded.data.batch("test")
    assert loaded.module.predict(batch).rollout.shape == (2, 4, 42, 1)


def test_every_figure_of_the_sphere_can_be_drawn(train: Train) -> None:
    run = train("task=dynamics", "data/dynamics=sphere", "model/dynamics=point_contraction", *SMALL[:-1])
    assert {path.name for path in run.figures.iterdir()} >= {"maps.png", "rollout.gif", "nrmse.png"}
