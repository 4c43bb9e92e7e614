"""Nets that are not ours: plain modules, models of libraries by adapters, and the two schemes that are learned."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_geometric.nn import GraphSAGE

from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.run.finished import evaluate
from eai.tasks.dynamics.adapters import GridModel, NodeModel
from eai.tasks.dynamics.advection import Advection2D, Fourier, VariableSpeed
from eai.tasks.dynamics.burgers import Burgers, pseudo_spectral
from eai.tasks.dynamics.closure import ClosedSpectral
from eai.tasks.dynamics.forecast import rollout
from eai.tasks.dynamics.graphs import one_sided, ring
from eai.tasks.dynamics.schemes import lagrange, translate
from eai.tasks.dynamics.semi_lagrangian import SemiLagrangianNet
from eai.tasks.dynamics.spectral import SpectralNet
from tests.runs import Train, composed

B, N = 3, 13
SMALL = (
    "task=dynamics", "data.nx=13", "data.modes=2", "data.n_train=16", "data.n_val=4", "data.n_test=4",
    "data.nt_test=5", "model.leads=null", "figures.at_end=false", "epochs=2", "validate_every_n_epochs=1",
    "accelerator.threads=1",
)  # fmt: skip


def states(count: int = B, nodes: int = N, channels: int = 1) -> torch.Tensor:
    return torch.randn(count, nodes, channels, generator=torch.Generator().manual_seed(5))


def shifted(net: nn.Module, u: torch.Tensor, static: torch.Tensor, by: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The net of what is moved, and what is moved of the net."""
    return net(u.roll(by, 1), static.roll(by, 1)), net(u, static).roll(by, 1)


# Plain modules.


@pytest.fixture
def own_nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "own_nets.py").write_text(
        "from torch import nn\n"
        "class Damped(nn.Module):\n"
        "    def __init__(self, size: int = 1) -> None:\n"
        "        super().__init__()\n"
        "        self.factor = nn.Linear(size, size, bias=False)\n"
        "    def forward(self, u, static):\n"
        "        return self.factor(u)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("EAI_TRUST", "own_nets")
    yield
    sys.modules.pop("own_nets", None)


@pytest.mark.usefixtures("own_nets")
def test_plain_module_is_trained_resumed_and_evaluated(train: Train) -> None:
    run = train(*SMALL, "~model.net", "+model.net={_target_: own_nets.Damped}")
    scores = read_json(run.metrics)
    assert 0 < scores["test/nrmse/lead_01"] < 3
    _, again = evaluate(composed("evaluate", [f"run={run.path}"]))
    assert read_json(again.metrics) == scores
    train(f"resume={run.path}", "epochs=3")
    assert read_json(run.status)["epochs"] == 3


@pytest.mark.usefixtures("own_nets")
def test_module_that_gives_no_next_state_is_refused_by_its_key(train: Train) -> None:
    with pytest.raises(ConfigError, match=r"^model\.net: cannot be called with u of shape \(1, 13, 1\)"):
        train(*SMALL, "~model.net", "+model.net={_target_: own_nets.Damped, size: 2}")


# Models of libraries.


def test_graph_model_of_a_batch_is_that_of_each_sample_by_itself() -> None:
    torch.manual_seed(1)
    net = NodeModel(GraphSAGE(1, 7, 2, 1), one_sided(N, 2, 1))
    net.delta_std.fill_(0.5)
    u, none = states(), torch.zeros(B, N, 0)
    single = torch.stack([one + 0.5 * net.model(one, net.edge_index) for one in u])
    torch.testing.assert_close(net(u, none), single)
    torch.testing.assert_close(*shifted(net, u, none, 4))
    assert net.reach == (4,)


def test_one_sided_graph_receives_from_where_it_says() -> None:
    graph = one_sided(N, 2, 1)
    source, target = graph.edge_index
    assert set(((target - source + 1) % N).tolist()) == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="behind: expected at least 1"):
        one_sided(N, 0, 0)


@pytest.mark.parametrize(("shape", "layer"), [((13,), nn.Conv1d), ((5, 7), nn.Conv2d)])
def test_image_model_sees_the_grid_and_commutes_with_its_translations(shape: tuple[int, ...], layer: type) -> None:
    torch.manual_seed(1)
    convolution = layer(3, 1, 3, padding="same", padding_mode="circular")
    net = GridModel(convolution, shape, static_features=2)
    nodes = 13 if len(shape) == 1 else 35
    u, static = states(nodes=nodes), states(nodes=nodes, channels=2)
    image = torch.cat([u, static], 2).transpose(1, 2).unflatten(2, shape)
    torch.testing.assert_close(net(u, static), u + convolution(image).flatten(2).transpose(1, 2))
    if len(shape) == 1:
        torch.testing.assert_close(*shifted(net, u, static, 4))
    with pytest.raises(ValueError, match="shape: expected a grid of"):
        net(u[:, 1:], static[:, 1:])


