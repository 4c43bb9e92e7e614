"""Run directories of a few small files, as trainings leave them, without a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from eai.core.compare.records import read_records
from eai.core.compare.table import Comparison, comparisons, leaderboard_frame
from eai.core.files import write_json

TASKS: dict[str, dict[str, Any]] = {
    "dynamics": {
        "monitor": {"score": "val/nrmse", "mode": "min"},
        "headline": {"score": "test/nrmse", "baseline": "persistence", "optimum": "reference"},
    },
    "recovery": {
        "monitor": {"score": "val/mse", "mode": "min"},
        "headline": {"score": "test/psnr_pooled", "baseline": "input", "optimum": None},
    },
}


def fake_run(
    path: Path,
    *,
    task: str = "dynamics",
    seed: int = 0,
    lr: float = 0.01,
    width: int = 9,
    data_seed: int = 0,
    value: float | None = 0.5,
    tested: float | None = None,
    state: str = "COMPLETED",
    baselines: Mapping[str, float] | None = None,
    costs: Mapping[str, float] | None = None,
    errors: Mapping[str, float] | None = None,
    overrides: tuple[str, ...] = (),
    **more: Any,
) -> Path:
    """The small files of a run directory, as a finished training leaves them."""
    path.mkdir(parents=True)
    config = TASKS[task] | {
        "task": task,
        "seed": seed,
        "epochs": 3,
        "trainer": {"max_epochs": 3},
        "figures": {"at_end": True},
        "data": {"_target_": "eai.tasks.fake.Waves", "n": 13, "seed": data_seed},
        "model": {
            "_target_": "eai.tasks.fake.Task",
            "optimizer": {"_target_": "torch.optim.Adam", "lr": lr},
            "net": {"width": width},
        },
    }
    config |= {key: config.get(key, {}) | node if isinstance(node, dict) else node for key, node in more.items()}
    (path / "config.yaml").write_text(yaml.safe_dump(config))
    if overrides:
        (path / ".hydra").mkdir()
        (path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    monitored = {**config["monitor"], "value": value}
    done = {"monitored": monitored, "parameters": 117, "train_seconds": 7.0} if state == "COMPLETED" else {}
    reason = {"reason": "NonFiniteLossError: train/loss became nan in epoch 2, step 11"} if state == "FAILED" else {}
    write_json(path / "status.json", {"state": state, "started": f"2025-01-01T00:00:{seed:02d}", **done, **reason})
    if state == "COMPLETED" and value is not None:
        score = config["headline"]["score"]
        write_json(path / "metrics.json", {score: value * 2 if tested is None else tested})
        scores = {"persistence": 1.5, "upwind": 0.7, "reference": 1e-6} if baselines is None else baselines
        write_json(path / "baselines.json", {name: {score: x} for name, x in scores.items()})
    for name, per_method, key in (
        ("measurements", costs, "seconds_per_sample"),
        ("standard_errors", errors, config["headline"]["score"]),
    ):
        if per_method is not None:
            write_json(path / f"{name}.json", {method: {key: value} for method, value in per_method.items()})
    return path


def sweep_json(folder: Path, *swept: str) -> None:
    write_json(folder / "sweep.json", {"overrides": [], "swept": list(swept)})


def rows_below(folder: Path, role: str | None = "model") -> list[dict[str, Any]]:
    rows = leaderboard_frame(read_records([folder])).to_dict("records")
    return [{str(k): v for k, v in row.items()} for row in rows if role in (None, row["role"])]


def table_below(folder: Path) -> Comparison:
    (table,) = comparisons(read_records([folder]))
    return table
