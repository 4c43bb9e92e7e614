"""Runs grouped over seeds, ranked, beside their baselines."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

from eai.core.compare.keys import short_names
from eai.core.compare.leaderboard import leaderboard
from eai.core.compare.text import summary_of_run
from eai.core.directory import RunDirectory
from eai.core.files import read_json, write_json
from tests.core.compare.fake_runs import fake_run, rows_below, sweep_json, table_below


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
    rows = rows_below(tmp_path, None)
    assert [(row["role"], row["method"], row["test_mean"], row["seeds"]) for row in rows[1:]] == [
        ("optimum", "reference", pytest.approx(1e-6), 3),
        ("strongest baseline", "upwind", pytest.approx(0.7), 3),
        ("baseline to beat", "persistence", pytest.approx(1.5), 3),
    ]


@pytest.mark.parametrize(
    ("costs", "to_beat", "strongest"),
    [
        ({"model": 2e-3, "spectral": 9e-3, "cubic": 2.1e-3, "linear": 1e-4}, "cubic", "spectral"),
        ({"model": 2e-3, "spectral": 1e-3, "cubic": 1e-3, "linear": 1e-4}, "spectral", None),
        ({"model": 1e-5, "spectral": 9e-3, "cubic": 2e-3, "linear": 1e-4}, None, "spectral"),
        ({}, "linear", "spectral"),
    ],
)
def test_baseline_to_beat_costs_no_more_than_the_network_and_is_neither_oracle_nor_optimum(
    costs: dict[str, float], to_beat: str | None, strongest: str | None, tmp_path: Path
) -> None:
    scores = {"linear": 0.9, "cubic": 0.5, "spectral": 0.1, "told": 0.01, "reference": 1e-6}
    headline = {"baseline": "linear", "oracles": ["told"]}
    for seed in (0, 1):
        fake_run(tmp_path / str(seed), seed=seed, baselines=scores, costs=costs, headline=headline)
    roles = {row["method"]: row["role"] for row in rows_below(tmp_path, None)}
    expected = dict.fromkeys(("linear", "cubic", "spectral"), "baseline")
    expected |= {strongest or "": "strongest baseline"} | {to_beat or "": "baseline to beat"}
    expected |= {"model": "model", "told": "oracle", "reference": "optimum"}
    assert roles == {method: role for method, role in expected.items() if method}
    summary = summary_of_run(RunDirectory(tmp_path / "0"))
    shown = {name: next(line for line in summary.splitlines() if f" {name} " in line).strip() for name in scores}
    assert all(line.endswith(expected[name]) for name, line in shown.items() if expected[name] != "baseline")


def test_one_seed_shows_the_standard_error_of_its_test_samples_and_several_their_spread(tmp_path: Path) -> None:
    errors = {"model": 0.013, "upwind": 0.017, "persistence": 0.11}
    fake_run(tmp_path / "0", tested=0.31, errors=errors, costs={"model": 2.5e-3, "upwind": 1.2e-5})
    text = leaderboard([tmp_path])
    assert all(cell in text for cell in ("0.310 ± 0.013", "0.700 ± 0.017", "1.50 ± 0.11", "2.5 ms", "12 µs"))
    assert "of one seed, standard error over the test samples" in text
    fake_run(tmp_path / "1", seed=1, tested=0.33, errors=errors)
    text = leaderboard([tmp_path])
    assert "0.320 ± 0.014" in text
    assert "of one seed" not in text
    assert [row["test_se"] for row in rows_below(tmp_path)] == [pytest.approx(0.013)]


def test_direction_of_a_headline_score_without_a_mode_follows_its_name(tmp_path: Path) -> None:
    path = fake_run(tmp_path / "0", task="recovery", value=0.01, tested=20.0)
    write_json(path / "metrics.json", {"test/psnr_pooled": 20.0, "test/mse": 0.01})
    scores = {"input": (15.0, 0.03), "median": (17.0, 0.02), "mean": (8.0, 0.16)}
    pairs = {name: {"test/psnr_pooled": psnr, "test/mse": mse} for name, (psnr, mse) in scores.items()}
    write_json(path / "baselines.json", pairs)
    assert table_below(tmp_path).first.headline_mode == "max"
    assert list(table_below(tmp_path).references["method"]) == ["median", "input", "mean"]


def test_baselines_are_averaged_over_seeds_but_never_over_different_test_data(tmp_path: Path) -> None:
    for n, better in ((13, 0.0), (17, 0.2)):
        for seed in (0, 1):
            scores = {"persistence": 1.5 - better, "fitted": 0.5 + 0.1 * seed - better, "reference": 1e-6}
            for width in (3, 5):
                path = tmp_path / f"{n}-{seed}-{width}"
                fake_run(path, seed=seed, width=width, data={"n": n}, baselines=scores, value=better + width)
    found = {(row["method"], row["n"]): row for row in rows_below(tmp_path, None) if row["role"] != "model"}
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
    rows = table_below(tmp_path).references[["method", "test_mean", "=model.net.width"]].to_numpy().tolist()
    assert rows == [["descent", 0.8, 5], ["descent", 0.9, 3], ["persistence", 1.5, None]]


def test_failed_runs_are_counted_in_their_group_and_listed_with_their_reason(tmp_path: Path) -> None:
    fake_run(tmp_path / "0", seed=0, value=0.3)
    fake_run(tmp_path / "1", seed=1, value=0.5)
    fake_run(tmp_path / "2", seed=2, state="FAILED")
    write_json(tmp_path / "2" / "metrics.json", {"test/nrmse": 99.0})
    (row,) = rows_below(tmp_path)
    assert (row["seeds"], row["states"], row["test_mean"]) == (2, "2 of 3, 1 FAILED", pytest.approx(0.8))
    # However the lines are broken.
    told = " ".join(leaderboard([tmp_path]).split())
    assert told.endswith(f"FAILED {tmp_path}/2: NonFiniteLossError: train/loss became nan in epoch 2, step 11")


def test_every_task_has_its_own_table(tmp_path: Path) -> None:
    fake_run(tmp_path / "0", task="recovery")
    fake_run(tmp_path / "1", task="dynamics")
    text = leaderboard([tmp_path])
    assert text.index("dynamics, sorted by val/nrmse") < text.index("recovery, sorted by val/mse")
    assert [row["task"] for row in rows_below(tmp_path)] == ["dynamics", "recovery"]


def test_long_search_shows_its_best_groups_and_says_how_many_are_left(tmp_path: Path) -> None:
    for i in range(37):
        fake_run(tmp_path / str(i), width=3 + i, value=1.0 + i)
    text = leaderboard([tmp_path])
    assert sum(line.split()[:1] == ["model"] for line in text.splitlines()) == 30
    assert "7 more rows with --csv" in text
    assert len(rows_below(tmp_path)) == 37


def test_narrow_terminal_folds_cells_and_breaks_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    monkeypatch.setenv("TERM", "xterm")
    for seed in range(3):
        fake_run(tmp_path / str(seed), seed=seed, value=0.123 + 0.01 * seed, lr=0.00317, width=1379)
        fake_run(tmp_path / f"1{seed}", seed=seed, value=0.223 + 0.01 * seed, lr=0.01, width=3)
    text = re.sub(r"\x1b\[[0-9;]*m", "", leaderboard([tmp_path]))
    assert all(cell in text.split() for cell in ("1379", "0.00317", "0.133", "±0.010", "nrmse"))
    assert max(map(len, text.splitlines())) <= 60


def test_a_real_run_is_a_row_with_its_baselines(trained_once: RunDirectory) -> None:
    (row,) = rows_below(trained_once.path)
    assert (row["task"], row["test"], row["seeds"]) == ("assimilation", "test/j_ratio", 1)
    assert row["test_mean"] == read_json(trained_once.metrics)["test/j_ratio"]
    assert {r["method"] for r in rows_below(trained_once.path, "optimum")} == {"blue"}