@pytest.mark.parametrize("model", ["GAT", "GraphSAGE"])
def test_library_models_are_chosen_by_configuration_and_learn(model: str, train: Train) -> None:
    run = train(
        *SMALL, "model/dynamics=pyg", f"model.net.model._target_=torch_geometric.nn.{model}", "epochs=8",
        "model.net.model.hidden_channels=8", "model.net.model.num_layers=3", "data.n_train=64",
    )  # fmt: skip
    baselines = read_json(run.baselines)
    assert read_json(run.metrics)["test/mse"] < baselines["persistence"]["test/mse"]


def test_fourier_neural_operator_is_chosen_by_configuration_and_learns(train: Train) -> None:
    pytest.importorskip("neuralop", reason='needs the extra "operators"')
    run = train(
        *SMALL, "model/dynamics=fno", "model.net.model.n_modes=[4]", "model.net.model.hidden_channels=8", "epochs=6",
        "data.n_train=64",
    )  # fmt: skip
    baselines = read_json(run.baselines)
    assert read_json(run.metrics)["test/mse"] < baselines["persistence"]["test/mse"]


def test_model_of_a_library_that_is_absent_says_how_to_install_it(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "neuralop"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "neuralop", None)
    with pytest.raises(ConfigError, match=r"^model\.net\.model\._target_: .*pip install 'eai\[operators\]'"):
        train(*SMALL, "model/dynamics=fno")


# A Fourier layer.


