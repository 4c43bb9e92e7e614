"""The figures that every task shares."""

from __future__ import annotations

import pytest

from eai.core.learn.figures import Film, caption, learning_curves, render, score_curve
from eai.core.palette import PREDICTION, new_figure
from tests.runs import assert_say_what_to_see

ONE_TERM = {"train/loss": [(0, 4.0), (1, 1.0), (2, 0.5)], "train/mse": [(0, 4.0), (1, 1.0), (2, 0.5)],
            "val/loss": [(1, 2.0), (2, 3.0)], "val/mse": [(1, 2.0), (2, 3.0)]}  # fmt: skip


def test_learning_curves_count_epochs_from_one_and_draw_a_single_term_once() -> None:
    figure = learning_curves(ONE_TERM)
    lines = {line.get_label(): line.get_xydata().tolist() for line in figure.axes[0].get_lines()}
    assert lines == {"training": [[1, 4], [2, 1], [3, 0.5]], "validation": [[2, 2], [3, 3]]}
    assert_say_what_to_see({"learning_curves": caption(figure)})


def test_curve_of_a_single_epoch_can_be_seen() -> None:
    figure = learning_curves({name: points[-1:] for name, points in ONE_TERM.items()})
    assert {line.get_marker() for line in figure.axes[0].get_lines()} == {"o"}


@pytest.mark.parametrize(("mode", "best"), [("min", [2, 0.25]), ("max", [4, 0.75])])
def test_star_marks_the_best_epoch_whichever_way_is_better(mode: str, best: list[float]) -> None:
    figure = score_curve({"val/acc": [(0, 0.5), (1, 0.25), (3, 0.75)]}, "val/acc", mode)
    curve, star = figure.axes[0].get_lines()
    assert curve.get_color() == PREDICTION
    assert star.get_xydata().tolist() == [best]
    assert_say_what_to_see({"monitored_score": caption(figure)})


def test_animation_has_its_own_caption() -> None:
    film = Film("Rollout: it should stay near the truth", new_figure(), lambda frame: [], range(3))
    assert caption(film) == "Rollout: it should stay near the truth"
    assert [*film.new_frame_seq()] == [0, 1, 2]
    assert render(film).startswith(b"GIF8")
