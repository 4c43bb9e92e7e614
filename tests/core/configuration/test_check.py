"""Bad input gives one clear error that names the key, what was expected and what came, before any training."""

from __future__ import annotations

import pytest
from hydra.errors import HydraException

from eai.core.errors import ConfigError
from tests.core.configuration.prepare import prepare
from tests.runs import composed


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+typo=1"], r"^typo: unknown key"),
        (["+model.net.stepz=3"], r"^model\.net\.stepz: unknown key; did you mean 'steps'\?"),
        (["+trainer.max_epoch=3"], r"^trainer\.max_epoch: unknown key; did you mean 'max_epochs'\?"),
        (["+figures.evry=3"], r"^figures\.evry: unknown key"),
        (["data.n=abc"], r"^data\.n: expected int \| Grid, got 'abc'"),
        (["data.n=null"], r"^data\.n: expected int \| Grid, got None"),
        (["data.n=12.5"], r"^data\.n: expected int \| Grid, got 12\.5"),
        (["data.n=true"], r"^data\.n: expected int \| Grid, got True"),
        (["shared.obs_error.sigma='0.1'"], r"^[a-z_.]+\.sigma: expected float, got '0\.1'"),
        (["model.loss.precision=half"], r"^model\.[a-z_.]+\.precision: expected .*'float32', 'float64'.*got 'half'"),
        (["~data.covariance"], r"^data\.covariance|Interpolation key 'data\.covariance'"),
        (["shared/covariance=nmc"], r"^data\.covariance\.truth: expected a covariance: .*@data\.true_covariance=soar"),
        (["data.n=4"], r"^data\.n: expected at least 8, got 4"),
        (["data.network.p=61"], r"^data\.network\.p: expected p \+ withheld ≤ 60 free of 60 grid points, got 65"),
        (["shared.obs_error.sigma=-1"], r"^[a-z_.]+\.sigma: expected above 0, got -1"),
        (["data.batch_size=0"], r"^data\.batch_size: expected at least 1, got 0"),
        (["shared.covariance.n=50"], r"^data\.covariance: expected size n = 60, got 50"),
        (["shared.covariance.nugget=0"], r"^[a-z.]+\.covariance: expected a positive definite.*smallest eigenvalue"),
        (["model.net.first_guess.width=0"], r"^model\.net\.first_guess\.width: expected at least 1, got 0"),
        (["model.optimizer.lr=-1"], r"^model\.optimizer: Invalid learning rate: -1"),
        (["monitor.score=val/nix"], r"^monitor\.score: expected one of .*val/j_ratio.*, got 'val/nix'"),
        (["headline.baseline=nix"], r"^headline\.baseline: expected one of background, blue, .*got 'nix'"),
        (["monitor.mode=most"], r"^monitor\.mode: expected .*'min', 'max'.*got 'most'"),
        (["seed=-1"], r"^seed: expected 0 to 2\*\*32 - 1, got -1"),
        (["seed=4294967296"], r"^seed: expected 0 to 2\*\*32 - 1, got 4294967296"),
        (["epochs=0"], r"^epochs: expected at least 1, got 0"),
        (["validate_every_n_epochs=0"], r"^validate_every_n_epochs: expected at least 1, got 0"),
        (["accelerator.threads=0"], r"^accelerator\.threads: expected null or at least 1, got 0"),
        (["accelerator.devices=0"], r"^accelerator\.devices: expected auto or at least 1, got 0"),
        (["model/assimilation=tutorial_mlp"], r"^model\.net\.p: expected the number of observations in the data, 22"),
        (["data.network.on_grid=false"], r"^data\.operator: expected Interpolation or WindowAverage.*got 'PointValue'"),
    ],
)  # fmt: skip
def test_mistake_is_named_by_its_key(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare("task=assimilation", *overrides)


def test_graph_that_cannot_carry_the_signal_is_refused_with_both_numbers() -> None:
    with pytest.raises(ConfigError, match=r"^model\.net.*reach.*data"):
        prepare("task=dynamics", "data.speed=3.0", "data.nx=101")


@pytest.mark.parametrize("override", ["task=nix", "data.nix=3", "experiment=nix", "data/assimilation=nix"])
def test_unknown_choice_or_key_is_refused_by_hydra_with_its_name(override: str) -> None:
    with pytest.raises(HydraException, match="nix"):
        composed("train", ["task=assimilation", override])
