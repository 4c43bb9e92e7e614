"""The report of a sweep, and that of ``eai-compare --html``."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eai.compare import main
from eai.core.compare.curves import overlaid_figure
from eai.core.compare.show import compare
from eai.core.compare.summary import write_summary
from eai.core.files import write_json
from tests.core.compare.browser import check_page, words_of
from tests.core.compare.fake_runs import fake_run, table_below


def log_of(run: Path, *values: float) -> None:
    """A log with one line per epoch."""
    lines = [f"epoch {i}/9  train/loss {value / 2}  val/nrmse {value}  0.1 s" for i, value in enumerate(values, 1)]
    (run / "train.log").write_text("\n".join(lines))


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Three values of two parameters, two seeds each, one job FAILED and one PRUNED."""
    folder = tmp_path / "lr_0123"
    for i, (lr, width) in enumerate([(1e-2, 3), (1e-3, 5), (1e-4, 9)]):
        for seed in (0, 1):
            run = fake_run(folder / f"{i}_{seed}", seed=seed, lr=lr, width=width, value=0.25 * (i + 1) + 0.125 * seed)
            log_of(run, 2.0, 1.0, 0.25 * (i + 1) + 0.125 * seed)
    log_of(fake_run(folder / "bad", lr=3.0, width=7, state="FAILED"), 5.0, 7.0)
    pruned = fake_run(folder / "slow", lr=2.0, width=7, state="PRUNED")
    status = {"state": "PRUNED", "started": "2025-01-01T00:00:09", "pruned": "epoch 4: worse than the median"}
    write_json(pruned / "status.json", status)
    swept = ["model.optimizer.lr", "model.net.width"]
    write_json(folder / "sweep.json", {"overrides": ["task=dynamics", "seed=0,1"], "swept": swept})
    return folder


def test_report_of_a_sweep_has_leaderboard_best_run_and_reasons(sweep: Path) -> None:
    write_summary(sweep, last=True)
    page = (sweep / "report.html").read_text()
    words = words_of(page)
    assert "eai-train -m task=dynamics seed=0,1" in words
    assert "6 COMPLETED, 1 FAILED, 1 PRUNED" in words
    assert "0.312 ± 0.088" in words  # mean and standard deviation of 0.25 and 0.375
    assert "NonFiniteLossError: train/loss became nan in epoch 2, step 11" in words
    assert "epoch 4: worse than the median" in words
    assert page.count("<img ") == 3  # by parameter, parallel coordinates, learning curves
    assert set(re.findall(r'href="(.*?)"', page)) == {"0_0", "bad", "slow"}  # no report of their own: the directories
    assert not re.search(r'src="(?!data:)', page)


def test_curves_of_all_runs_are_drawn_the_best_one_thickest(sweep: Path) -> None:
    figure = overlaid_figure(table_below(sweep))
    assert figure is not None
    (axes,) = figure.axes
    ends = {line.get_ydata()[-1]: line.get_linewidth() for line in axes.lines}
    assert set(ends) == {0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 7.0}
    assert max(ends, key=lambda end: ends[end]) == 0.25
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["FAILED", "completed", "best run"]


def test_curves_are_read_again_only_where_a_log_has_changed(sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overlaid_figure(table_below(sweep))
    read: list[Path] = []
    monkeypatch.setattr("eai.core.compare.curves.read_log", lambda run: read.append(run) or [])
    log_of(sweep / "bad", 5.0, 6.0, 7.0)
    overlaid_figure(table_below(sweep))
    assert read == [sweep / "bad"]


def test_compare_writes_the_page_of_any_runs(sweep: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(sweep / "0_0"), str(sweep / "1_0"), "--html", str(tmp_path / "two.html")])
    page = (tmp_path / "two.html").read_text()
    assert "2 COMPLETED" in words_of(page)
    assert 'href="lr_0123/0_0"' in page
    assert capsys.readouterr().out == f"report {tmp_path / 'two.html'}\n"
    with pytest.raises(SystemExit):
        main([str(sweep), "--html", str(tmp_path / "nowhere" / "page.html")])
    told = capsys.readouterr().err
    assert told.startswith("error: --html: cannot write")
    assert told.count("\n") == 1


def test_one_run_of_each_task_is_one_table_with_their_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for task in ("dynamics", "recovery"):
        fake_run(tmp_path / task, task=task, value=0.125)
    (tmp_path / "recovery" / "report.html").touch()
    header, _, *rows = compare([tmp_path]).strip().splitlines()
    assert header.split()[:2] == ["task", "score"]
    assert header.split()[-1] == "report"
    assert [row.split()[-1] for row in rows] == ["dynamics", "recovery/report.html"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_browser_shows_the_sweep_without_errors_requests_or_scrolling_aside(sweep: Path, dark: bool) -> None:
    write_summary(sweep, last=True)
    check_page(sweep / "report.html", 900 if dark else 380, dark)
