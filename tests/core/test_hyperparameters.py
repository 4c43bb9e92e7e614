"""The rows of TensorBoard's HParams tab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from eai.core.directory import RunDirectory
from eai.core.files import flat_keys
from eai.core.run.fit import hyperparameters
from tests.runs import TINY


def test_flat_keys_are_dotted_and_a_list_is_a_leaf() -> None:
    assert flat_keys({"a": {"b": 1, "c": {"d": [2, 3]}}, "e": None}) == {"a.b": 1, "a.c.d": [2, 3], "e": None}
    assert flat_keys({"b": 1}, "a") == {"a.b": 1}


def session(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """What TensorBoard's own plugin reads of a run: its hyper-parameters, and the tags that have a curve."""
    events = EventAccumulator(str(folder))
    events.Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    info = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    return {key: getattr(x, x.WhichOneof("kind")) for key, x in info.hparams.items()}, events.Tags()["scalars"]


def test_jobs_have_equal_keys_in_tensorboard_whatever_is_null(tmp_path: Path) -> None:
    jobs = [
        {"seed": 0, "net": {"width": 9, "dropout": None, "residual": True}, "levels": [0.1, 0.3], "clip": 0.5},
        {"seed": 1, "net": {"width": 9, "dropout": 0.2, "residual": False}, "levels": None, "clip": None},
    ]
    typed = [
        "data/recovery=block",
        "net.dropout=…",
        "+net.residual=…",
        "levels=…",
        "clip=…",
        "hydra.run.dir=x",
        "~net.a",
    ]
    rows = []
    for i, job in enumerate(jobs):
        logger = TensorBoardLogger(tmp_path, name=None, version=str(i), default_hp_metric=False)
        logger.log_hyperparams(hyperparameters(OmegaConf.create(job), typed), {"test/mse": 0.25})
        logger.finalize("success")
        rows.append(session(tmp_path / str(i))[0])
    kept = {"data/recovery": "block"}
    assert rows[0] == kept | {
        "seed": 0, "net.dropout": "null", "net.residual": True, "levels": "[0.1, 0.3]", "clip": 0.5
    }  # fmt: skip
    assert rows[1] == kept | {"seed": 1, "net.dropout": 0.2, "net.residual": False, "levels": "null", "clip": "null"}


def test_run_shows_real_scores_and_no_placeholder(trained_once: RunDirectory) -> None:
    row, tags = session(trained_once.tensorboard)
    assert row["model.net.width"] == 9.0
    # What was typed, not the sixty values of the whole configuration.
    assert row.keys() == {item.partition("=")[0] for item in TINY} | {"seed"}
    assert {"test/j_ratio", "val_best/j_ratio", "val/j_ratio"} <= set(tags)
    assert [tag for tag in tags if tag.startswith("test/")] == ["test/j_ratio"]
    assert "hp_metric" not in tags
    events = EventAccumulator(str(trained_once.tensorboard))
    events.Reload()
    (best,) = events.Scalars("val_best/j_ratio")
    assert best.value == min(point.value for point in events.Scalars("val/j_ratio"))
