"""What an analysis is trained on, what it never sees, and the nets that are trained."""

from __future__ import annotations

import pytest
import torch

from eai.core.files import read_json
from eai.core.learn.data import DataModule
from eai.systems.lorenz import Lorenz96
from eai.tasks.cycling.cycle import Cycled, cycle
from eai.tasks.cycling.data import Batch, Cycles, at
from eai.tasks.cycling.forecast import Exact
from eai.tasks.cycling.losses import Window
from eai.tasks.cycling.nets import RecurrentConvolution
from eai.variational.cost import VariationalCost
from eai.variational.covariance import GaussianCovariance
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, PointValue
from tests.runs import Train, assert_equal
from tests.tasks.cycling.cases import TINY, N, cycles, lorenz, of

TRUTH_FREE = ["innovation", "variational", "window"]


def with_random_weights(net: RecurrentConvolution) -> RecurrentConvolution:
    for number, weight in enumerate(net.parameters()):
        with torch.no_grad():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(number)))
    return net


@pytest.mark.parametrize("loss", TRUTH_FREE)
def test_no_truth_reaches_the_training_of_a_truth_free_loss(
    loss: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = (*TINY, f"loss/cycling={loss}", "data.ahead=4")
    informed = train(*overrides, run="informed")

    def blinded(self: DataModule[Batch]) -> object:
        blocks = original(self)
        samples = blocks.loader.samples
        samples.all = samples.all._replace(truth=torch.full_like(samples.all.truth, torch.nan))
        generate = samples._generate
        monkeypatch.setattr(
            samples,
            "_generate",
            lambda epoch: (b := generate(epoch))._replace(truth=torch.full_like(b.truth, torch.nan)),
        )
        return blocks

    original = Cycles.train_dataloader
    monkeypatch.setattr(Cycles, "train_dataloader", blinded)
    blind = train(*overrides, run="blind")
    weights = [torch.load(run.last, weights_only=True)["state_dict"] for run in (informed, blind)]
    assert_equal(*weights)
    assert read_json(informed.metrics) == read_json(blind.metrics)


def test_supervised_is_the_loss_that_needs_the_truth() -> None:
    data, task = of("loss/cycling=supervised")
    batch = data.batch("val")
    assert torch.isfinite(task.loss(task(batch), batch)["mse"]).all()
    blind = batch._replace(truth=torch.full_like(batch.truth, torch.nan))
    assert torch.isnan(task.loss(task(blind), blind)["mse"]).all()


def test_gradient_of_the_window_loss_is_that_of_finite_differences_and_passes_the_dot_product_test() -> None:
    system = Lorenz96(n=N)
    data = lorenz(ahead=3)
    batch = data.batch("val")
    batch = Batch(*(field.double() if field.is_floating_point() else field for field in batch))
    loss = Window(VariationalCost(GaussianCovariance(N), PointValue(), ObservationError(0.5)), steps=3)
    background = batch.truth[:, :1] + 0.3

    def cost(analysis: torch.Tensor) -> torch.Tensor:
        states = [analysis]
        for _ in range(3):
            states.append(system.step(states[-1].flatten(0, 1)).view(analysis.shape))
        made = Cycled(analysis, background, torch.stack(states[1:], 2), states[1][:, 0], analysis[:, 0, :, None])
        return torch.stack(list(loss(made, batch).values())).sum()

    point = (background + 0.1).requires_grad_()
    (gradient,) = torch.autograd.grad(cost(point), point)
    direction = torch.randn(point.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    size = 1e-5
    slope = (cost(point + size * direction) - cost(point - size * direction)) / (2 * size)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-6)

    # ⟨M' v, w⟩ = ⟨v, M'ᵀ w⟩ for the forecast's tangent and adjoint.
    state, v, w = (torch.randn(2, N, dtype=torch.float64) for _ in range(3))
    _, forward = torch.func.jvp(system.step, (state,), (v,))
    _, backward = torch.func.vjp(system.step, state)
    assert (forward * w).sum().item() == pytest.approx((v * backward(w)[0]).sum().item(), rel=1e-10)


def test_costs_of_single_analyses_pass_no_gradient_to_the_analysis_before() -> None:
    data = lorenz()
    batch = data.batch("val")
    net = with_random_weights(RecurrentConvolution(PointValue(), 6, 3))
    none = batch.start.new_zeros(len(batch.y), N, 3)

    def reaches(through_time: bool) -> bool:
        first = batch.start.clone().requires_grad_()
        made = cycle(net, Exact(data.system), batch, first, none, 3, through_time=through_time)
        (gradient,) = torch.autograd.grad(made.analysis[:, 2].sum(), first, allow_unused=True)
        return gradient is not None and bool(gradient.any())

    assert reaches(True)
    assert not reaches(False)


def test_forecasts_ahead_are_those_of_the_model() -> None:
    data = lorenz(ahead=3)
    batch, model = data.batch("val"), Exact(data.system)
    net = RecurrentConvolution(PointValue(), 4, 2)
    with torch.no_grad():
        made = cycle(net, model, batch, batch.start, batch.start.new_zeros(len(batch.y), N, 2), 4, leads=3)
    torch.testing.assert_close(made.ahead[:, :, 0], model(made.analysis.flatten(0, 1)).view_as(made.analysis))
    torch.testing.assert_close(made.background[:, 1:], made.ahead[:, :-1, 0])
    twice = model(model(made.analysis[:, 1]))
    torch.testing.assert_close(made.ahead[:, 1, 1], twice)
    torch.testing.assert_close(made.last, made.ahead[:, -1, 0])


def test_net_ignores_padding_and_the_order_of_observations() -> None:
    network = ObservationNetwork(p=7, p_min=2)
    data = lorenz(network=network, obs_error=ObservationError(0.3, sigma_max=0.9))
    batch = data.batch("val")
    net = with_random_weights(RecurrentConvolution(PointValue(), 6, 3))
    memory = torch.randn(len(batch.y), N, 3)
    observed = at(batch, 0, batch.start)
    analysis, kept = net(observed, memory)
    changed = observed._replace(y=torch.where(observed.obs_mask > 0, observed.y, 1e3))
    order = torch.randperm(7)
    slots = ("y", "obs_index", "obs_fraction", "obs_sigma", "obs_mask")
    shuffled = observed._replace(**{name: getattr(observed, name)[:, order] for name in slots})
    for other in (changed, shuffled):
        again, memory_again = net(other, memory)
        torch.testing.assert_close(again, analysis, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(memory_again, kept, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_net_is_translation_equivariant_and_works_at_any_n(kernel: int) -> None:
    net = with_random_weights(RecurrentConvolution(PointValue(), 5, 2, kernel=kernel))
    for n in (8, 16):
        data = cycles(Lorenz96(n=n))
        observed = at(data.batch("val"), 0, data.batch("val").start)
        memory = torch.randn(len(observed.y), n, 2)
        analysis, _ = net(observed, memory)
        moved = observed._replace(xb=observed.xb.roll(3, 1), y=observed.y.roll(3, 1))
        again, _ = net(moved, memory.roll(3, 1))
        torch.testing.assert_close(again, analysis.roll(3, 1), rtol=1e-4, atol=1e-4)


def test_interpolated_observations_reach_both_neighbours() -> None:
    net = RecurrentConvolution(Interpolation(), 4, 0, layers=1, kernel=1)
    data = Cycles(
        Lorenz96(n=N), ObservationNetwork(p=1, on_grid=False), Interpolation(), ObservationError(0.5), n=N,
        windows=1, window=2, n_val=1, n_test=1, steps_val=4, steps_test=4, spin_up=1, batch_size=1,
    )  # fmt: skip
    observed = at(data.batch("val"), 0, data.batch("val").start)
    increment = (net(observed, observed.xb[:, :, None][:, :, :0])[0] - observed.xb)[0]
    left = int(observed.obs_index[0, 0])
    assert set(increment.nonzero().flatten().tolist()) == {left, (left + 1) % N}
