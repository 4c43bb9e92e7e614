"""Runs grouped over seeds, ranked, beside their baselines; the summary that a sweep keeps."""

from __future__ import annotations

import csv
import io
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from matplotlib.figure import Figure
from PIL import Image

from eai.core.arguments import compare_overrides
from eai.core.command import CONFIG_DIR
from eai.core.comparison import row_of_run
from eai.core.grouping import Comparison, comparisons, short_names
from eai.core.leaderboard import flat_rows, leaderboard, write_summary
from eai.core.records import find_runs, read_records
from eai.core.references import references
from eai.core.rundir import RunDirectory, read_json, write_json
from eai.core.sweep_figures import sweep_figure

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
    return path


def sweep_json(folder: Path, *swept: str) -> None:
    write_json(folder / "sweep.json", {"overrides": [], "swept": list(swept)})


def rows_below(folder: Path, role: str = "model") -> list[dict[str, Any]]:
    return [row for row in flat_rows(read_records([folder]))[1] if row["role"] == role]


def table_below(folder: Path) -> Comparison:
    (table,) = comparisons(read_records([folder]))
    return table


def test_seeds_of_one_configuration_are_one_row_with_mean_and_sample_standard_deviation(tmp_path: Path) -> None:
    values = (0.31, 0.27, 0.38)
    for seed, value in enumerate(values):
        fake_run(tmp_path / str(seed), seed=seed, value=value)
    (row,) = rows_below(tmp_path)
    assert row["score_mean"] == pytest.approx(statistics.fmean(values))
    assert row["score_sd"] == pytest.approx(statistics.stdev(values))
    assert row["test_mean"] == pytest.approx(2 * statistics.fmean(values))
    assert row["test_sd"] == pytest.approx(2 * statistics.stdev(values))
    assert (row["seeds"], row["seconds"], row["parameters"], row["states"]) == (3, 7.0, 117.0, "COMPLETED")
    assert row["run"].endswith("/1")


def test_one_seed_has_no_standard_deviation(tmp_path: Path) -> None:
    fake_run(tmp_path / "0", value=0.31)
    (row,) = rows_below(tmp_path)
    assert (row["score_mean"], row["score_sd"], row["seeds"]) == (0.31, None, 1)
    assert "±" not in leaderboard([tmp_path])


def test_data_seed_separates_groups_and_cosmetic_nodes_do_not(tmp_path: Path) -> None:
    fake_run(tmp_path / "0", value=0.31)
    fake_run(tmp_path / "1", seed=1, value=0.33, figures={"at_end": False}, resume="somewhere", reporting={"every": 5})
    fake_run(tmp_path / "2", data_seed=4, value=0.35)
    rows = rows_below(tmp_path)
    assert [(row["data.seed"], row["seeds"]) for row in rows] == [(0, 2), (4, 1)]


def test_seed_that_failed_and_was_run_again_counts_once_as_completed(tmp_path: Path) -> None:
    fake_run(tmp_path / "0", seed=0, value=0.31)
    fake_run(tmp_path / "1", seed=0, state="FAILED")
    fake_run(tmp_path / "2", seed=1, value=0.35)
    (row,) = rows_below(tmp_path)
    assert (row["seeds"], row["states"]) == (2, "COMPLETED")
    assert "FAILED" not in leaderboard([tmp_path])


def test_rows_are_sorted_by_the_monitored_score_in_its_own_direction(tmp_path: Path) -> None:
    for i, value in enumerate((0.5, 0.2, 0.9)):
        fake_run(tmp_path / "min" / str(i), width=3 + 2 * i, value=value, tested=-value)
        monitor = {"score": "val/psnr", "mode": "max"}
        fake_run(tmp_path / "max" / str(i), width=3 + 2 * i, value=value, tested=-value, monitor=monitor)
    assert [row["width"] for row in rows_below(tmp_path / "min")] == [5, 3, 7]
    assert [row["width"] for row in rows_below(tmp_path / "max")] == [7, 3, 5]


