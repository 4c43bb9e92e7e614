"""The reported diagnostics against independent formulas, written sample by sample and observation by observation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from eai.tasks.assimilation.data import RandomFields, Slides, Twin, in_truth
from eai.tasks.assimilation.multiplications import of_layers, of_methods
from eai.tasks.assimilation.scores import (
    analysis_diagnostics,
    departures_of_all,
    final_scores,
    ratio_by_number,
    with_fewer_observations,
)
from eai.tasks.assimilation.task import Assimilation
from eai.variational.batch import Batch
from eai.variational.cost import VariationalCost
from eai.variational.covariance import GaussianCovariance
from eai.variational.graph_net import ObservationGraphNet
from eai.variational.nets import CircularConvolution, IncrementMLP, TutorialMLP
from eai.variational.networks import ObservationNetwork
from eai.variational.observation_error import ObservationError
from eai.variational.observations import Interpolation, PointValue, PointwiseFunction, WindowAverage
from eai.variational.solver import UnrolledSolver, best_scale, conjugate_gradients
from tests.variational.cases import N, P, dense_h, dense_r, double

COST = VariationalCost(GaussianCovariance(N, 0.7, 0.9, 0.01), Interpolation(), ObservationError(0.2, sigma_max=0.6))
NETWORK = ObservationNetwork(P, p_min=2, on_grid=False, withheld=2)


def samples(count: int = 7, network: ObservationNetwork = NETWORK, **truth: object) -> Batch:
    twin = Twin(COST.covariance, COST.operator, COST.obs_error, network, RandomFields(), n=N, n_test=count, **truth)  # type: ignore[arg-type]
    return double(twin.batch("test"))


def scored(cost: VariationalCost, batch: Batch, analysis: Tensor) -> dict[str, float]:
    means = {}
    for name, item in analysis_diagnostics(cost, batch, analysis).items():
        value, weight = item if isinstance(item, tuple) else (item, torch.ones(len(analysis)))
        if weight.any():
            means[name] = float((value * weight).sum() / weight.sum())
    return final_scores(means)


@pytest.fixture(scope="module")
def batch() -> Batch:
    return samples()


@pytest.fixture(scope="module")
def analysis(batch: Batch) -> Tensor:
    return 0.3 * batch.xb + 0.7 * COST.minimiser(batch) + 0.1 * torch.sin(torch.arange(N))


def pairs(batch: Batch, analysis: Tensor, mask: Tensor) -> list[tuple[float, float, float, float, float]]:
    """(d_ob, d_oa, σ, H(x_t) − H(x_b), y − H(x_t)) of every observation that the mask marks, in plain loops."""
    h = dense_h(COST.operator, batch)
    found = []
    for b in range(len(batch.xb)):
        for k in range(batch.y.shape[1]):
            if mask[b, k] == 1:
                seen = [float(h[b, k] @ x[b]) for x in (batch.xb, analysis, batch.xt)]
                y = float(batch.y[b, k])
                found.append((y - seen[0], y - seen[1], float(batch.obs_sigma[b, k]), seen[2] - seen[0], y - seen[2]))
    return found


def test_departures_and_desroziers_scores_are_those_of_a_plain_loop(batch: Batch, analysis: Tensor) -> None:
    scores, found = scored(COST, batch, analysis), pairs(batch, analysis, batch.obs_mask)
    count = len(found)
    assert count == batch.obs_mask.sum()

    def mean(values: list[float]) -> float:
        return sum(values) / count

    o_b, o_a = [ob for ob, *_ in found], [oa for _, oa, *_ in found]
    expected = {
        "o_b_mean": mean(o_b),
        "o_b_std": math.sqrt(mean([ob**2 for ob in o_b]) - mean(o_b) ** 2),
        "o_a_mean": mean(o_a),
        "o_a_std": math.sqrt(mean([oa**2 for oa in o_a]) - mean(o_a) ** 2),
        "sigma_o": math.sqrt(mean([sigma**2 for _, _, sigma, _, _ in found])),
        "sigma_o_desroziers": math.sqrt(mean([oa * ob for ob, oa, *_ in found])),
        "sigma_b_desroziers": math.sqrt(mean([(ob - oa) * ob for ob, oa, *_ in found])),
        "sigma_b_true": math.sqrt(mean([error**2 for *_, error, _ in found])),
        "sigma_o_true": math.sqrt(mean([error**2 for *_, error in found])),
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_withheld_score_is_that_of_the_withheld_observations_alone(batch: Batch, analysis: Tensor) -> None:
    found = pairs(batch, analysis, batch.obs_withheld)
    assert len(found) == 2 * len(batch.xb)
    expected = math.sqrt(sum(oa**2 for _, oa, *_ in found) / len(found))
    assert scored(COST, batch, analysis)["o_a_withheld"] == pytest.approx(expected, rel=1e-6)
    # None where none is withheld.
    none = batch._replace(obs_withheld=torch.zeros_like(batch.obs_withheld))
    assert math.isnan(scored(COST, none, analysis).get("o_a_withheld", math.nan))


def test_cost_scores_are_those_of_dense_algebra(batch: Batch, analysis: Tensor) -> None:
    scores = scored(COST, batch, analysis)
    b, h, r = COST.covariance.matrix, dense_h(COST.operator, batch), dense_r(COST.obs_error, batch)
    totals = {"j": 0.0, "jb": 0.0, "best": 0.0, "background": 0.0, "p": 0.0, "dfs": 0.0, "variance": 0.0}
    gaps, slopes = [], [0.0, 0.0]
    for i in range(len(analysis)):
        kept = batch.obs_mask[i] == 1
        hi, ri = h[i][kept], r[i][kept][:, kept]
        d = batch.y[i][kept] - hi @ batch.xb[i]
        s = hi @ b @ hi.T + ri
        gain = b @ hi.T @ torch.linalg.inv(s)
        best = batch.xb[i] + gain @ d
        increment, residual = analysis[i] - batch.xb[i], batch.y[i][kept] - hi @ analysis[i]
        background_term = 0.5 * increment @ torch.linalg.solve(b, increment)
        totals["jb"] += float(background_term)
        totals["j"] += float(background_term + 0.5 * residual @ torch.linalg.solve(ri, residual))
        totals["best"] += float(0.5 * d @ torch.linalg.solve(s, d))
        totals["background"] += float(0.5 * d @ torch.linalg.solve(ri, d))
        totals["p"] += float(kept.sum())
        totals["dfs"] += float((hi @ gain).trace())
        totals["variance"] += float((hi @ b @ hi.T).trace())
        gaps.append(float((analysis[i] - best).square().mean()))
        for k, (dx, res) in enumerate(((increment, residual), (torch.zeros_like(increment), d))):
            gradient = torch.linalg.solve(b, dx) - hi.T @ torch.linalg.solve(ri, res)
            slopes[k] += float(gradient @ b @ gradient)
    count = len(analysis)
    expected = {
        "j_ratio": totals["j"] / totals["best"],
        "j_skill": 1 - (totals["j"] - totals["best"]) / (totals["background"] - totals["best"]),
        "chi2": 2 * totals["j"] / totals["p"],
        "dfs": totals["dfs"] / count,
        "dfs_realised": 2 * totals["jb"] / count,
        "sigma_b": math.sqrt(totals["variance"] / totals["p"]),
        "gap_to_optimum": math.sqrt(sum(gaps) / count),
        "gradient_norm": math.sqrt(slopes[0] / slopes[1]),
        "rmse_background": float((batch.xb - batch.xt).square().mean().sqrt()),
        "rmse_analysis": float((analysis - batch.xt).square().mean().sqrt()),
        "rmse_optimum": float((COST.minimiser(batch) - batch.xt).square().mean().sqrt()),
        "optimum_unconverged": 0.0,
    }
    # float32 of y and σ does not enter: the batch is double. Conditions are below 1e4.
    assert {name: scores[name] for name in expected} == pytest.approx(expected, rel=1e-8, abs=1e-12)


def test_departures_drawn_are_o_b_and_o_a_of_the_assimilated_in_this_order(batch: Batch, analysis: Tensor) -> None:
    found = pairs(batch, analysis, batch.obs_mask)
    o_b, o_a = departures_of_all(COST, batch, analysis)
    torch.testing.assert_close(o_b, torch.tensor([ob for ob, *_ in found], dtype=torch.float64))
    torch.testing.assert_close(o_a, torch.tensor([oa for _, oa, *_ in found], dtype=torch.float64))


def test_ratio_by_number_compares_with_the_optimum_of_as_many_observations(batch: Batch) -> None:
    two = with_fewer_observations(batch, 2)
    assert (two.obs_mask.sum(1) == 2).all()
    ((one, of_background), (number, of_optimum)) = ratio_by_number(
        COST, batch, {2: COST.minimiser(two), 1: batch.xb.clone()}
    )
    assert (one, number) == (1, 2)
    assert of_optimum == pytest.approx(1, abs=1e-9)
    first = with_fewer_observations(batch, 1)
    assert of_background == pytest.approx(float(COST.total(batch.xb, first).sum() / COST.minimum(first).sum()))


def test_samples_without_observations_leave_the_background_and_finite_or_no_scores(batch: Batch) -> None:
    none = batch._replace(obs_mask=torch.zeros_like(batch.obs_mask))
    torch.testing.assert_close(COST.minimiser(none), batch.xb)
    scores = scored(COST, none, COST.minimiser(none))
    assert math.isnan(scores["chi2"])
    assert math.isnan(scores["sigma_o"])
    assert scores["rmse_analysis"] == pytest.approx(scores["rmse_background"])
    torch.manual_seed(0)
    for net in (
        ObservationGraphNet(COST, width=6, layers=1, reach=1, hops=(1, 3)),
        CircularConvolution(COST, points=N, channels=6, blocks=2, kernel=3),
        IncrementMLP(COST, width=9),
        UnrolledSolver(COST, IncrementMLP(COST, width=9), steps=2),
    ):
        assert torch.isfinite(net.eval()(none)).all()


def test_coincident_observations_with_correlated_errors_are_named_in_one_clear_error() -> None:
    error = ObservationError(0.2, correlation_length=0.7)
    cost = VariationalCost(COST.covariance, PointValue(), error)
    batch = samples(3, ObservationNetwork(P))
    sigma = torch.full_like(batch.y, 0.2)
    twice = batch._replace(obs_index=torch.tensor([[4, 4, 0, 12, 7]]).expand(3, P), obs_sigma=sigma)
    for use in (cost.minimiser, lambda b: cost.total(b.xb, b), lambda b: error.draw(b, N, torch.Generator())):
        with pytest.raises(
            ValueError, match=r"^obs_error: expected a positive definite R .*no two observations at one"
        ):
            use(twice)


# A truth of its own.

WRONG = {"true_covariance": GaussianCovariance(N, 0.2, 0.5, 0.01), "true_obs_error": ObservationError(0.4, 0.9, 0.6)}


def test_truth_of_its_own_is_what_the_data_are_drawn_from_and_the_cost_is_told_the_assumed() -> None:
    batch = samples(8001, NETWORK, **WRONG)
    assert batch.obs_sigma.max() <= 0.6 + 1e-6
    assert batch.obs_sigma_true.min() >= 0.4 - 1e-6
    error = batch.xt - batch.xb
    variance = error.square().mean()
    # 13 correlated points of 8,001 samples: the variance is known to 2 %.
    assert float(variance) == pytest.approx(0.21, rel=0.05)
    noise = (batch.y - COST.operator(batch.xt, batch))[batch.obs_mask == 1]
    assert float(noise.square().mean()) == pytest.approx(float(batch.obs_sigma_true.square().mean()), rel=0.05)
    scores = scored(COST, batch, batch.xb)
    assert scores["sigma_o_true"] == pytest.approx(float(noise.square().mean().sqrt()), rel=1e-6)
    assert scores["sigma_b_true"] < 0.6 < 0.75 < scores["sigma_b"]


def test_truth_as_assumed_by_default_gives_the_same_data_as_before() -> None:
    plain, same = samples(), samples(true_covariance=COST.covariance)
    assert all(torch.equal(a, b) for a, b in zip(plain, same, strict=True))
    assert torch.equal(plain.obs_sigma, plain.obs_sigma_true)


def test_optimum_of_the_true_cost_is_the_oracle_and_beats_that_of_the_assumed_one() -> None:
    data = Twin(COST.covariance, COST.operator, COST.obs_error, NETWORK, RandomFields(), n=N, n_test=501, **WRONG)  # type: ignore[arg-type]
    task = Assimilation(IncrementMLP(COST, width=9), COST, torch.optim.Adam)
    methods, batch = task.baselines(data), data.batch("test")
    truth = VariationalCost(WRONG["true_covariance"], COST.operator, WRONG["true_obs_error"])  # type: ignore[arg-type]
    best, assumed = methods["blue_truth"](batch), methods["blue"](batch)
    torch.testing.assert_close(best, truth.minimiser(in_truth(batch)))
    # E|x* − x_t|² is the trace of A: no other linear analysis is closer.
    error = [float((x - batch.xt).square().mean()) for x in (best, assumed)]
    assert error[0] < 0.9 * error[1]
    consistent = Twin(COST.covariance, COST.operator, COST.obs_error, NETWORK, RandomFields(), n=N)
    assert "blue_truth" not in task.baselines(consistent)


def test_slides_tell_a_sigma_that_is_twice_the_true_one() -> None:
    batch = Slides(n_samples=101).batch("train")
    assert torch.equal(batch.obs_sigma, 2 * batch.obs_sigma_true)


# References and their costs.


def test_tuned_scale_is_the_best_of_its_grid_for_as_many_steps() -> None:
    batch = samples(101)
    scale = best_scale(COST, batch, 3)

    def after(scale: float) -> float:
        return float(COST.total(conjugate_gradients(COST, batch, 3, scale), batch).mean())

    assert after(scale) <= min(after(scale * math.exp(0.25)), after(scale * math.exp(-0.25)))
    assert after(scale) < after(1.0)


def test_references_have_stable_names_and_the_tuned_one_is_calibrated_on_validation_data() -> None:
    data = Twin(COST.covariance, COST.operator, COST.obs_error, NETWORK, RandomFields(), n=N, n_val=101, n_test=11)
    task = Assimilation(UnrolledSolver(COST, IncrementMLP(COST, width=9), steps=3), COST, torch.optim.Adam)
    methods, batch = task.baselines(data), data.batch("test")
    names = {"pcg_3_background", "pcg_5_background", "pcg_3_uniform", "pcg_3_tuned"}
    assert methods.keys() == {"background", "blue", "first_guess"} | names
    scale = best_scale(COST, data.batch("val"), 3)
    torch.testing.assert_close(methods["pcg_3_tuned"](batch), conjugate_gradients(COST, batch, 3, scale))
    costs = task.measure(data)
    assert methods.keys() | {"model"} <= costs.keys()
    steps = costs["model"]["multiplications"] - costs["first_guess"]["multiplications"]
    assert steps == costs["pcg_3_background"]["multiplications"]
    assert costs["pcg_5_background"]["multiplications"] > costs["pcg_3_background"]["multiplications"]


def test_multiplications_of_layers_are_their_weights_times_their_places() -> None:
    batch = samples(3, ObservationNetwork(P))
    assert of_layers(TutorialMLP(N, P), batch) == (N + 2 * P) * (N + P) ** 2 + (N + P) ** 2 * N + N * N
    assert of_layers(IncrementMLP(COST, width=9, depth=2), batch) == 2 * N * 9 + 9 * 9 + 9 * N
    convolution = CircularConvolution(COST, points=N, channels=6, blocks=2, kernel=3)
    assert of_layers(convolution, batch) == N * (3 * 6 + 2 * (3 * 6 * 6 + 6 * 6) + 6)


def test_multiplications_grow_with_what_is_multiplied() -> None:
    batch, net = samples(3, ObservationNetwork(P)), IncrementMLP(COST, width=9)
    counts = of_methods(COST, net, 4, batch)
    assert counts["background"] == 0
    assert counts["model"] == counts["first_guess"] == of_layers(net, batch)
    # n = 13, p = 5, k = 2 by hand: 2 · 13 · log₂ 13 + 13 = 109 for a product with B; 10 for H.
    gradient, step = 109 + 20 + 5, 2 * 109 + 20 + 5 + 9 * 13
    assert counts["pcg_4_background"] == gradient + 4 * step
    assert counts["blue"] == 100 + 20 + 25 + 30 + 109
    wider = VariationalCost(COST.covariance, WindowAverage(3), ObservationError(0.3, correlation_length=0.7))
    assert of_methods(wider, net, 4, batch)["blue"] > counts["blue"]
    exponential = VariationalCost(COST.covariance, PointwiseFunction(Interpolation(), "exp"), ObservationError(0.3))
    assert "blue" not in of_methods(exponential, net, 4, batch)
