"""The exponential integrator and the equations of APEBench: exact solutions, order, resolution."""

from __future__ import annotations

import math

import pytest
import torch

from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.errors import ConfigError
from eai.tasks.dynamics.equations import Equation, Semilinear, pseudo_spectral
from eai.tasks.dynamics.random_fields import band_limited, of_peak_one
from tests.runs import composed

N = 160
# As in conf/data/dynamics, with their sub-steps.
EQUATIONS = {
    "advection": (Equation(advection=4.0), 1, 1),
    "advection and diffusion": (Equation(advection=4.0, diffusion=2.0), 1, 1),
    "burgers": (Equation(convection=1.5, diffusion=0.75), 4, 8),
    "kdv": (Equation(convection=2.0, dispersion=3.5, hyperdiffusion=1.125), 2, 24),
    "ks": (Equation(convection=1.0, diffusion=-1.0, hyperdiffusion=2.25), 2, 16),
}


def fields(count: int = 3) -> torch.Tensor:
    return of_peak_one(band_limited(count, N, 5, torch.Generator().manual_seed(0)))


def test_linear_terms_are_exact() -> None:
    equation = Equation(advection=0.7, diffusion=0.4, dispersion=1.3, hyperdiffusion=0.2)
    x, k = torch.arange(N, dtype=torch.float64), 2 * math.pi * 5 / N
    got = pseudo_spectral(torch.cos(k * x)[None], equation, 9, finer=2, substeps=2)[0, -1]
    # u_t = −a u_x − δ u_xxx: cos(k x − ω t) with ω = a k − δ k³.
    omega, decay = 0.7 * k - 1.3 * k**3, 0.4 * k**2 + 0.2 * k**4
    torch.testing.assert_close(got, math.exp(-9 * decay) * torch.cos(k * x - 9 * omega))


def test_soliton_of_korteweg_and_de_vries_keeps_its_shape_and_moves_at_its_speed() -> None:
    # u_t + b (u²/2)_x + δ u_xxx = 0 has u = A sech²(√(A b/(12 δ)) (x − c t)), c = A b/3.
    b, delta, height, steps = 1.0, 3.0, 0.8, 12
    x = torch.arange(N, dtype=torch.float64) - N / 2

    def soliton(t: float) -> torch.Tensor:
        return height / torch.cosh(math.sqrt(height * b / (12 * delta)) * (x - height * b / 3 * t)).square()

    got = pseudo_spectral(soliton(0)[None], Equation(convection=b, dispersion=delta), steps, finer=2, substeps=16)[
        0, -1
    ]
    # The domain is 160 points long: the soliton is 1e-10 of its height at the ends.
    torch.testing.assert_close(got, soliton(steps), rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", ["burgers", "kdv", "ks"])
def test_integrator_is_of_fourth_order(name: str) -> None:
    equation, u = EQUATIONS[name][0], fields()
    exact = pseudo_spectral(u, equation, 4, 1, 128)[:, -1]
    coarse, fine = ((pseudo_spectral(u, equation, 4, 1, s)[:, -1] - exact).abs().max().item() for s in (8, 16))
    assert math.log2(coarse / fine) == pytest.approx(4, abs=0.4)


@pytest.mark.parametrize("name", EQUATIONS)
def test_resolution_of_the_reference_is_enough(name: str) -> None:
    equation, finer, substeps = EQUATIONS[name]
    u = fields()
    if name == "ks":
        u = pseudo_spectral(u, equation, 150, 1, 1)[:, -1]
    # Kuramoto–Sivashinsky is chaotic: what is lost in one step is what can be asked for.
    steps = 1 if name == "ks" else 30
    states = pseudo_spectral(u, equation, steps, finer, substeps)
    assert (pseudo_spectral(u, equation, steps, 2 * finer, 2 * substeps) - states).abs().max() < 1e-6


def test_kuramoto_sivashinsky_begins_on_its_attractor_and_others_with_a_peak_of_one() -> None:
    sizes = {"n_train": 2, "n_val": 1, "n_test": 1, "nt": 3, "nt_test": 3}
    ks = Semilinear(64, 3, convection=1.0, diffusion=-1.0, hyperdiffusion=2.25, warm_up=200, **sizes)
    burgers = Semilinear(64, 3, convection=1.5, diffusion=0.75, **sizes)
    assert 1.5 < ks.batch("test").u[:, 0].abs().max() < 4
    assert burgers.batch("test").u[:, 0].abs().amax() == pytest.approx(1)
    assert ks.batch("test").u.mean(2).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("+data.n_trian=3", "data.n_trian: unknown key; did you mean 'n_train'?"),
        ("data.n_train=many", "data.n_train: expected int, got 'many'"),
        ("data.hyperdiffusion=-1", "data.hyperdiffusion: expected above 0"),
        ("data.substeps=0", "data.substeps: expected at least 1, got 0"),
        ("data.device=tpu", "data.device: expected"),
    ],
)
def test_keys_that_all_random_fields_share_are_checked_as_the_others(override: str, told: str) -> None:
    from eai.core.run.build import build_data_and_task

    cfg = resolve(
        composed("train", ["task=dynamics", "data/dynamics=apebench_ks", "model/dynamics=contraction", override])
    )
    with pytest.raises(ConfigError) as error:
        build_data_and_task(cfg, check_experiment(cfg))
    assert told in str(error.value)