def test_runs_that_know_no_monitored_score_are_sorted_by_their_test_score(tmp_path: Path) -> None:
    for i, tested in enumerate((0.5, 0.2, 0.9)):
        path = fake_run(tmp_path / str(i), width=3 + 2 * i, tested=tested)
        status = read_json(path / "status.json")
        write_json(path / "status.json", {key: status[key] for key in ("state", "started")})
    assert [row["width"] for row in rows_below(tmp_path)] == [5, 3, 7]
    assert "sorted by test/nrmse (lowest first)" in leaderboard([tmp_path])


def test_values_that_are_not_finite_are_unknown_and_sorted_last(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "0", width=3)
    text = (path / "status.json").read_text().replace("0.5", "NaN")
    (path / "status.json").write_text(text)
    fake_run(tmp_path / "1", width=5, value=7.0)
    rows = rows_below(tmp_path)
    assert [(row["width"], row["score_mean"]) for row in rows] == [(5, 7.0), (3, None)]
    json.dumps(rows, allow_nan=False)


def test_columns_are_what_was_swept_and_not_its_copies_in_the_resolved_configuration(tmp_path: Path) -> None:
    for i, epochs in enumerate((3, 5)):
        for j, lr in enumerate((1e-2, 1e-3)):
            run = fake_run(
                tmp_path / f"{i}{j}", lr=lr, value=lr + epochs, epochs=epochs, trainer={"max_epochs": epochs}
            )
            assert run.is_dir()
    assert set(table_below(tmp_path).keys) == {"epochs", "model.optimizer.lr"}
    sweep_json(tmp_path, "trainer.max_epochs", "model.optimizer.lr", "seed", "model.net.width")
    assert table_below(tmp_path).keys == ("trainer.max_epochs", "model.optimizer.lr")


def test_swept_group_is_shown_by_the_option_chosen_and_never_hides_another_difference(tmp_path: Path) -> None:
    for i, option in enumerate(("waves", "fronts")):
        for width in (3, 5):
            data = {"_target_": f"eai.tasks.fake.{option.title()}", "length": i, "speed": i + 2}
            fake_run(tmp_path / f"{option}{width}", width=width, data=data, overrides=(f"data/dynamics={option}",))
    sweep_json(tmp_path, "data/dynamics", "task")
    table = table_below(tmp_path)
    assert table.keys == ("data/dynamics", "model.net.width")
    assert {(row["data"], row["width"]) for row in rows_below(tmp_path)} == {
        ("waves", 3), ("waves", 5), ("fronts", 3), ("fronts", 5)
    }  # fmt: skip


def test_name_of_a_column_is_the_shortest_tail_that_is_unambiguous() -> None:
    keys = ["model.optimizer.lr", "model.net.width", "model.encoder.width", "model.net._target_", "shared/covariance",
            "data/recovery", "data.seed", "model.loss.score"]  # fmt: skip
    assert list(short_names(keys, ["recovery"], {"score", "seed"}).values()) == [
        "lr", "net.width", "encoder.width", "net", "covariance", "data", "data.seed", "loss.score"
    ]  # fmt: skip


def test_baselines_follow_sorted_by_their_test_score_and_say_which_is_to_beat(tmp_path: Path) -> None:
    for seed in range(3):
        fake_run(tmp_path / str(seed), seed=seed)
    rows = flat_rows(read_records([tmp_path]))[1]
    assert [(row["role"], row["method"], row["test_mean"], row["seeds"]) for row in rows[1:]] == [
        ("optimum", "reference", pytest.approx(1e-6), 3),
        ("baseline", "upwind", pytest.approx(0.7), 3),
        ("baseline to beat", "persistence", pytest.approx(1.5), 3),
    ]


