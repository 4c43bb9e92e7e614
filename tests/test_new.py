"""``eai-new``: the package it writes is installed, trains, is compared, evaluated, swept and tested, as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eai.core.errors import ConfigError
from eai.new import main, write_package

ENVIRONMENT = ("HYDRA", "PL_", "COV", "EAI_TRUST")


def test_package_bears_its_name_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["weather_lab", "--into", str(tmp_path)])
    written = sorted(path for path in (tmp_path / "weather_lab").rglob("*") if path.is_file())
    assert tmp_path / "weather_lab" / "weather_lab" / "conf" / "experiment" / "weather_lab_first.yaml" in written
    assert not [path for path in written if "mylab" in str(path) or "mylab" in path.read_text()]
    assert "cd " + str(tmp_path / "weather_lab") in capsys.readouterr().out


@pytest.mark.parametrize("name", ["My-Lab", "1lab", "json", "torch", "class", "taken", "a/b"])
def test_name_that_cannot_be_a_package_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match=r"^name: expected"):
        write_package(name, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_new_package_is_installed_trained_compared_evaluated_swept_and_tested(tmp_path: Path) -> None:
    package, site = write_package("weather_lab", tmp_path), tmp_path / "site"
    pip = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", str(site), str(package)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(ENVIRONMENT)}
    environment |= {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}

    def run(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    run(*pip)
    said = run("-m", "eai.train", "experiment=weather_lab_first", "hydra.run.dir=first")
    assert "test/rmse ≤ 1.02 (weather_lab): reached" in said
    assert json.loads((tmp_path / "first" / "status.json").read_text())["packages"] == {"weather_lab": "0.1.0"}
    assert (tmp_path / "first" / "figures" / "errors.png").is_file()
    small = ("task=postprocessing", "epochs=1", "data.n_train=200", "figures.at_end=false")
    run("-m", "eai.train", "-m", *small, "model.net.width=3,5", "hydra.sweep.dir=sweep")
    assert "regression (baseline to beat)" in run("-m", "eai.compare", "first", "sweep")
    run("-m", "eai.evaluate", "run=first", "data.noise=2.0", "output=noisier")
    rmse = json.loads((tmp_path / "noisier" / "metrics.json").read_text())["test/rmse"]
    assert rmse == pytest.approx(2.0, rel=0.1)  # the noise that nobody can predict
    run("-m", "pytest", "-q", str(package / "tests"))
