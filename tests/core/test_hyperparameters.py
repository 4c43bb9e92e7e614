"""The rows of TensorBoard's HParams tab."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata, plugin_data_pb2

from eai.core.directory import RunDirectory
from eai.core.files import flat_keys, read_json, write_json
from eai.core.run.board import hyperparameters
from eai.tasks.assimilation.task import Assimilation
from tests.runs import TINY, train_in


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
        logger.log_hyperparams(
            hyperparameters(OmegaConf.create(job), typed, RunDirectory(tmp_path / str(i))), {"test/mse": 0.25}
        )
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
    assert [tag for tag in tags if tag.startswith(("test/", "val_best/"))] == ["test/j_ratio", "val_best/j_ratio"]
    assert "hp_metric" not in tags
    events = EventAccumulator(str(trained_once.tensorboard))
    events.Reload()
    (best,) = events.Scalars("val_best/j_ratio")
    assert best.value == min(point.value for point in events.Scalars("val/j_ratio"))


def test_in_a_sweep_only_what_varies_is_shown(tmp_path: Path) -> None:
    write_json(tmp_path / "sweep.json", {"swept": ["net.width", "model/recovery"]})
    cfg = OmegaConf.create({"seed": 3, "net": {"width": 9}, "epochs": 2})
    typed = ["net.width=9", "epochs=2", "model/recovery=vae"]
    assert hyperparameters(cfg, typed, RunDirectory(tmp_path / "job")) == {"net.width": 9, "model/recovery": "vae"}


def test_score_stands_beside_its_baseline_and_optimum_and_pace_has_curves(trained_once: RunDirectory) -> None:
    events = EventAccumulator(str(trained_once.tensorboard))
    events.Reload()
    validations = [point.step for point in events.Scalars("val/j_ratio")]
    optimum, background = (events.Scalars(f"val/reference/{name}") for name in ("blue", "background"))
    assert [point.step for point in optimum] == [0, *validations]
    assert [point.value for point in optimum] == pytest.approx([1.0] * len(optimum), abs=1e-6)  # J* over itself
    (value,) = {point.value for point in background}
    assert value > 10  # a background's cost is far from the minimum
    epochs = len(events.Scalars("train/loss"))
    for name in ("gradient_norm", "samples_per_second", "learning_rate"):
        points = events.Scalars(f"train/pace/{name}")
        assert len(points) == epochs
        assert min(point.value for point in points) >= 0  # a schedule may end at 0
        assert points[0].value > 0
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]
             if tag.startswith("run/")}  # fmt: skip
    assert "eai-train" in texts["run/command/text_summary"]
    assert "    task: assimilation" in texts["run/configuration/text_summary"]
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    charts = layout_pb2.Layout.FromString(layout).category[0].chart
    assert [list(chart.multiline.tag) for chart in charts[:4]] == [
        ["^val/j_ratio$", "^val/reference/blue$"],
        ["^val/j_ratio$", "^val/reference/pcg_8_tuned$"],
        ["^val/j_ratio$", "^val/reference/background$"],
        ["^train/loss$", "^val/loss$"],
    ]
    assert charts[0].title == "J/J*: network and exact minimum"
    terms = [name for name in events.Tags()["scalars"] if re.search(charts[4].multiline.tag[0], name)]
    assert sorted(terms) == ["train/background", "train/observation"]


def test_tensorboard_has_few_tags_in_order_and_metrics_have_all(trained_once: RunDirectory) -> None:
    tags = session(trained_once.tensorboard)[1]
    groups = sorted({tag.partition("/")[0] for tag in tags})
    assert groups == ["test", "train", "val", "val_best"]
    scores = {tag.removeprefix("val/") for tag in tags if tag.startswith("val/") and "reference" not in tag}
    assert scores == {"loss", "background", "observation", *Assimilation.watched}
    everything = {key.removeprefix("test/") for key in read_json(trained_once.metrics)}
    assert len(everything) > 20
    assert set(Assimilation.watched) < everything


def test_figures_in_tensorboard_say_what_to_see(trained_once: RunDirectory) -> None:
    events = EventAccumulator(str(trained_once.tensorboard))
    events.Reload()
    captions = read_json(trained_once.figures / "captions.json")
    assert sorted(events.PluginTagToContent("images")) == sorted(f"views/{name}" for name in captions)
    for name, caption in captions.items():
        assert events.SummaryMetadata(f"views/{name}").display_name == caption


def test_data_whose_configuration_leaves_the_batch_size_to_them_are_trained_on(tmp_path: Path) -> None:
    run = train_in(tmp_path / "run", [*TINY, "~data.batch_size"])
    events = EventAccumulator(str(run.tensorboard))
    events.Reload()
    assert events.Scalars("train/pace/samples_per_second")


def test_what_tensorboard_shows_changes_nothing(tmp_path: Path) -> None:
    with_board, without = train_in(tmp_path / "a", TINY), train_in(tmp_path / "b", [*TINY, "logger=none"])
    assert read_json(with_board.metrics) == read_json(without.metrics)
    assert not without.tensorboard.exists()
