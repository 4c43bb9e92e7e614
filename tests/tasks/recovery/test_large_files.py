"""A file that is larger than the memory a training may take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import netCDF4
import numpy as np
import pytest

STEPS, NY, NX = 1000, 1024, 1024  # 4.2 GB of float32


def write_large(path: Path) -> None:
    """Random weather at coarse scale, each step an enlargement; compressed on the disk, 4 GB when it is read."""
    generator = np.random.default_rng(0)
    with netCDF4.Dataset(path, "w") as file:
        for name, size, units in (("lat", NY, "degrees_north"), ("lon", NX, "degrees_east")):
            file.createDimension(name, size)
            file.createVariable(name, "f4", (name,))[:] = np.linspace(0, 60, size)
            file[name].units = units
        file.createDimension("time", STEPS)
        file.createVariable("time", "f8", ("time",))[:] = np.arange(STEPS)
        file["time"].units = "days since 2001-01-01"
        values = file.createVariable(
            "sst", "f4", ("time", "lat", "lon"), chunksizes=(1, NY, NX), compression="zlib", complevel=1
        )
        values.units = "K"
        for step in range(STEPS):
            values[step] = np.kron(generator.normal(290, 1, (NY // 64, NX // 64)), np.ones((64, 64))).astype(np.float32)


TRAIN = """
import resource, sys
from tests.runs import train_in
from pathlib import Path
train_in(Path(sys.argv[2]), (
    "task=recovery", "data/recovery=netcdf", "model/recovery=filling_unet", f"data.path={sys.argv[1]}",
    "data.variable=sst", "data.height=48", "data.width=48", "data.n_train=64", "data.n_val=16", "data.n_test=16",
    "model.net.channels=4", "epochs=2", "figures.at_end=false", "accelerator.threads=1",
))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_training_on_four_gigabytes_takes_less_than_one_and_a_half(tmp_path: Path) -> None:
    path = tmp_path / "large.nc"
    write_large(path)
    try:
        command = [sys.executable, "-c", TRAIN, str(path), str(tmp_path / "run")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
        assert done.returncode == 0, done.stderr
        peak = int(done.stdout.split("peak ")[1])
        assert peak < 1.5e9, f"{peak / 1e9:.2f} GB"
    finally:
        path.unlink()
