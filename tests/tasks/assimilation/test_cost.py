"""The identities of the 3D-Var cost, on sizes that no transposed axis survives: B=3, n=13, p=5."""

from __future__ import annotations

import pytest
import torch

from eai.tasks.assimilation.cost import SlidesCost, VariationalCost
from eai.tasks.assimilation.covariance import Covariance, GaussianCovariance
from eai.tasks.assimilation.data import Batch, draw_positions, innovation, observe, on_grid

B, N, P, SIGMA_O = 3, 13, 5, 0.3


@pytest.fixture
def cost() -> VariationalCost:
    return VariationalCost(GaussianCovariance(N, variance=0.7, length=0.9, nugget=0.01), SIGMA_O)


@pytest.fixture
def batch(generator: torch.Generator) -> Batch:
    return random_batch(B, generator)


def random_batch(count: int, generator: torch.Generator) -> Batch:
    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    index = draw_positions(count, N, P, generator)
    return Batch(normal(count, N), normal(count, P), index, torch.ones(count, P).double(), normal(count, N))


def total(terms: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(terms.values())).sum(0)


def dense_h(index: torch.Tensor) -> torch.Tensor:
    return torch.eye(N, dtype=torch.float64)[index]


def test_cost_equals_the_explicit_formula_sample_by_sample(cost: VariationalCost, batch: Batch) -> None:
    x = batch.xt
    terms = cost(x, batch)
    for i in range(B):
        dx = x[i] - batch.xb[i]
        residual = batch.y[i] - dense_h(batch.obs_index[i]) @ x[i]
        background = 0.5 * dx @ torch.linalg.inv(cost.covariance.matrix) @ dx
        torch.testing.assert_close(terms["background"][i], background, rtol=1e-9, atol=0)
        torch.testing.assert_close(terms["observation"][i], 0.5 * residual @ residual / SIGMA_O**2)


def test_gradient_of_the_cost_vanishes_at_the_blue(cost: VariationalCost, batch: Batch) -> None:
    x = cost.minimiser(batch).requires_grad_()
    total(cost(x, batch)).sum().backward()
    away = batch.xb.clone().requires_grad_()
    total(cost(away, batch)).sum().backward()
    assert x.grad is not None
    assert away.grad is not None
    assert x.grad.abs().max() < 1e-8 * away.grad.abs().max()


def test_minimum_equals_the_cost_of_the_minimiser(cost: VariationalCost, batch: Batch) -> None:
    torch.testing.assert_close(total(cost(cost.minimiser(batch), batch)), cost.minimum(batch), rtol=1e-9, atol=0)


def test_excess_cost_is_the_distance_from_the_optimum_in_the_norm_of_the_analysis_error(
    cost: VariationalCost, batch: Batch
) -> None:
    # J(x) − J* = ½ (x−x*)ᵀ A⁻¹ (x−x*), A = (I − K H) B, so A⁻¹ = B⁻¹ + Hᵀ R⁻¹ H.
    excess = total(cost(batch.xt, batch)) - cost.minimum(batch)
    for i in range(B):
        h = dense_h(batch.obs_index[i])
        hessian = torch.linalg.inv(cost.covariance.matrix) + h.T @ h / SIGMA_O**2
        distance = batch.xt[i] - cost.minimiser(batch)[i]
        torch.testing.assert_close(excess[i], 0.5 * distance @ hessian @ distance, rtol=1e-8, atol=0)


def test_expected_minimum_is_half_the_number_of_observations(cost: VariationalCost, generator: torch.Generator) -> None:
    # 2J* is χ² with p degrees of freedom: the mean of N draws has standard deviation sqrt(2p/N).
    count = 20_000
    batch = random_batch(count, generator)
    xt = batch.xb + cost.covariance.sample(count, generator)
    noise = torch.randn(count, P, generator=generator, dtype=torch.float64)
    batch = batch._replace(xt=xt, y=observe(xt, batch.obs_index) + SIGMA_O * noise)
    assert abs(2 * cost.minimum(batch).mean() - P) < 4 * (2 * P / count) ** 0.5


def test_cost_of_a_sample_does_not_depend_on_the_batch_it_is_in(cost: VariationalCost, batch: Batch) -> None:
    whole = total(cost(batch.xt, batch))
    for i in range(B):
        alone = Batch(*(field[i : i + 1] for field in batch))
        torch.testing.assert_close(total(cost(alone.xt, alone))[0], whole[i], rtol=1e-12, atol=0)