def test_direction_of_another_headline_score_is_learned_from_the_methods(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "0", task="recovery", value=0.01, tested=20.0)
    write_json(path / "metrics.json", {"test/psnr_pooled": 20.0, "test/mse": 0.01})
    scores = {"input": (15.0, 0.03), "median": (17.0, 0.02), "mean": (8.0, 0.16)}
    pairs = {name: {"test/psnr_pooled": psnr, "test/mse": mse} for name, (psnr, mse) in scores.items()}
    write_json(path / "baselines.json", pairs)
    assert table_below(tmp_path).test_mode == "max"
    assert [row.name for row in references(table_below(tmp_path))] == ["median", "input", "mean"]


def test_baselines_are_averaged_over_seeds_but_never_over_different_test_data(tmp_path: Path) -> None:
    for n, better in ((13, 0.0), (17, 0.2)):
        for seed in (0, 1):
            scores = {"persistence": 1.5 - better, "fitted": 0.5 + 0.1 * seed - better, "reference": 1e-6}
            for width in (3, 5):
                path = tmp_path / f"{n}-{seed}-{width}"
                fake_run(path, seed=seed, width=width, data={"n": n}, baselines=scores, value=better + width)
    found = {(row["method"], row["n"]): row for row in flat_rows(read_records([tmp_path]))[1] if row["role"] != "model"}
    assert found.keys() == {
        ("persistence", 13), ("persistence", 17), ("fitted", 13), ("fitted", 17), ("reference", None)
    }  # fmt: skip
    assert found["fitted", 17]["test_mean"] == pytest.approx(0.35)
    assert found["fitted", 17]["test_sd"] == pytest.approx(statistics.stdev((0.3, 0.4)))
    assert found["fitted", 17]["width"] is None
    assert found["persistence", 13]["test_mean"] == pytest.approx(1.5)


def test_baseline_that_depends_on_the_model_has_a_row_per_group(tmp_path: Path) -> None:
    for width, score in ((3, 0.9), (5, 0.8)):
        fake_run(tmp_path / str(width), width=width, baselines={"persistence": 1.5, "descent": score})
    rows = [(row.name, row.score.mean, row.parameters) for row in references(table_below(tmp_path))]
    assert rows == [
        ("descent", 0.8, {"model.net.width": 5}), ("descent", 0.9, {"model.net.width": 3}), ("persistence", 1.5, {})
    ]  # fmt: skip


def test_failed_runs_are_counted_in_their_group_and_listed_with_their_reason(tmp_path: Path) -> None:
    fake_run(tmp_path / "0", seed=0, value=0.3)
    fake_run(tmp_path / "1", seed=1, value=0.5)
    fake_run(tmp_path / "2", seed=2, state="FAILED")
    write_json(tmp_path / "2" / "metrics.json", {"test/nrmse": 99.0})
    (row,) = rows_below(tmp_path)
    assert (row["seeds"], row["states"], row["test_mean"]) == (2, "2 of 3, 1 FAILED", pytest.approx(0.8))
    lines = leaderboard([tmp_path]).splitlines()
    assert lines[-1] == f"FAILED  {tmp_path}/2: NonFiniteLossError: train/loss became nan in epoch 2, step 11"


def test_every_task_has_its_own_table(tmp_path: Path) -> None:
    fake_run(tmp_path / "0", task="recovery")
    fake_run(tmp_path / "1", task="dynamics")
    text = leaderboard([tmp_path])
    assert text.index("dynamics, sorted by val/nrmse") < text.index("recovery, sorted by val/mse")
    assert [row["task"] for row in rows_below(tmp_path)] == ["dynamics", "recovery"]


def test_narrow_terminal_folds_cells_and_loses_no_digit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    for seed in range(3):
        fake_run(tmp_path / str(seed), seed=seed, value=0.123 + 0.01 * seed, lr=0.00317, width=1379)
        fake_run(tmp_path / f"1{seed}", seed=seed, value=0.223 + 0.01 * seed, lr=0.01, width=3)
    text = leaderboard([tmp_path])
    table = text[text.index("┏") : text.index("┘")]
    assert "…" not in table
    assert all(digits in table for digits in ("1379", "0.133", "± 0.01"))


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
    assert [Path(row["run"]).name for row in rows_below(tmp_path)] == ["good", "broken", "started"]
    assert f"FAILED  {tmp_path}/started: ConfigError: no config yet" in leaderboard([tmp_path])
    write_summary(tmp_path)
    assert (tmp_path / "summary.csv").read_text().count("\n") == 1 + 3 + 3


