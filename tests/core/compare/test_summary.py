"""What a sweep keeps after every job: summary.csv and summary.png."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image

from eai.core.compare.figure import sweep_figure
from eai.core.compare.leaderboard import leaderboard
from eai.core.compare.records import read_records
from eai.core.compare.summary import write_summary
from eai.core.compare.table import comparisons
from eai.core.files import write_json
from tests.core.compare.fake_runs import fake_run, rows_below, sweep_json


def test_half_written_and_foreign_directories_are_left_out(tmp_path: Path) -> None:
    fake_run(tmp_path / "good", value=0.3)
    foreign = {"empty": "", "list": "[1, 2]", "other": '{"status": "ok"}', "cut": '{"state": "RUN'}
    for name, text in foreign.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "status.json").write_text(text)
    broken = fake_run(tmp_path / "broken", value=0.4, width=3)
    (broken / "config.yaml").write_text("a: [1, 2\n")
    (broken / "metrics.json").write_text('{"test')
    (tmp_path / "started").mkdir()
    write_json(tmp_path / "started" / "status.json", {"state": "FAILED", "reason": "ConfigError: no config yet"})
    assert {Path(row["run"]).name for row in rows_below(tmp_path)} == {"good", "broken", "started"}
    assert f"FAILED  {tmp_path}/started: ConfigError: no config yet" in leaderboard([tmp_path])
    write_summary(tmp_path)
    assert (tmp_path / "summary.csv").read_text().count("\n") == 1 + 3 + 3


def test_jobs_come_in_the_order_of_their_numbers_and_evaluations_are_left_out(tmp_path: Path) -> None:
    for name in ("10", "2", "x/b", "x/a"):
        fake_run(tmp_path / name)
    fake_run(tmp_path / "2" / "evaluations" / "now")
    names = [str(record.path.relative_to(tmp_path)) for record in read_records([tmp_path])]
    assert names == ["2", "10", "x/a", "x/b"]  # all started at the same time


def test_summary_is_the_csv_and_a_figure_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    for i, lr in enumerate((1e-2, 1e-3, 1e-4)):
        fake_run(tmp_path / str(i), lr=lr, value=lr * 3)
    sweep_json(tmp_path, "model.optimizer.lr")
    write_summary(tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text())))
    assert [(row["method"], row["lr"]) for row in rows[:3]] == [
        ("model", "0.0001"),
        ("model", "0.001"),
        ("model", "0.01"),
    ]
    assert float(rows[0]["score_mean"]) == pytest.approx(3e-4)
    with Image.open(tmp_path / "summary.png") as image:
        assert image.format == "PNG"
    assert {path.name for path in tmp_path.iterdir()} == {
        "0", "1", "2", "sweep.json", "summary.csv", "summary.png", "report.html",
    }  # fmt: skip


def test_summary_never_raises_and_a_failing_figure_leaves_the_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_summary(tmp_path / "nowhere")
    write_summary(tmp_path)
    assert list(tmp_path.iterdir()) == []
    for i in (3, 5):
        fake_run(tmp_path / str(i), width=i)

    def broken(_: object) -> Figure:
        raise RuntimeError("no ink")

    monkeypatch.setattr("eai.core.compare.several.sweep_figure", broken)
    write_summary(tmp_path, last=True)
    assert (tmp_path / "summary.csv").is_file()
    assert not (tmp_path / "summary.png").exists()
    assert (tmp_path / "report.html").is_file()
    assert "no ink" in caplog.text


def test_summaries_written_at_the_same_time_end_with_all_runs(tmp_path: Path) -> None:
    def job(i: int) -> None:
        fake_run(tmp_path / str(i), lr=10.0**-i, value=float(i + 1), baselines={})
        write_summary(tmp_path)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(job, range(7)))
    rows = list(csv.DictReader(io.StringIO((tmp_path / "summary.csv").read_text())))
    assert [float(row["score_mean"]) for row in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_summary_imports_neither_torch_nor_lightning(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    for i in (3, 5):
        fake_run(tmp_path / str(i), width=i)
    code = (
        "import sys; from pathlib import Path; from eai.core.compare.summary import write_summary;"
        "write_summary(Path(sys.argv[1])); assert not {'torch', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code, str(tmp_path)], check=True, env=clean_environment)
    assert (tmp_path / "summary.png").is_file()


def panels(folder: Path) -> dict[str, Any]:
    figure = sweep_figure(comparisons(read_records([folder])))
    assert figure is not None
    return {axis.get_xlabel(): axis for axis in figure.axes if axis.axison}


def test_figure_has_a_panel_for_each_swept_parameter_and_none_for_the_seed(tmp_path: Path) -> None:
    jobs = [(lr, kind, seed) for lr in (1e-4, 1e-3, 1e-2) for kind in ("relu", "tanh") for seed in (0, 1, 2)]
    for i, (lr, kind, seed) in enumerate(jobs):
        model = {"optimizer": {"lr": lr}, "net": {"activation": kind}}
        state = "FAILED" if (lr, seed) == (1e-2, 1) else "COMPLETED"
        fake_run(tmp_path / str(i), seed=seed, value=lr * 100 + seed, model=model, state=state)
    sweep_json(tmp_path, "model.optimizer.lr", "seed", "model.net.activation")
    found = panels(tmp_path)
    assert found.keys() == {"model.optimizer.lr", "model.net.activation"}
    axis = found["model.optimizer.lr"]
    assert (axis.get_xscale(), axis.get_ylabel()) == ("log", "val/nrmse")
    assert [text.get_text() for text in found["model.net.activation"].get_xticklabels()] == ["relu", "tanh"]
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    assert len(handles["job"].get_offsets()) == 16
    assert len(handles["FAILED job"].get_offsets()) == 2
    assert handles["median"].get_xydata()[:, 1] == pytest.approx([1.01, 1.1, 2.0])


def test_figure_shows_the_seed_if_nothing_else_was_swept(tmp_path: Path) -> None:
    for seed in (4, 5, 6):
        fake_run(tmp_path / str(seed), seed=seed, value=0.2 + seed)
    assert panels(tmp_path).keys() == {"seed"}
    (axis,) = panels(tmp_path).values()
    assert [text.get_text() for text in axis.get_xticklabels()] == ["4", "5", "6"]


def test_figure_draws_references_in_the_same_score_only(tmp_path: Path) -> None:
    for i in (3, 5):
        fake_run(tmp_path / "same" / str(i), width=i, value=1.0 + i / 10)
        fake_run(tmp_path / "other" / str(i), task="recovery", width=i, baselines={"input": 1.2})
    labels = {
        name: next(iter(panels(tmp_path / name).values())).get_legend_handles_labels()[1] for name in ("same", "other")
    }
    assert {"persistence, baseline on test data", "reference, optimum on test data: 1e-06, off scale"} <= {
        *labels["same"]
    }
    assert not [label for label in labels["other"] if "test data" in label]


def test_figure_of_many_jobs_joins_medians_of_bins(tmp_path: Path) -> None:
    for i in range(61):
        fake_run(tmp_path / str(i), lr=10 ** (-4 + i / 20), value=1.0 + i)
    (axis,) = panels(tmp_path).values()
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    medians = handles["median (bins of equal count)"].get_xydata()
    assert len(medians) == 8
    assert (medians[1:] > medians[:-1]).all()
