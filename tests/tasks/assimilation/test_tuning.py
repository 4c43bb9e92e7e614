"""B and R from the innovations, and a bias that is a part of the analysis: against dense formulas and known truths."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

import eai
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.run.finished import evaluate
from eai.tasks.assimilation.data import RandomFields, Twin, in_truth
from eai.tasks.assimilation.task import Assimilation
from eai.tasks.assimilation.tuning import METHODS, Factors, desroziers, likelihood
from eai.variational.batch import Batch
from eai.variational.cost import SlidesCost, VariationalCost
from eai.variational.covariance import GaussianCovariance, SOARCovariance
from eai.variational.covariance_base import Covariance
from eai.variational.nets import IncrementMLP
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation
from eai.variational.solver import UnrolledSolver
from tests.runs import Train, composed
from tests.variational.cases import CASES, COVARIANCES, Case, N, P, dense_h, dense_r, double

TRUE_B, TRUE_R = SOARCovariance(N, 0.8, 0.9, 0.01), ObservationError(0.2)
NETWORK = ObservationNetwork(P, p_min=3, on_grid=False, withheld=1)
covariances = pytest.mark.parametrize("covariance", COVARIANCES.values(), ids=COVARIANCES.keys())


def twin(covariance: Covariance, obs_error: ObservationError, bias: float = 0.0, count: int = 3000) -> Twin:
    """Data whose truth is TRUE_B and TRUE_R, and whose cost assumes something else."""
    return Twin(
        covariance, Interpolation(), obs_error, NETWORK, RandomFields(), n=N, n_train=count, n_val=31, n_test=500,
        true_covariance=TRUE_B, true_obs_error=TRUE_R, bias=bias,
    )  # fmt: skip


def cost_of(covariance: Covariance, obs_error: ObservationError, bias_sigma: float = 0.0) -> VariationalCost:
    return VariationalCost(covariance, Interpolation(), obs_error, bias_sigma=bias_sigma)


# Rescaled covariances.


@covariances
def test_scaled_entries_are_those_of_the_rescaled_covariance_and_differentiable(covariance: Covariance) -> None:
    i, j = torch.arange(N)[:, None], torch.arange(N)[None, :]
    variance = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    length = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    entries = covariance.scaled_entries(i, j, variance, length)
    torch.testing.assert_close(entries.detach(), covariance.rescaled(1.7, 0.8).matrix, rtol=1e-12, atol=1e-12)
    assert torch.equal(covariance.rescaled(1.0, 1.0).matrix, covariance.matrix)
    (gradient,) = torch.autograd.grad(entries[0, 1:].sum(), [variance], retain_graph=True)
    # Linear in the variance, off the diagonal where a nugget may be.
    assert float(gradient) == pytest.approx(
        float(covariance.rescaled(1.0, 0.8).matrix[0, 1:].sum()), rel=1e-9, abs=1e-12
    )
    if covariance.has_length:
        (gradient,) = torch.autograd.grad(entries[0].sum(), [length])
        near, far = (covariance.rescaled(1.7, 0.8 + h).matrix[0].sum() for h in (-1e-5, 1e-5))
        assert float(gradient) == pytest.approx(float(far - near) / 2e-5, rel=1e-6)
    else:
        assert torch.equal(covariance.rescaled(1.7, 0.8).matrix, covariance.rescaled(1.7).matrix)


def test_nugget_is_not_rescaled_and_a_length_stays_on_the_ring() -> None:
    nugget = GaussianCovariance(N, 0.7, 0.9, 0.05)
    assert float(nugget.rescaled(3.0).matrix[0, 0]) == pytest.approx(3 * 0.7 + 0.05, rel=1e-12)
    whole = COVARIANCES["GaspariCohn"].rescaled(1.0, 100.0)
    assert float(whole.matrix[0, 1]) < 0.7


@covariances
def test_constant_adds_the_same_to_every_entry(covariance: Covariance) -> None:
    torch.testing.assert_close(covariance.plus_constant(0.3).matrix, covariance.matrix + 0.3, rtol=1e-12, atol=1e-12)


def test_inflation_of_r_is_that_of_its_standard_deviations() -> None:
    cost, batch = CASES["SOAR-Interpolation-correlated"]
    inflated = cost.obs_error.inflated(1.5)
    torch.testing.assert_close(inflated.matrix(batch, N), 1.5**2 * dense_r(cost.obs_error, batch))
    seen = torch.randn(batch.y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(inflated.weigh(seen, batch, N), cost.obs_error.weigh(seen, batch, N) / 1.5**2)
    assert inflated.inflated(2.0).inflation == 3.0


# Innovations.


def negative_log_likelihood(cost: VariationalCost, batch: Batch) -> float:
    """Of the innovations, sample by sample with dense matrices of the observations that are seen."""
    h, r = dense_h(cost.operator, batch), dense_r(cost.obs_error, batch) * cost.obs_error.inflation**2
    total = 0.0
    for k in range(len(batch.y)):
        seen = batch.obs_mask[k] == 1
        s = h[k] @ cost.covariance.matrix @ h[k].T + r[k]
        d = (batch.y[k] - h[k] @ batch.xb[k])[seen]
        total -= float(MultivariateNormal(torch.zeros_like(d), s[seen][:, seen]).log_prob(d))
    return total / len(batch.y)


def tuned(cost: VariationalCost, factors: Factors) -> VariationalCost:
    covariance = cost.covariance.rescaled(factors.variance, factors.length)
    return cost_of(covariance, cost.obs_error.inflated(factors.sigma_o))


def test_likelihood_finds_the_true_statistics_and_is_the_greatest() -> None:
    data = twin(SOARCovariance(N, 0.4, 0.45, 0.01), ObservationError(0.4))
    cost = cost_of(data.covariance, data.obs_error)
    factors = likelihood(cost, double(data.batch("train")))
    # 3,000 samples of 3 to 5 innovations know a variance to some √(2/6,000) = 2 %, a length and σ_o about as well.
    assert factors.variance == pytest.approx(2.0, rel=0.1)
    assert factors.length == pytest.approx(2.0, rel=0.1)
    assert factors.sigma_o == pytest.approx(0.5, rel=0.1)

    few = double(data.batch("train", 40))
    factors = likelihood(cost, few)
    least = negative_log_likelihood(tuned(cost, factors), few)
    for which, step in [(name, step) for name in Factors._fields for step in (0.97, 1.03)]:
        moved = factors._replace(**{which: getattr(factors, which) * step})
        assert negative_log_likelihood(tuned(cost, moved), few) > least


def test_desroziers_finds_the_true_statistics_where_the_length_is_right() -> None:
    data = twin(SOARCovariance(N, 0.4, 0.9, 0.01), ObservationError(0.4))
    cost = cost_of(data.covariance, data.obs_error)
    batch = double(data.batch("train"))
    factors = desroziers(cost, batch)
    assert factors.variance == pytest.approx(2.0, rel=0.1)
    assert factors.length == 1.0
    assert factors.sigma_o == pytest.approx(0.5, rel=0.1)
    # The fixed point: both sides of the two equations, from dense gains.
    right = tuned(cost, factors)
    h, r = dense_h(right.operator, batch), 0.25 * factors.sigma_o**2 * torch.eye(P + 1) * (0.4 / 0.5) ** 2
    sums = torch.zeros(4, dtype=torch.float64)
    for k in range(len(batch.y)):
        seen = batch.obs_mask[k] == 1
        hk, rk = h[k][seen], r[seen][:, seen].double()
        hbh = hk @ right.covariance.matrix @ hk.T
        d = (batch.y[k] - h[k] @ batch.xb[k])[seen]
        ab = hbh @ torch.linalg.inv(hbh + rk) @ d
        sums += torch.stack([ab @ d, hbh.trace(), (d - ab) @ d, rk.trace()])
    assert float(sums[0]) == pytest.approx(float(sums[1]), rel=1e-4)
    assert float(sums[2]) == pytest.approx(float(sums[3]), rel=1e-4)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_right_statistics_stay_as_they_are(method: object) -> None:
    data = twin(TRUE_B, TRUE_R)
    factors = method(cost_of(TRUE_B, TRUE_R), double(data.batch("train")))  # type: ignore[operator]
    assert all(factor == pytest.approx(1.0, rel=0.1) for factor in factors)


# In the task.


def task_of(data: Twin, tuning: str | None = "likelihood") -> Assimilation:
    cost = cost_of(data.covariance, data.obs_error)
    net = UnrolledSolver(cost_of(data.covariance, data.obs_error), IncrementMLP(cost, width=9), steps=2)
    return Assimilation(net, cost, torch.optim.Adam, tuning=tuning)  # type: ignore[arg-type]


def test_task_wins_back_what_wrong_statistics_lose_and_keeps_them_in_its_state() -> None:
    data = twin(SOARCovariance(N, 0.4, 0.3, 0.01), ObservationError(0.4))
    task = task_of(data)
    task.prepare(data)
    assert task.factors.variance > 1.5
    methods, batch = task.baselines(data), data.batch("test")
    error = {
        name: float((methods[name](batch) - batch.xt).square().mean().sqrt())
        for name in ("blue_untuned", "blue", "blue_truth")
    }
    assert error["blue_truth"] <= error["blue"] < error["blue_truth"] * 1.01 < error["blue_untuned"]
    # The net's own cost is the tuned one as well.
    costs = [part for part in task.modules() if isinstance(part, VariationalCost) and part is not task.untuned]
    assert len(costs) >= 3
    assert all(torch.equal(one.covariance.matrix, task.cost.covariance.matrix) for one in costs)

    again = task_of(data)
    again.load_state_dict(task.state_dict())
    assert again.factors == task.factors
    torch.testing.assert_close(again.predict(batch), task.predict(batch), rtol=0, atol=0)
    assert "blue_untuned" not in task_of(data, None).baselines(data)


def test_tuning_twice_starts_from_what_was_assumed() -> None:
    data = twin(SOARCovariance(N, 0.4, 0.3, 0.01), ObservationError(0.4), count=300)
    task = task_of(data)
    task.prepare(data)
    once = task.factors
    task.prepare(data)
    assert task.factors == once


@pytest.mark.parametrize(
    ("loss", "tuning"),
    [
        (cost_of(TRUE_B, TRUE_R, bias_sigma=0.3), "likelihood"),
        (SlidesCost(TRUE_B, Interpolation(), TRUE_R), "desroziers"),
    ],
)
def test_tuning_that_cannot_be_is_refused(loss: VariationalCost, tuning: str) -> None:
    with pytest.raises(ValueError, match="tuning: expected null"):
        Assimilation(IncrementMLP(cost_of(TRUE_B, TRUE_R), width=9), loss, torch.optim.Adam, tuning=tuning)  # type: ignore[arg-type]


def test_evaluation_of_a_tuned_run_repeats_its_scores_with_the_factors_of_its_checkpoint(train: Train) -> None:
    run = train(
        "experiment=assimilation_wrong_b", "model.tuning=likelihood", "epochs=1", "data.n_train=256", "data.n_val=16",
        "data.n_test=64", "model.net.first_guess.width=16", "model.net.steps=2", "figures.at_end=false",
    )  # fmt: skip
    factors = {name: read_json(run.measurements)["blue"][f"factor_{name}"] for name in Factors._fields}
    assert factors["length"] == pytest.approx(3.0, rel=0.2)
    assert eai.load_run(run.path).module.factors == Factors(**factors)  # type: ignore[operator, union-attr]
    _, again = evaluate(composed("evaluate", [f"run={run.path}"]))
    assert read_json(again.metrics) == read_json(run.metrics)
    # Other data do not change what the run was trained with.
    _, other = evaluate(composed("evaluate", [f"run={run.path}", "data.seed=5"]))
    assert read_json(other.measurements)["blue"]["factor_length"] == factors["length"]


# A biased background.


@pytest.mark.parametrize("case", list(CASES.values())[::5])
def test_analysis_with_a_bias_minimises_the_cost_of_state_and_bias_together(case: Case) -> None:
    cost, batch = (
        VariationalCost(case.cost.covariance, case.cost.operator, case.cost.obs_error, bias_sigma=0.6),
        case.batch,
    )
    inverse, h, r = (
        torch.linalg.inv(case.cost.covariance.matrix),
        dense_h(cost.operator, batch),
        dense_r(cost.obs_error, batch),
    )
    analysis = cost.minimiser(batch)
    bias = cost.bias(analysis, batch)
    one = torch.ones(N, dtype=torch.float64)
    for k in range(len(batch.y)):
        hr = h[k].T @ torch.linalg.inv(r[k])
        # The gradient of J(x, β) is zero in x and in β.
        top = torch.cat([inverse + hr @ h[k], -(inverse @ one)[:, None]], 1)
        bottom = torch.cat([-(one @ inverse), (one @ inverse @ one + 1 / 0.6**2)[None]])
        right = torch.cat([inverse @ batch.xb[k] + hr @ batch.y[k], -(one @ inverse @ batch.xb[k])[None]])
        both = torch.linalg.solve(torch.cat([top, bottom[None]]), right)
        torch.testing.assert_close(analysis[k], both[:N], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(bias[k], both[N], rtol=1e-6, atol=1e-6)


def test_bias_of_the_background_is_found_and_corrected() -> None:
    data = twin(TRUE_B, TRUE_R, bias=1.5)
    batch = double(data.batch("test"))
    error = (batch.xt - batch.xb).mean()
    # The standard error of the mean over 500 samples and 13 points that vary together is √(0.8/500) = 0.04.
    assert float(error) == pytest.approx(1.5, abs=0.16)
    cost = cost_of(TRUE_B, TRUE_R, bias_sigma=1.5)
    task = Assimilation(IncrementMLP(cost, width=9), cost, torch.optim.Adam)
    methods = task.baselines(data)
    assert {"blue_truth", "blue_without_bias"} <= set(methods)
    analyses: dict[str, Tensor] = {name: methods[name](batch) for name in ("blue_truth", "blue", "blue_without_bias")}
    errors = [float((x - batch.xt).square().mean()) for x in analyses.values()]
    assert errors[0] < errors[1] < errors[2]
    torch.testing.assert_close(analyses["blue_without_bias"], cost_of(TRUE_B, TRUE_R).minimiser(batch))
    unbiased = cost_of(TRUE_B, TRUE_R).minimiser(in_truth(batch, 1.5))
    torch.testing.assert_close(analyses["blue_truth"], unbiased)
    found = task.scores(batch, analyses["blue"])
    assert float(found["bias"].mean()) == pytest.approx(1.5, rel=0.35)  # drawn towards zero by its prior
    assert float(found["bias_true"].mean()) == pytest.approx(float(error))
    assert "bias" not in Assimilation(IncrementMLP(cost, width=9), cost_of(TRUE_B, TRUE_R), torch.optim.Adam).scores(
        batch, batch.xb
    )


def test_negative_prior_of_a_bias_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bias_sigma: expected 0 or more, got -0\.1"):
        cost_of(TRUE_B, TRUE_R, bias_sigma=-0.1)


def test_config_error_of_a_tuning_names_its_key(train: Train) -> None:
    with pytest.raises(ConfigError, match=r"^model\.tuning: expected"):
        train("task=assimilation", "model.tuning=guess", "epochs=1")
