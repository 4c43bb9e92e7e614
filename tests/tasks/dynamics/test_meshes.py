"""Graphs of points against brute force, and the icosahedral mesh: counts, areas, symmetry."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from eai.tasks.dynamics.meshes import PointGraph, icosphere, icosphere_faces, knn_points, radius_points
from eai.tasks.dynamics.sphere_geometry import (
    Triangulation,
    angle,
    circumcentres,
    east_north,
    spherical_area,
    unit,
    voronoi_areas,
)

N = 37
BOX = (2.0, 3.0)


def points(dimensions: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(N, dimensions, dtype=torch.float64, generator=generator) * torch.tensor([*BOX, 1])[:dimensions]


def on_sphere(count: int = N, seed: int = 0) -> torch.Tensor:
    return unit(torch.randn(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


# Points, periodic, sphere.
PLACES = {
    "line": (points(1), None, False),
    "ring": (points(1), BOX[:1], False),
    "plane": (points(2), None, False),
    "torus": (points(2), BOX, False),
    "sphere": (on_sphere(), None, True),
}
GRAPHS: dict[str, Callable[[], PointGraph]] = {
    **{f"knn, {name}": lambda p=p, b=b, s=s: knn_points(p, 4, b, s) for name, (p, b, s) in PLACES.items()},
    **{f"radius, {name}": lambda p=p, b=b, s=s: radius_points(p, 0.9, b, s) for name, (p, b, s) in PLACES.items()},
    "icosphere": lambda: icosphere(2),
}


def distance(a: torch.Tensor, b: torch.Tensor, periodic: tuple[float, ...] | None, sphere: bool) -> float:
    if sphere:
        return math.acos(max(-1, min(1, float(a @ b))))
    apart = [abs(float(x)) for x in a - b]
    if periodic:
        apart = [min(x, length - x) for x, length in zip(apart, periodic, strict=True)]
    return math.hypot(*apart)


@pytest.mark.parametrize("name", GRAPHS)
def test_every_edge_has_one_back_and_edges_are_sorted_by_target(name: str) -> None:
    graph = GRAPHS[name]()
    source, target = graph.edge_index
    assert (source != target).all()
    code = target * graph.nodes + source
    assert (code.diff() > 0).all()
    assert torch.equal(graph.edge_index[:, graph.reverse], graph.edge_index.flip(0))
    assert torch.equal(graph.edge_attr[graph.reverse, -1], graph.edge_attr[:, -1])


@pytest.mark.parametrize("name", GRAPHS)
def test_displacements_are_as_long_as_said_and_of_mean_length_one(name: str) -> None:
    graph = GRAPHS[name]()
    torch.testing.assert_close(graph.edge_attr[:, :-1].norm(dim=1), graph.edge_attr[:, -1])
    assert graph.edge_attr[:, -1].mean().item() == pytest.approx(1)
    assert graph.area.mean().item() == pytest.approx(1)


@pytest.mark.parametrize("name", PLACES)
def test_neighbours_are_those_found_by_brute_force(name: str) -> None:
    places, periodic, sphere = PLACES[name]
    k, radius = 4, 0.9
    apart = [[distance(a, b, periodic, sphere) for b in places] for a in places]
    near = {(j, i) for i in range(N) for j in range(N) if i != j and apart[i][j] <= radius}
    nearest = {(j, i) for i in range(N) for j in sorted(range(N), key=lambda j: apart[i][j])[1 : k + 1]}
    expected = {"radius": near, "knn": nearest | {(i, j) for j, i in nearest}}
    got = {"radius": radius_points(places, radius, periodic, sphere), "knn": knn_points(places, k, periodic, sphere)}
    for kind, graph in got.items():
        edges = [tuple(edge) for edge in graph.edge_index.T.tolist()]
        assert set(edges) == expected[kind]
        lengths = torch.tensor([apart[i][j] for j, i in edges])
        torch.testing.assert_close(graph.edge_attr[:, -1] * graph.spacing, lengths)


def test_displacement_leads_from_the_target_to_the_nearest_image_of_the_source() -> None:
    places, periodic, _ = PLACES["torus"]
    graph = radius_points(places, 0.9, periodic)
    source, target = graph.edge_index
    arrived = places[target] + graph.edge_attr[:, :2].double() * graph.spacing
    away = (arrived - places[source]) / torch.tensor(BOX)
    torch.testing.assert_close(away, away.round(), rtol=0, atol=1e-6)
    assert away.round().abs().max() == 1


@pytest.mark.parametrize("graph", [radius_points(on_sphere(), 2.5, sphere=True), icosphere(2)], ids=["radius", "mesh"])
def test_great_circle_from_the_target_leads_to_the_source(graph: PointGraph) -> None:
    source, target = graph.edge_index
    way, length = (graph.edge_attr.double() * graph.spacing).split([2, 1], dim=1)
    start = graph.positions[target]
    direction = (way[..., None] / length[..., None] * east_north(start)).sum(1)
    torch.testing.assert_close(
        length.cos() * start + length.sin() * direction, graph.positions[source], rtol=0, atol=1e-6
    )


def test_points_at_equal_distances_are_neighbours_alike() -> None:
    ring = knn_points(torch.arange(13, dtype=torch.float64)[:, None] / 10, 3, periodic=[1.3])
    assert torch.equal(ring.edge_index[1].bincount(), torch.full((13,), 4))
    torch.testing.assert_close(ring.edge_attr[:, -1].unique().max(), torch.tensor(4 / 3))


def test_east_and_north_are_orthonormal_tangents_and_north_leads_to_the_pole() -> None:
    places = torch.cat([on_sphere(), torch.tensor([[0.0, 0, 1], [0, 0, -1]], dtype=torch.float64)])
    axes = torch.cat([east_north(places), places[:, None]], dim=1)
    torch.testing.assert_close(axes @ axes.mT, torch.eye(3, dtype=torch.float64).expand_as(axes))
    torch.testing.assert_close(torch.linalg.det(axes), torch.ones(N + 2, dtype=torch.float64))
    assert (axes[:N, 1, 2] > 0).all()
    assert (axes[:, 0, 2] == 0).all()


@pytest.mark.parametrize("level", range(4))
def test_icosphere_has_the_counts_of_its_level_and_covers_the_sphere_once(level: int) -> None:
    mesh, faces = icosphere(level), icosphere_faces(level)
    assert mesh.positions.shape == (10 * 4**level + 2, 3)
    assert mesh.edge_index.shape == (2, 60 * 4**level)
    assert faces.shape == (20 * 4**level, 3)
    degrees = mesh.edge_index[1].bincount()
    assert torch.equal(degrees[:12], torch.full((12,), 5))
    assert (degrees[12:] == 6).all()
    areas = spherical_area(*mesh.positions[faces].unbind(1))
    assert (areas > 0).all()
    assert areas.sum().item() == pytest.approx(4 * math.pi)
    cells = voronoi_areas(mesh.positions, faces)
    assert (cells > 0).all()
    assert cells.sum().item() == pytest.approx(4 * math.pi)
    torch.testing.assert_close(mesh.area, cells / cells.mean())
    assert mesh.positions[:, 2].abs().max() < 1 - 1e-4  # no node at a pole
    sides = torch.cat([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    assert {tuple(side) for side in sides.tolist()} == {tuple(edge) for edge in mesh.edge_index.T.tolist()}


def test_first_nodes_are_those_of_the_level_below() -> None:
    torch.testing.assert_close(icosphere(2).positions[:42], icosphere(1).positions)


def test_triangles_are_delaunay_and_acute() -> None:
    mesh, faces = icosphere(3), icosphere_faces(3)
    centres = circumcentres(mesh.positions, faces)
    radius = angle(centres[:, None].expand(-1, 3, -1), mesh.positions[faces]).amax(1)
    nearest = (centres @ mesh.positions.T).amax(1).arccos()
    torch.testing.assert_close(nearest, radius)
    a, b, c = mesh.positions[faces].unbind(1)
    for one, two, three in ((a, b, c), (b, c, a), (c, a, b)):
        assert (((two - one) * (three - one)).sum(1) > 0).all()


def test_voronoi_areas_are_the_shares_of_points_nearest_to_each_node() -> None:
    mesh, count = icosphere(1), 400_000
    hits = Triangulation(mesh.positions, icosphere_faces(1)).nearest(on_sphere(count)[None])[0].bincount()
    # 400,000/42 hits per cell: 1 % is one standard error.
    torch.testing.assert_close(hits.double() / hits.double().mean(), mesh.area, rtol=0.04, atol=0)


def rotations(corners: torch.Tensor) -> list[torch.Tensor]:
    """The 60 rotations of an icosahedron: those that take an edge (0, j) to any of its 60 directed edges."""
    edges = [(i, j) for i in range(12) for j in range(12) if abs(corners[i] @ corners[j] - 1 / math.sqrt(5)) < 1e-9]

    def frame(i: int, j: int) -> torch.Tensor:
        return torch.stack([corners[i], corners[j], torch.linalg.cross(corners[i], corners[j])])

    first = torch.linalg.inv(frame(*edges[0]))
    return [(first @ frame(*edge)).T for edge in edges]


def test_mesh_maps_to_itself_under_the_rotations_of_the_icosahedron() -> None:
    mesh, faces = icosphere(2), icosphere_faces(2)
    group = rotations(mesh.positions[:12])
    assert len(group) == 60
    triangles = {tuple(sorted(face)) for face in faces.tolist()}
    for rotation in group:
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
        apart = torch.cdist(mesh.positions @ rotation.T, mesh.positions)
        assert apart.amin(1).max() < 1e-7
        image = apart.argmin(1)
        assert torch.equal(image.sort().values, torch.arange(mesh.nodes))
        source, target = image[mesh.edge_index]
        code, order = (target * mesh.nodes + source).sort()
        assert torch.equal(code, mesh.edge_index[1] * mesh.nodes + mesh.edge_index[0])
        torch.testing.assert_close(mesh.edge_attr[order, -1], mesh.edge_attr[:, -1])
        torch.testing.assert_close(mesh.area[image], mesh.area)
        assert {tuple(sorted(face)) for face in image[faces].tolist()} == triangles


def test_a_point_lies_in_the_triangle_it_is_interpolated_in() -> None:
    mesh, places = icosphere(2), on_sphere(999).view(3, 333, 3)
    triangles = Triangulation(mesh.positions, icosphere_faces(2))
    corners, weight = triangles.barycentric(places)
    assert (weight >= 0).all()
    torch.testing.assert_close(weight.sum(2), torch.ones(3, 333, dtype=torch.float64))
    torch.testing.assert_close(unit((weight[..., None] * mesh.positions[corners]).sum(2)), places)
    assert (triangles.nearest(places)[..., None] == corners).any(2).all()
    at_nodes = triangles.barycentric(mesh.positions[None])
    u = torch.arange(mesh.nodes, dtype=torch.float64)[None]
    torch.testing.assert_close(at_nodes(u), u)


TWO, PAIR = torch.tensor([[0.0, 0], [1, 0]]), torch.tensor([[1.0, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: icosphere(-1), "level: expected 0 or more, got -1"),
        (lambda: knn_points(TWO, 2), "k: expected 1 ≤ k < 2, the number of points, got 2"),
        (lambda: knn_points(TWO[:1], 1), "positions: expected at least 2 points, got 1"),
        (lambda: knn_points(TWO[[0, 0]], 1), "positions: expected different points"),
        (lambda: knn_points(TWO, 1, periodic=[1.0]), "periodic: expected 2 lengths above 0, one for each axis"),
        (lambda: knn_points(TWO, 1, sphere=True), "positions: expected three coordinates on the sphere, got 2"),
        (lambda: knn_points(2 * PAIR, 1, sphere=True), "positions: expected unit vectors on the sphere"),
        (lambda: knn_points(PAIR, 1, [1.0] * 3, sphere=True), "periodic: expected None on the sphere"),
        (lambda: knn_points(torch.stack([PAIR[0], -PAIR[0]]), 1, sphere=True), "positions: expected neighbours that"),
        (lambda: radius_points(TWO, 0.0), "radius: expected above 0, got 0.0"),
        (lambda: radius_points(PAIR, 4.0, sphere=True), "radius: expected below π on the sphere, got 4.0"),
        (lambda: radius_points(TWO, 0.5), "radius: expected so large that every point has a neighbour, got 0.5"),
    ],
)
def test_bad_input_is_told(make: Callable[[], PointGraph], told: str) -> None:
    with pytest.raises(ValueError, match="expected") as error:
        make()
    assert told in str(error.value)
