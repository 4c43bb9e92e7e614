"""The report of a run: what it says, and how a browser shows it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from eai.core.compare.curves import curves
from eai.core.compare.page import image, png
from eai.core.compare.record import Record
from eai.core.compare.report import reported, write_report
from eai.core.compare.sentences import headline_sentences
from eai.core.directory import RunDirectory
from eai.core.files import read_json, write_json
from eai.core.palette import new_figure
from eai.core.style.wording import in_words
from tests.core.compare.browser import check_page, words_of
from tests.runs import TINY, Train


def nothing(task: str) -> dict[str, object]:
    """A task without any configuration."""
    return {}


def test_report_says_what_was_run_and_how_good_it_is(finished: RunDirectory) -> None:
    write_report(finished)
    page = finished.report.read_text()
    words = words_of(page)
    metrics, baselines = read_json(finished.metrics), read_json(finished.baselines)
    assert "eai-train task=assimilation data.n=13" in words
    assert "the network's J/J* is" in words
    for method in baselines:
        assert in_words(method) in words
    assert all(name.removeprefix("test/") in words for name in metrics)
    assert page.count("<img ") == len(list(finished.figures.glob("*.png"))) + len(list(finished.figures.glob("*.gif")))
    captions = read_json(finished.figures / "captions.json")
    assert all(text in words for text in captions.values())
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_training_writes_the_report_and_a_run_that_is_found_complete_keeps_it(train: Train, tmp_path: Path) -> None:
    with reported(tmp_path / "run", nothing):
        run = train(*TINY, "epochs=1")
    before = run.report.stat().st_mtime_ns
    with reported(run.path, nothing):
        train(*TINY, "epochs=1")
    assert run.report.stat().st_mtime_ns == before


def test_report_names_what_differs_from_the_defaults(finished: RunDirectory) -> None:
    own = yaml.safe_load(finished.config.read_text())
    assert own["data"]["n"] == 13
    write_report(
        finished,
        lambda task: own | {"seed": 77, "data": {k: v for k, v in own["data"].items() if k != "seed"} | {"n": 60}},
    )
    rows = re.findall(r"<tr><td>(\S+?)</td><td>(.*?)</td><td>(.*?)</td></tr>", finished.report.read_text())
    assert rows == [("data.n", "60", "13"), ("data.seed", "absent", str(own["data"]["seed"]))]


def test_no_figures_means_no_report(finished: RunDirectory) -> None:
    text = finished.config.read_text()
    assert "at_end: true" in text
    finished.config.write_text(text.replace("at_end: true", "at_end: false"))
    write_report(finished)
    assert not finished.report.exists()


def test_run_that_failed_gets_its_reason_its_curves_and_the_end_of_its_log(finished: RunDirectory) -> None:
    status = read_json(finished.status)
    write_json(finished.status, {**status, "state": "FAILED", "reason": "NonFiniteLossError: <train/loss> became nan"})
    for path in (finished.metrics, finished.baselines):
        path.unlink()
    shutil.rmtree(finished.figures)
    (finished.path / "train.log").write_text(
        "epoch 1/3  train/loss 0.5  1.0 s\nepoch 2/3  train/loss 0.25  val/loss 0.3  2.0 s\nthe last words\n"
    )
    write_report(finished)
    page = finished.report.read_text()
    words = words_of(page)
    assert "FAILED" in words
    assert "NonFiniteLossError: <train/loss> became nan" in words
    assert "<train" not in re.sub(r"&lt;train", "", page)  # escaped
    assert "the last words" in words
    assert page.count("<img ") == 1


def test_curves_are_read_from_the_log() -> None:
    lines = [
        "a word",
        "epoch   1/12  train/loss 0.5  1.0 s",
        "epoch 12/12  train/loss 2.5e-03  val/psnr/level_0.4 21.5  9 s",
    ]
    assert curves(lines) == {"train/loss": [(1, 0.5), (12, 0.0025)], "val/psnr/level_0.4": [(12, 21.5)]}


def test_report_that_cannot_be_written_is_a_warning(
    finished: RunDirectory, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("eai.core.compare.report.write_whole", full)
    with reported(finished.path, nothing):
        write_json(finished.status, {**read_json(finished.status), "ended": "later"})
    assert "no report of" in caplog.text
    assert "No space left on device" in caplog.text


def record(own: float, costs: dict[str, float], mode: str = "min", **others: float) -> Record:
    score = "test/nrmse/lead_14"
    return Record(
        Path("run"),
        {"state": "COMPLETED"},
        {"headline": {"score": score, "baseline": "persistence", "optimum": "reference", "mode": mode}},
        metrics={score: own},
        baselines={name: {score: value} for name, value in others.items()},
        measurements={name: {"seconds_per_sample": seconds} for name, seconds in costs.items()},
    )


def test_headline_is_a_sentence_of_ratios() -> None:
    costs = {"model": 2.0, "persistence": 0.1, "upwind": 1.0, "least_squares_11": 5.0, "reference": 9.0}
    told = " ".join(
        headline_sentences(record(0.02, costs, persistence=1.5, upwind=0.3, least_squares_11=0.001, reference=0.0))
    )
    assert told == (
        "On the test data the network's nRMSE at lead 14 is 0.02. That is 15 times smaller than that of the "
        "best reference that takes no longer (upwind scheme: 0.3). Better still: fitted stencil, 11 points (0.001, "
        "at 2.5 times the network's seconds). What is attainable: 0 (reference)."
    )
    for own, upwind, words in [
        (0.3, 0.33, "is 9.1 % smaller than that of"),
        (0.33, 0.3, "is 10 % larger than that of"),
        (0.3, 0.3003, "is about the same as that of"),
    ]:
        assert words in " ".join(headline_sentences(record(own, costs, upwind=upwind)))
    assert "That is 1.5 higher than that of" in " ".join(headline_sentences(record(21.5, costs, "max", upwind=20.0)))
    assert headline_sentences(Record(Path("run"), {"state": "FAILED"})) == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_browser_shows_the_report_without_errors_requests_or_scrolling_aside(
    finished: RunDirectory, dark: bool
) -> None:
    write_report(finished)
    check_page(finished.report, 900 if dark else 380, dark)


@pytest.mark.parametrize(("inches", "broad"), [(7.5, False), (9, True)])
def test_wide_figure_takes_the_width_of_the_page(inches: float, broad: bool) -> None:
    assert image("name", png(new_figure(inches, 4)), "what to see")["broad"] == broad
