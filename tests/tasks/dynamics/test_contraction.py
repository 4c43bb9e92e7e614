"""The step whose energy cannot grow: for any weights, on any grid, beside the dense exponential of its generator."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import eai
from eai.core.files import read_json
from eai.tasks.dynamics.contraction import ContractionNet
from eai.tasks.dynamics.data import nothing_static
from eai.tasks.dynamics.forecast import rollout
from eai.tasks.dynamics.gains import gains
from eai.tasks.dynamics.graphs import Graph, grid2d, knn, multiscale, one_sided, ring
from eai.tasks.dynamics.spectral import SpectralNet
from tests.core.run.children import trained

GRAPHS = [ring(7, 2), ring(24, 5), multiscale(41, 2, 4), knn([9], 4), grid2d(5, 6, 1), grid2d(8, 7, 2)]
SIZES = [f"{graph.shape}, {graph.degree}" for graph in GRAPHS]


def net_of(graph: Graph, scale: float = 0.0, seed: int = 0, **arguments: object) -> ContractionNet:
    """A net, in float64, with weights of a standard deviation of ``scale``, or untrained."""
    torch.manual_seed(seed)
    net = ContractionNet(graph, width=6, **arguments).double()  # type: ignore[arg-type]
    if scale:
        for weight in net.parameters():
            torch.nn.init.normal_(weight, std=scale)
    return net


def states(graph: Graph, count: int = 3) -> tuple[Tensor, Tensor]:
    u = torch.randn(count, graph.nodes, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return u, u[:, :, :0]


def energy(u: Tensor) -> Tensor:
    return u.square().sum((-2, -1))


@pytest.mark.parametrize("graph", GRAPHS, ids=SIZES)
@pytest.mark.parametrize(("scale", "seed"), [(0.1, 0), (0.5, 1), (3.0, 2)])
def test_energy_of_a_rollout_never_grows_whatever_the_weights(graph: Graph, scale: float, seed: int) -> None:
    net = net_of(graph, scale, seed, conserve_mean=seed == 1)
    u, static = states(graph)
    series = torch.cat([u[:, None], rollout(net, u, static, 12)], 1).detach()
    of_time = energy(series)
    assert (of_time[:, 1:] <= of_time[:, :-1] * (1 + 1e-12)).all()


@pytest.mark.parametrize("graph", GRAPHS, ids=SIZES)
@pytest.mark.parametrize("scale", [0.3, 2.0])
def test_with_growth_a_rollout_stays_below_its_first_energy_or_the_limit(graph: Graph, scale: float) -> None:
    net = net_of(graph, scale, growth=True)
    u, static = states(graph)
    net.energy_limit.fill_(1.5)
    limit = torch.maximum(energy(u), torch.tensor(1.5 * graph.nodes))
    series = energy(rollout(net, u, static, 30).detach())
    assert (series <= limit[:, None] * (1 + 1e-12)).all()
    with torch.no_grad():
        net.linear.damping.zero_()
        net.weigh.bias[graph.degree :] = -1e4  # no diffusion
    small = rollout(net, 1e-3 * u, static, 60).detach()
    assert energy(small)[:, -1].max() > energy(1e-3 * u).max()  # waves do grow


@pytest.mark.parametrize("graph", GRAPHS, ids=SIZES)
def test_without_damping_and_diffusion_energy_is_constant(graph: Graph) -> None:
    net = net_of(graph, 0.7)
    with torch.no_grad():
        net.linear.damping.zero_()
        net.weigh.bias[graph.degree :] = -1e4  # no diffusion
    u, static = states(graph)
    assert net.edge_weights(u, static)[1].abs().max() == 0
    assert net.edge_weights(u, static)[0].abs().max() > 0.01
    after = net(u, static)
    # The Taylor series of a generator of norm 0.8 in 8 terms: amplitudes to 0.8¹⁰ · 5e-6 a sub-step, of which there are
    # at most ten here. What is too much is scaled off, what is too little shows.
    torch.testing.assert_close(energy(after), energy(u), rtol=1e-5, atol=0)


@pytest.mark.parametrize("graph", GRAPHS, ids=SIZES)
def test_linear_part_keeps_or_damps_each_wavenumber(graph: Graph) -> None:
    batch = nothing_static(states(graph, 8)[0][:, None])
    net = net_of(graph, 0.8, layers=0)
    damped = gains(lambda v, s: net(v.double(), s.double()), batch, graph.shape)
    assert damped is not None
    assert damped.gain.max() <= 1 + 1e-6
    with torch.no_grad():
        net.linear.damping.zero_()
    kept = gains(lambda v, s: net(v.double(), s.double()), batch, graph.shape)
    assert kept is not None
    # Waves are made in float32.
    torch.testing.assert_close(kept.gain, torch.ones_like(kept.gain), rtol=0, atol=1e-6)


def test_gains_are_the_factors_of_a_spectral_net_and_tell_what_training_has() -> None:
    net = SpectralNet([16])
    factors = torch.rand(9, generator=torch.Generator().manual_seed(0)) + 0.5
    with torch.no_grad():
        net.factors.copy_(torch.stack([factors.cos() * factors, factors.sin() * factors], 1))
    x = 2 * math.pi / 16 * torch.arange(16)
    u = torch.stack([torch.cos(2 * x), torch.sin(3 * x)])[:, None, :, None]
    found = gains(net, nothing_static(u), (16,))
    assert found is not None
    torch.testing.assert_close(found.gain[:-1].float(), factors[1:8], rtol=1e-4, atol=1e-5)
    assert found.seen.nonzero().flatten().tolist() == [1, 2]  # wavenumbers 2 and 3
    told = found.largest()
    assert told["largest_gain"] >= told["largest_gain_unseen"]


@pytest.mark.parametrize("graph", GRAPHS, ids=SIZES)
def test_exchange_is_antisymmetric_and_diffusion_symmetric_and_their_exponential_is_that_of_the_matrix(
    graph: Graph,
) -> None:
    net = net_of(graph, 0.6)
    u, static = states(graph, 1)
    exchanged, diffused = net.edge_weights(u, static)
    source, target = graph.edge_index
    s, d = (torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64) for _ in range(2))
    s[target, source], d[target, source] = exchanged[0].flatten(), diffused[0].flatten()
    torch.testing.assert_close(s, -s.T)
    torch.testing.assert_close(d, d.T)
    assert (d >= 0).all()
    generator = s + d - torch.diag(d.sum(1))
    expected = torch.matrix_exp(generator) @ u[0]
    torch.testing.assert_close(net._exchange(u, exchanged, diffused)[0], expected, rtol=0, atol=1e-5)


def test_linear_part_is_the_exponential_of_its_stencil() -> None:
    graph = ring(12, 3)
    net = net_of(graph, 0.4, layers=0)
    eye = torch.eye(12, dtype=torch.float64)
    offsets = [1, 2, 3]
    s = sum(a / 2 * (eye.roll(-o, 0) - eye.roll(o, 0)) for a, o in zip(net.linear.turning[0], offsets, strict=True))
    filters = [
        sum(w * (eye.roll(-o, 0) - eye) for w, o in zip(row, [*offsets, *(-o for o in offsets)], strict=True))
        for row in net.linear.damping[0]
    ]
    generator = s - sum(q.T @ q for q in filters)
    u, static = states(graph)
    torch.testing.assert_close(net(u, static), torch.matrix_exp(generator) @ u)


@pytest.mark.parametrize("graph", GRAPHS, ids=SIZES)
def test_net_commutes_with_translations(graph: Graph) -> None:
    net = net_of(graph, 0.5)
    u, static = states(graph)

    def moved(v: Tensor) -> Tensor:
        axes = list(range(1, 1 + len(graph.shape)))
        return v.unflatten(1, graph.shape).roll([2] * len(axes), axes).flatten(1, len(graph.shape))

    torch.testing.assert_close(net(moved(u), static), moved(net(u, static)), rtol=1e-9, atol=1e-9)


def test_mean_is_kept_where_asked() -> None:
    net = net_of(ring(24, 3), 0.5, conserve_mean=True)
    u, static = states(net.graph)
    u = u - u.mean(1, keepdim=True)
    assert net(u, static).mean(1).abs().max() < 1e-12


def test_gradients_are_finite_in_a_deep_net_before_training() -> None:
    net = net_of(ring(24, 3), layers=8)
    u, static = states(net.graph)
    rollout(net, u, static, 4).square().sum().backward()
    for name, weight in net.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


def test_graph_needs_an_edge_back_for_each_edge() -> None:
    with pytest.raises(ValueError, match="graph: expected an edge back for each edge"):
        ContractionNet(one_sided(9, 2))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("equation", ["advection", "advection_diffusion", "burgers", "kdv", "ks"])
def test_rollout_of_2000_steps_stays_within_ten_times_its_first_energy(equation: str, tmp_path: Path) -> None:
    short = ("epochs=12", "validate_every_n_epochs=12", "data.n_val=2", "data.n_test=4")
    cheap = ("data.finer=1", "data.substeps=2")
    run = trained(tmp_path / "run", (f"experiment=apebench_{equation}", *short, *cheap))
    loaded = eai.load_run(run.path)
    batch = loaded.data.batch("test", 4)
    first = batch.u[:, 0]
    with torch.no_grad():
        series = rollout(loaded.module.step, first, batch.static, 2000)
    assert (energy(series) <= 10 * energy(first)[:, None]).all()
    assert read_json(run.measurements)["model"]["largest_gain_unseen"] <= (1.5 if equation == "ks" else 1 + 1e-4)
