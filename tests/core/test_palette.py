"""What all figures share."""

from __future__ import annotations

import pytest

from eai.core.palette import legend_below, new_figure, plain_log

LONG = [f"a method of a long name, {i}" for i in range(7)]


@pytest.mark.parametrize(("labels", "rows"), [(["a", "b"], 1), (LONG, 4)])
def test_legend_below_takes_nothing_from_the_axes(labels: list[str], rows: int) -> None:
    sizes = []
    for with_legend in (False, True):
        figure = new_figure(6.0, 4.0)
        for axes in figure.subplots(1, 2):
            for label in labels:
                axes.plot([0, 1], label=label)
        if with_legend:
            legend_below(figure)
        figure.canvas.draw()
        sizes.append(figure.axes[0].get_window_extent())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == labels  # each once
    assert figure.get_size_inches()[1] == pytest.approx(4.1 + 0.19 * rows)
    assert sizes[1].width == pytest.approx(sizes[0].width, abs=2)
    assert sizes[1].height == pytest.approx(sizes[0].height, abs=12)  # pixels, of 300
    box = legend.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("values", "labels"),
    [([0.2, 6.0], {"0.2", "0.5", "1", "2", "5"}), ([1.02, 1.4], {"1.1", "1.2", "1.3"}), ([1e-8, 1.0], set())],
)
def test_log_axis_of_few_decades_has_plain_numbers(values: list[float], labels: set[str]) -> None:
    figure = new_figure(6.0, 4.0)
    axes = figure.subplots()
    axes.semilogy([0, 1], values)
    plain_log(axes.yaxis)
    figure.canvas.draw()
    shown = {text.get_text() for text in axes.get_yticklabels(which="both")} - {""}
    assert labels <= shown
    assert bool(labels) == (not any("mathdefault" in text for text in shown))