def test_padding_changes_neither_cost_nor_minimiser(cost: VariationalCost, batch: Batch) -> None:
    padded = Batch(
        batch.xb,
        torch.cat([batch.y, torch.full((B, 2), 1e3, dtype=torch.float64)], 1),
        torch.cat([batch.obs_index, torch.zeros(B, 2, dtype=torch.int64)], 1),
        torch.cat([batch.obs_mask, torch.zeros(B, 2, dtype=torch.float64)], 1),
        batch.xt,
    )
    torch.testing.assert_close(total(cost(batch.xt, padded)), total(cost(batch.xt, batch)), rtol=1e-12, atol=0)
    torch.testing.assert_close(cost.minimiser(padded), cost.minimiser(batch), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(cost.minimum(padded), cost.minimum(batch), rtol=1e-10, atol=0)


def test_gathering_onto_the_grid_is_the_adjoint_of_observing(batch: Batch) -> None:
    # <H x, y> = <x, Hᵀ y>, also where two observations share a grid point.
    index = torch.tensor([[0, 0, 12, 5, 5]] * B)
    left = (observe(batch.xt, index) * batch.y).sum(1)
    right = (batch.xt * on_grid(batch.y, index, N)).sum(1)
    torch.testing.assert_close(left, right, rtol=1e-12, atol=0)


def test_slides_loss_is_the_printed_one_and_its_minimiser_has_zero_gradient(batch: Batch) -> None:
    loss = SlidesCost(GaussianCovariance(N, length=1.5, distance="line"), SIGMA_O)
    z = loss.minimiser(batch).requires_grad_()
    terms = loss(z, batch)
    inverse = torch.linalg.inv(loss.covariance.matrix)
    background = torch.einsum("bi,ij,bj->b", z, inverse, z).mean() / B
    observation = ((z.gather(1, batch.obs_index) - batch.y) ** 2).mean() / (SIGMA_O**2 * P)
    torch.testing.assert_close(terms["background"].mean(), background, rtol=1e-7, atol=0)
    torch.testing.assert_close(terms["observation"].mean(), observation)
    (terms["background"] + terms["observation"]).mean().backward()
    assert z.grad is not None
    assert z.grad.abs().max() < 1e-10
    # The background takes no part.
    moved = batch._replace(xb=batch.xb + 1)
    torch.testing.assert_close(loss.minimiser(moved), loss.minimiser(batch))


def test_gaussian_covariance_is_positive_definite_on_the_chord_at_many_sizes() -> None:
    for n in (8, 13, 60, 257):
        covariance = GaussianCovariance(n, nugget=1e-6)
        assert torch.linalg.eigvalsh(covariance.matrix)[0] > 0
        torch.testing.assert_close(covariance.cholesky @ covariance.cholesky.T, covariance.matrix)


def test_covariance_that_is_not_positive_definite_names_its_smallest_eigenvalue() -> None:
    angle = torch.arange(60).double() * 2 * torch.pi / 60
    apart = (angle[:, None] - angle).abs()
    along = torch.minimum(apart, 2 * torch.pi - apart)  # distance along the ring: not a valid choice
    with pytest.raises(ValueError, match=r"positive definite.*smallest eigenvalue -0\.\d"):
        Covariance(torch.exp(-(along**2) / (2 * 1.5**2)))


def test_samples_of_the_covariance_have_it(generator: torch.Generator) -> None:
    covariance = GaussianCovariance(N, nugget=0.01)
    draws = covariance.sample(40_000, generator)
    # Entries of a sample covariance have standard deviation ≤ sqrt(2) B_ii / sqrt(N) = 0.0036.
    assert (draws.T @ draws / len(draws) - covariance.matrix).abs().max() < 0.018


def test_innovation_is_zero_where_an_observation_is_padding(batch: Batch) -> None:
    mask = batch.obs_mask.clone()
    mask[:, -1] = 0
    d = innovation(batch._replace(obs_mask=mask))
    assert (d[:, -1] == 0).all()
    torch.testing.assert_close(d[:, :-1], (batch.y - batch.xb.gather(1, batch.obs_index))[:, :-1])
