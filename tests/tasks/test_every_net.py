"""Every net of dynamics and assimilation: in every precision, on another device, and without files left behind."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

from eai.core.cli import CONFIG_DIR
from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.learn.data import DataModule
from eai.core.learn.task import Task
from eai.core.run.build import build_data_and_task
from eai.core.schema import Experiment
from tests.runs import composed

MODELS = sorted(
    str(path.relative_to(Path(CONFIG_DIR) / "model").with_suffix(""))
    for task in ("dynamics", "assimilation")
    for path in (Path(CONFIG_DIR) / "model" / task).glob("*.yaml")
    if path.stem != "fno"  # in which precisions it works is its library's affair
)
DATA = {
    "dynamics/grid": "dynamics=advection_2d", "assimilation/tutorial_mlp": "assimilation=slides",
    "dynamics/semi_lagrangian": "dynamics=variable_speed", "dynamics/closure": "dynamics=burgers",
    "dynamics/point_contraction": "dynamics=sphere", "assimilation/planar": "assimilation=planar",
}  # fmt: skip
# Of data from a file, whose number of samples is the file's.
FILE = (
    "data/dynamics=netcdf", "data.path=package:iris_sample_data/sample_data/A1B_north_america.nc", "data.harmonics=0",
    "data.variables=[air_temperature]", "data.val_share=0.03", "data.history=1",
)  # fmt: skip
FROM_FILES = {
    "dynamics/points": (*FILE, "model.net.static_features=3", "model.net.state_channels=2"),
    "dynamics/history": (*FILE, "model.net.net.static_features=3", "model.net.net.state_channels=2"),
}
SHARED = {"assimilation/planar": ("shared/operator=interpolation", "shared/covariance=soar")}
SCORE = {"dynamics": "mse", "assimilation": "j"}


@cache
def built(model: str) -> tuple[DataModule[Any], Task[Any, Any, Any]]:
    return build_data_and_task(*configured(model))


@cache
def configured(model: str) -> tuple[DictConfig, Experiment]:
    task, name = model.split("/")
    overrides = [f"task={task}", f"model/{task}={name}"]
    overrides += [f"data/{DATA[model]}"] if model in DATA else []
    overrides += [*FROM_FILES.get(model, ()), *SHARED.get(model, ())]
    sizes = () if model in FROM_FILES else ("n_samples",) if name == "tutorial_mlp" else ("n_train", "n_val", "n_test")
    overrides += ["data.nt_test=4", "model.unroll.steps=2"] if task == "dynamics" else []
    cfg = resolve(composed("train", [*overrides, *(f"data.{size}=7" for size in sizes)]))
    return cfg, check_experiment(cfg)


def converted(batch: Any, *args: Any) -> Any:
    return type(batch)(*(f.to(*args) if f.is_floating_point() or args == ("meta",) else f for f in batch))


@pytest.fixture
def default_dtype() -> Iterator[None]:
    """Lightning changes it while a net of such a precision works."""
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("default_dtype")
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("model", MODELS)
def test_net_trains_and_scores_in_every_precision_much_as_in_float32(model: str, dtype: torch.dtype) -> None:
    data, task = built(model)
    exact = data.batch("val")
    expected = task.scores(exact, task.predict(exact))
    task, batch = deepcopy(task).to(dtype), converted(exact, dtype)
    torch.set_default_dtype(dtype)

    sum(term.mean() for term in task.loss(task(batch), batch).values()).backward()
    assert {p.grad.dtype for p in task.net.parameters() if p.grad is not None} == {dtype}

    scores = task.scores(batch, task.predict(batch))
    name = SCORE[model.split("/")[0]]
    # bfloat16 has three digits.
    tolerance = 1e-3 if dtype == torch.float64 else 0.03
    torch.testing.assert_close(scores[name].float(), expected[name].float(), rtol=tolerance, atol=tolerance)
    for method in task.baselines(data).values():
        task.scores(batch, method(batch))


# The shapes in the graph of observations depend on their masks, whose values do not exist on the meta device.
@pytest.mark.parametrize("model", [model for model in MODELS if model != "assimilation/graph"])
def test_nothing_in_net_loss_and_scores_stays_behind_on_the_cpu(model: str) -> None:
    data, task = built(model)
    batch, task = converted(data.batch("val"), "meta"), deepcopy(task).to("meta")
    terms = task.loss(task(batch), batch)
    scores = task.scores(batch, task.predict(batch))
    of = [v if isinstance(v, tuple) else (v,) for v in (*terms.values(), *scores.values())]
    assert {t.device.type for values in of for t in values} == {"meta"}


@pytest.mark.parametrize("model", MODELS)
def test_building_and_calling_a_net_leaves_no_file_behind(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data, task = build_data_and_task(*configured(model))
    task.predict(data.batch("val"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_conversion_of_a_task_leaves_the_covariance_in_float64(dtype: torch.dtype) -> None:
    _, task = built("assimilation/increment_mlp")
    matrix = deepcopy(task).to(dtype).get_submodule("cost.covariance").matrix
    assert torch.equal(matrix, task.get_submodule("cost.covariance").matrix)
