"""Our reference filters beside DAPPER's, an independent library, on the same truth and the same observations."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from eai.systems.lorenz import Lorenz96
from eai.tasks.cycling.cycle import Estimate, cycle
from eai.tasks.cycling.data import Batch
from eai.tasks.cycling.ensemble import EnsembleTransform, PerturbedObservations
from eai.tasks.cycling.forecast import Exact
from eai.tasks.cycling.linear import StaticGain
from eai.tasks.cycling.references import climate
from eai.variational.observation_error import ObservationError
from tests.tasks.cycling.cases import cycles

STEPS, SPIN_UP = 1500, 300
# What DAPPER 1.7.1 imports, without the notebooks that it depends on as well.
NEEDED = ("scipy>=1.14", "numpy~=2.0", "matplotlib>=3.10", "ipython<9", "mpl-tools==0.4.1", "tqdm~=4.67",
          "colorama~=0.4.1", "tabulate~=0.8.3", "pathos~=0.3", "dill==0.3.8", "patlib==0.3.7", "struct-tools==0.2.5",
          "threadpoolctl~=3.0", "pyyaml>=6.0.2")  # fmt: skip


@pytest.fixture(scope="module")
def dapper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """Truth, observations, and RMSE of DAPPER's methods, which has an environment of its own."""
    home = tmp_path_factory.mktemp("dapper")
    python = home / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    try:
        subprocess.run([sys.executable, "-m", "venv", home / "venv"], check=True, timeout=120)
        for packages in (NEEDED, ("--no-deps", "dapper==1.7.1")):
            command = [python, "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(command, check=True, timeout=600, capture_output=True)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"DAPPER cannot be installed: {(error.stderr or b'').decode()[-300:]}")
    script = Path(__file__).with_name("dapper_run.py")
    command = [python, script, home / "run.npz", str(STEPS), str(SPIN_UP)]
    quiet = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(command, cwd=home, env=quiet, timeout=600, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    with np.load(home / "run.npz") as saved:
        return dict(saved)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_references_have_the_errors_that_dapper_has_on_the_same_observations(dapper: dict[str, np.ndarray]) -> None:
    data = cycles(Lorenz96(), obs_error=ObservationError(1.0), steps_test=STEPS - 1, n_test=1)
    truth, y = (torch.as_tensor(dapper[name]).float()[None] for name in ("truth", "observations"))
    batch = data.batch("test")._replace(truth=truth, y=y)
    model, states = Exact(data.system), climate(data)
    covariance, mean = truth[0].T.cov(), truth[0].mean(0, keepdim=True)

    def static(gain: StaticGain, background: torch.Tensor | None = None) -> Estimate:
        none = batch.start[:, :, None][:, :, :0]

        def analyse(observed, memory):  # type: ignore[no-untyped-def]
            return gain(observed if background is None else observed._replace(xb=background)), memory

        made = cycle(analyse, model, batch, batch.start, none, STEPS - 1)
        unknown = made.analysis[:, :, 0]
        return Estimate(made.analysis, made.background, made.ahead, unknown, unknown, unknown[:, 0])

    ours = {
        "optimal_interpolation": static(StaticGain(data, covariance), mean),
        "var3d": static(StaticGain(data, 0.02 * covariance)),
        "enkf": PerturbedObservations(data, model, states, 40, 1.06).run(batch, 0),
        "enkf_sqrt": EnsembleTransform(data, model, states, 24, 1.03).run(batch, 0),
    }
    for name, estimate in ours.items():
        # Mean over time of the error of each analysis, as DAPPER has it.
        error = _errors(estimate, batch)[SPIN_UP:].mean()
        # The observations are the same; the ensembles' random numbers are not, and the RMSE of a filter that has
        # no memory of them varies by 1 to 2 % over 1,200 analyses. With the published inflation of 1.013 both lose some
        # of their cycles in the long run; hence 1.03.
        assert error == pytest.approx(float(dapper[name]), rel=0.05), name


def _errors(estimate: Estimate, batch: Batch) -> np.ndarray:
    steps = estimate.analysis.shape[1]
    return (estimate.analysis - batch.truth[:, :steps])[0].square().mean(1).sqrt().numpy()
