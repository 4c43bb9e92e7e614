"""What is said of a search by Optuna: the importance of its parameters, and parallel coordinates."""

from __future__ import annotations

import random
from pathlib import Path

import optuna
import pytest

from eai.core.compare.importance import importance_lines, importances
from eai.core.compare.leaderboard import leaderboard
from eai.core.compare.parallel import parallel_figure
from eai.core.compare.summary import write_summary
from eai.core.trials import journal_storage
from tests.core.compare.fake_runs import fake_run, sweep_json, table_below

SPACE = {
    "model.optimizer.lr": optuna.distributions.FloatDistribution(1e-3, 1e-1, log=True),
    "model.net.width": optuna.distributions.IntDistribution(1, 9),
}


def search(folder: Path, directions: list[str], count: int = 60) -> None:
    """Trials whose first objective depends on the learning rate alone, a second one on the width alone."""
    study = optuna.create_study(
        study_name="s", directions=directions, storage=journal_storage(folder / "study.journal"),
        sampler=optuna.samplers.RandomSampler(seed=2),
    )  # fmt: skip
    study.set_user_attr("objectives", ["score", "parameters"][: len(directions)])
    noise = random.Random(4)
    for _ in range(count):
        trial = study.ask(SPACE)
        values = [trial.params["model.optimizer.lr"], float(trial.params["model.net.width"])]
        signs = [1 if direction == "minimize" else -1 for direction in directions]
        told = [sign * value + 1e-6 * noise.random() for sign, value in zip(signs, values, strict=False)]
        study.tell(trial, told)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_parameter_that_decides_is_the_important_one_in_either_direction(direction: str, tmp_path: Path) -> None:
    search(tmp_path, [direction])
    shares = importances(tmp_path)["score"]
    assert sum(shares.values()) == pytest.approx(1)
    assert next(iter(shares)) == "model.optimizer.lr"
    # A tenth of 60 trials is 6: by chance alone the other parameter gets a few hundredths.
    assert shares["model.optimizer.lr"] > 0.8
    (line,) = importance_lines([tmp_path, tmp_path / "nowhere"])
    assert line.startswith("importance for score  lr 0.")


def test_each_of_several_objectives_has_its_own(tmp_path: Path) -> None:
    search(tmp_path, ["maximize", "minimize"])
    shares = importances(tmp_path)
    assert next(iter(shares["score"])) == "model.optimizer.lr"
    assert next(iter(shares["parameters"])) == "model.net.width"


def test_few_trials_have_no_importances_and_no_study_none(tmp_path: Path) -> None:
    assert importances(tmp_path) == {}
    search(tmp_path, ["minimize"], count=4)
    assert importances(tmp_path) == {}


def test_broken_study_costs_the_line_only(tmp_path: Path) -> None:
    (tmp_path / "study.journal").write_text("not a journal\n")
    fake_run(tmp_path / "run")
    assert "val/nrmse" in leaderboard([tmp_path])


def test_parallel_coordinates_have_a_line_for_each_job_and_none_at_the_score_for_pruned_ones(tmp_path: Path) -> None:
    for i, (lr, width, value) in enumerate([(1e-3, 3, 0.4), (1e-2, 5, 0.2), (1e-1, 9, 0.9), (3e-2, 3, None)]):
        state = "COMPLETED" if value else "PRUNED"
        fake_run(tmp_path / str(i), lr=lr, width=width, value=value, state=state)
    sweep_json(tmp_path, "model.optimizer.lr", "model.net.width")
    figure = parallel_figure(table_below(tmp_path))
    assert figure is not None
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_xticklabels()] == ["lr", "width", "val/nrmse"]
    lines = [line.get_ydata() for line in axis.get_lines() if len(line.get_ydata())]
    heights = sorted((list(map(float, line)) for line in lines), key=lambda line: line[0])
    # lr by its logarithm over two decades, width and score linear.
    expected = [[0, 0, 2 / 7], [0.5, 1 / 3, 0], [0.7386, 0], [1, 1, 1]]
    assert all(a == pytest.approx(b, abs=1e-3) for a, b in zip(heights, expected, strict=True))
    best = next(line for line in axis.get_lines() if line.get_label() == "best job")
    assert float(best.get_ydata()[2]) == 0  # type: ignore[arg-type, index]

    write_summary(tmp_path, last=True)
    assert (tmp_path / "parallel.png").is_file()
    assert "PRUNED" in (tmp_path / "summary.csv").read_text()


def test_one_parameter_or_few_jobs_have_no_parallel_coordinates(tmp_path: Path) -> None:
    for i, lr in enumerate((1e-3, 1e-2, 1e-1)):
        fake_run(tmp_path / str(i), lr=lr, value=lr)
    assert parallel_figure(table_below(tmp_path)) is None
    write_summary(tmp_path, last=True)
    assert not (tmp_path / "parallel.png").exists()