@pytest.mark.parametrize(("shape", "cells"), [((13,), (1.7,)), ((5, 8), (0.6, -1.3))])
def test_factors_of_a_translation_are_its_exact_solution(shape: tuple[int, ...], cells: tuple[float, ...]) -> None:
    net = SpectralNet(shape).double()
    u = states(nodes=13 if len(shape) == 1 else 40).double()
    phase = torch.zeros(())
    for axis, (size, distance) in enumerate(zip(shape, cells, strict=True)):
        k = (torch.fft.rfftfreq if axis == len(shape) - 1 else torch.fft.fftfreq)(size, dtype=torch.float64)
        phase = phase[..., None] - 2 * torch.pi * distance * k
    # The highest mode of an even size has no phase that the grid can tell: leave it out.
    kept = torch.ones(phase.shape, dtype=torch.float64)
    for axis, size in enumerate(shape):
        if size % 2 == 0:
            kept.index_fill_(axis, torch.tensor([size // 2]), 0)
    turn = torch.exp(1j * phase) * kept
    net.factors.data = torch.view_as_real(turn)
    spectrum = torch.fft.rfftn(u[..., 0].unflatten(1, shape), dim=tuple(range(1, 1 + len(shape)))) * kept
    u = torch.fft.irfftn(spectrum, s=shape, dim=tuple(range(1, 1 + len(shape)))).flatten(1)[..., None]
    none = u.new_zeros(*u.shape[:2], 0)
    torch.testing.assert_close(rollout(net, u, none, 3), translate(u, shape, cells, 3))


def test_fourier_layer_is_at_first_persistence_and_learns_translation_to_the_precision_of_its_numbers() -> None:
    data = Advection2D(5, 7, modes=2, n_train=32, n_val=5)
    net, batch = SpectralNet((5, 7)), data.batch("train")
    u, after = batch.u[:, :-1].flatten(0, 1), batch.u[:, 1:].flatten(0, 1)
    none = u.new_zeros(*u.shape[:2], 0)
    torch.testing.assert_close(net(u, none), u)
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    for step in range(300):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 300)
        optimizer.zero_grad()
        (net(u, none) - after).square().mean().backward()
        optimizer.step()
    test = data.batch("val")
    with torch.no_grad():
        forecast = rollout(net, test.u[:, 0], test.u.new_zeros(5, 35, 0), 4)
    assert float((forecast - test.u[:, 1:5]).abs().max()) < 1e-4  # of fields of size 1


# A learned semi-Lagrangian scheme.


def learned(points: int = 4, hops: int = 2) -> SemiLagrangianNet:
    torch.manual_seed(3)
    return SemiLagrangianNet(ring(N, hops), points=points, width=5).double()


def random_weights(net: SemiLagrangianNet) -> SemiLagrangianNet:
    for part in (net.displacement, net.correction):
        nn.init.normal_(part[-1].weight, std=0.3)
    return net


def test_at_first_it_is_the_scheme_with_straight_trajectories() -> None:
    net, u = learned(), states().double()
    speed = 1 + 0.3 * states(channels=1).double()
    place = torch.arange(N, dtype=torch.float64)
    expected = lagrange(u[:, :, 0], place - speed[:, :, 0], 4)
    torch.testing.assert_close(net(u, speed)[:, :, 0], expected)


def test_it_is_linear_in_u_keeps_constants_and_is_the_same_at_every_point() -> None:
    net = random_weights(learned(6))
    u, v, speed = states().double(), states(channels=2)[..., 1:].double(), 1.4 + 0.3 * states().double()
    torch.testing.assert_close(net(2 * u - 3 * v, speed), 2 * net(u, speed) - 3 * net(v, speed))
    ones = torch.ones_like(u)
    torch.testing.assert_close(net(ones, speed), ones)
    torch.testing.assert_close(*shifted(net, u, speed, 5))


def test_equal_speeds_that_follow_each_other_are_worked_out_once_and_change_nothing() -> None:
    net = random_weights(learned())
    u, speed = states(5).double(), 1 + 0.3 * states(2).double()
    rows = torch.tensor([0, 0, 1, 1, 0])
    together = net(u, speed[rows])
    apart = torch.cat([net(u[k : k + 1], speed[row : row + 1]) for k, row in enumerate(rows.tolist())])
    torch.testing.assert_close(together, apart)


def test_correction_lies_around_the_mean_departure() -> None:
    net = learned(4)
    data = VariableSpeed(N, 2, n_train=8, speed=-0.8, variation=0.2)
    net.fit_scales(data.batch("train"))
    mean = float(net.speed_mean)
    assert mean < -1
    nn.init.constant_(net.correction[-1].bias, 0.0)
    net.correction[-1].bias.data[0] = 1.0  # of the first point; its mean is taken off all four
    u, speed = torch.zeros(N, N, 1).double(), torch.full((N, N, 1), mean).double()
    u[range(N), range(N)] = 1
    change = net(u, speed)[:, 0, 0] - lagrange(u[:, :, 0], -speed[:, :, 0], 4)[:, 0]
    touched = sorted(change.abs().gt(1e-9).nonzero().flatten().tolist())
    first = (-1 - round(mean)) % N
    assert touched == sorted((first + k) % N for k in range(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"points": 5}, "points: expected an even number"), ({"points": 14}, "points: expected at most the ring's 13"),
     ({"width": 0}, "width"), ({"static_features": 0}, "static_features: expected 1, the speed")],
)  # fmt: skip
def test_learned_scheme_refuses_what_it_cannot_be(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SemiLagrangianNet(ring(N, 2), **arguments)


def test_fourier_layer_refuses_static_features_and_another_grid() -> None:
    with pytest.raises(ValueError, match="static_features: expected 0"):
        SpectralNet((N,), static_features=1)
    with pytest.raises(ValueError, match="shape: expected a grid of 12 points"):
        SpectralNet((N,))(torch.zeros(1, 12, 1), torch.zeros(1, 12, 0))
    assert Fourier(N).shape == (N,)


# A scheme with a learned closure.


def test_closure_starts_as_the_scheme_and_keeps_mean_and_symmetry() -> None:
    torch.manual_seed(2)
    net = ClosedSpectral(1.0, 0.2, channels=5, layers=3, kernel=3).double()
    u, none = 0.3 * states().double(), torch.zeros(B, N, 0).double()
    plain = pseudo_spectral(u[:, :, 0], 1.0, 0.2, 1, finer=1)[:, 0, :, None]
    torch.testing.assert_close(net(u, none), plain)
    nn.init.normal_(net.correction[-1].weight)
    after = net(u, none)
    assert float((after - plain).detach().abs().max()) > 0.1
    torch.testing.assert_close(after.mean(1), u.mean(1))
    torch.testing.assert_close(*shifted(net, u, none, 4))


def test_scale_of_the_closure_is_the_error_of_the_scheme() -> None:
    data = Burgers(N, n_train=9, nt=4)
    net, batch = ClosedSpectral(1.0, 0.15), data.batch("train")
    net.fit_scales(batch)
    errors = [
        batch.u[:, t + 1, :, 0] - pseudo_spectral(batch.u[:, t, :, 0], 1.0, 0.15, 1, finer=1)[:, 0] for t in range(3)
    ]
    assert float(net.error_std) == pytest.approx(float(torch.stack(errors).std()), rel=1e-4)


@pytest.mark.parametrize(("name", "value"), [("kernel", 4), ("layers", 1), ("channels", 0), ("cells", 0.0)])
def test_closure_refuses_what_it_cannot_be(name: str, value: float) -> None:
    arguments: dict[str, Any] = {"cells": 1.0, "diffusion": 0.1, name: value}
    with pytest.raises(ValueError, match=f"{name}: expected"):
        ClosedSpectral(**arguments)