def test_jobs_come_in_the_order_of_their_numbers_and_evaluations_are_left_out(tmp_path: Path) -> None:
    for name in ("10", "2", "x/b", "x/a"):
        fake_run(tmp_path / name)
    fake_run(tmp_path / "2" / "evaluations" / "now")
    assert [str(run.path.relative_to(tmp_path)) for run in find_runs([tmp_path])] == ["2", "10", "x/a", "x/b"]


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
    assert {path.name for path in tmp_path.iterdir()} == {"0", "1", "2", "sweep.json", "summary.csv", "summary.png"}


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

    monkeypatch.setattr("eai.core.sweep_figures.sweep_figure", broken)
    write_summary(tmp_path)
    assert (tmp_path / "summary.csv").is_file()
    assert not (tmp_path / "summary.png").exists()
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
        "import sys; from pathlib import Path; from eai.core.leaderboard import write_summary;"
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


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], []),
        (["a", "b/c", "--csv"], ["format=csv", "runs=['a','b/c']"]),
        (["--json", "--by-run"], ["format=json", "by_run=true"]),
        (["runs=a", "format=markdown"], ["runs=a", "format=markdown"]),
        (["--cfg", "job", "a"], ["--cfg", "job", "runs=['a']"]),
        (["-sc", "query=bash"], ["-sc", "query=bash"]),
        (["--help"], ["--help"]),
        (["hydra.verbose=true", "lr=0.1"], ["hydra.verbose=true", "runs=['lr=0.1']"]),
    ],
)
def test_folders_and_options_become_overrides(arguments: list[str], expected: list[str]) -> None:
    assert compare_overrides(arguments) == expected


def test_any_folder_name_survives_the_override_grammar() -> None:
    names = ["lr=0.1,width=3", "two words", "a[1]{b}(c)", "it's", "back\\slash", "end\\", "${seed}", "7", "x:y", "~t"]
    with initialize_config_dir(CONFIG_DIR):
        cfg = compose("compare", compare_overrides(names))
    assert list(cfg.runs) == names


def test_command_prints_what_the_summary_holds_and_one_row_per_run_if_asked(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    folder = tmp_path / "lr=0.1, a [b]"
    for seed in (0, 1):
        fake_run(folder / str(seed), seed=seed, value=0.3 + seed / 10)
    write_summary(folder)

    def printed(*arguments: str) -> str:
        command = [sys.executable, "-m", "eai.compare", folder.name, *arguments]
        return subprocess.run(
            command, check=True, cwd=tmp_path, env=clean_environment, capture_output=True, text=True
        ).stdout

    assert printed("--csv") == (folder / "summary.csv").read_text()
    assert json.loads(printed("--json"))[0]["score_mean"] == pytest.approx(0.35)
    assert "| model | 0.350 ± 0.071 | 0.70 ± 0.14 | 2 | 7 |" in printed("--markdown")
    assert json.loads(printed("--json", "--by-run")) == [
        row_of_run(RunDirectory(folder / str(seed))) for seed in (0, 1)
    ]


def test_a_real_run_is_a_row_with_its_baselines(trained_once: RunDirectory) -> None:
    (row,) = rows_below(trained_once.path)
    assert (row["task"], row["test"], row["seeds"]) == ("assimilation", "test/j_ratio", 1)
    assert row["test_mean"] == read_json(trained_once.metrics)["test/j_ratio"]
    assert {r["method"] for r in rows_below(trained_once.path, "optimum")} == {"blue"}
