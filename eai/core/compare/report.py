"""The report of a run: one HTML file that needs no network, from the files of its directory.

Free of torch and lightning: a run that FAILED gets one too.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eai.core.compare.curves import curves, curves_figure, read_log
from eai.core.compare.keys import canonical
from eai.core.compare.page import image, page, png
from eai.core.compare.record import BASELINE, Record, number
from eai.core.compare.records import read_record
from eai.core.compare.sentences import headline_sentences
from eai.core.compare.text import UNKNOWN, spell, spell_seconds, spell_spread
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json, write_whole
from eai.core.style.wording import in_words

log = logging.getLogger("eai")
ENDED = ("COMPLETED", "PRUNED", "FAILED")
Defaults = Callable[[str], Mapping[str, Any]]
TAIL = 40  # lines of the log of a run that FAILED


@contextmanager
def reported(path: str | Path, defaults: Defaults) -> Iterator[None]:
    """Write the report of a run that ends inside, however it ends.

    Args:
        path: of its directory; where no run begins, or one is found complete, nothing is written.
        defaults: gives a task's configuration without overrides.
    """
    run = RunDirectory(path)
    before = _ended(run)
    try:
        yield
    finally:
        if (ended := _ended(run)) and ended != before:
            write_report(run, defaults)


def _ended(run: RunDirectory) -> str | None:
    """When a run ended for good; None if it has not."""
    try:
        status = run.state()
    except ConfigError:  # unreadable
        return None
    return str(status.get("ended")) if status.get("state") in ENDED else None


def write_report(run: RunDirectory, defaults: Defaults | None = None) -> None:
    """Write ``report.html``, unless the configuration asks for no figures at the end; a failure is a warning.

    Args:
        run: that has ended, or an evaluation.
        defaults: gives a task's configuration without overrides, to say how this one differs.
    """
    try:
        record = read_record(run)
        figures = record.config.get("figures")
        if not isinstance(figures, Mapping) or figures.get("at_end") is not False:
            write_whole(run.report, page("run.html", **_told(record, run), differences=_differences(record, defaults)))
    except Exception as error:  # a run matters more than its report
        log.warning("no report of %s: %s: %s", run.path, type(error).__name__, error)


def _told(record: Record, run: RunDirectory) -> dict[str, Any]:
    log_lines = read_log(run.path)
    status = record.status
    return {
        "title": f"{record.task or 'run'}: {run.path.name}",
        "state": record.state,
        "reason": record.reason or (str(status["pruned"]) if "pruned" in status else None),
        "sentences": headline_sentences(record),
        "facts": _facts(record),
        "command": None if record.typed is None else shlex.join(["eai-train", *record.typed]),
        "methods": _methods(record),
        "score": str(record.headline["score"]),
        "score_in_words": in_words(str(record.headline["score"])),
        "scores": _scores(record),
        "figures": _figures(run, log_lines if record.state == "FAILED" else []),
        "versions": _mapping({"Python": status.get("python")} | _mapping(status.get("versions")))
        | _mapping(status.get("packages")),
        "warnings": [line for line in log_lines if "warning" in line.lower()],
        "tail": log_lines[-TAIL:] if record.state == "FAILED" else [],
    }


def _differences(record: Record, defaults: Defaults | None) -> list[tuple[str, str, str]]:
    """Key, the task's default and this run's value, where they differ."""
    if defaults is None or record.task is None or not record.config:
        return []
    plain, own = Record(record.path, record.status, defaults(record.task)).leaves, record.leaves
    keys = [key for key in {**plain, **own} if canonical(plain.get(key)) != canonical(own.get(key))]
    return [(key, str(plain.get(key, "absent")), str(own.get(key, "absent"))) for key in keys]


def _facts(record: Record) -> list[tuple[str, str]]:
    """What was run: name and value of each row."""
    status, seed = record.status, record.config.get("seed")
    net = record.parameter("model.net._target_")
    parameters = number(status.get("parameters"))
    rows = [
        ("task", record.task),
        ("data", record.parameter("data._target_")),
        ("network", f"{net or UNKNOWN}, {parameters:,.0f} parameters" if parameters else net),
        ("seed of weights, of data", f"{seed}, {record.parameter('data.seed')}"),
        ("epochs", status.get("epochs")),
        ("training", spell_seconds(number(status.get("train_seconds")))),
        ("processes, samples per step", f"{status.get('processes')}, {status.get('global_batch_size')}"),
        ("best validation score", _monitored(record)),
        ("stopped early", status.get("stopped_early")),
        ("started, ended", f"{status.get('started')}, {status.get('ended')}"),
        ("host", status.get("host")),
        ("git commit", status.get("git_commit")),
        ("directory", str(record.path)),
    ]
    return [(name, str(value)) for name, value in rows if value not in (None, "", "None, None")]


def _monitored(record: Record) -> str | None:
    value = number(record.under("monitored").get("value"))
    return None if value is None else f"{record.score} {spell(value)}"


def _methods(record: Record) -> list[dict[str, str]]:
    """The network and its references in the headline score, the best first."""
    own = record.test_score
    if own is None:
        return []
    trivial = record.baseline(record.headline["baseline"])
    cost = record.cost("model")
    roles = ["network", *record.roles(record.references, cost)]
    rows = sorted(
        zip([("network", own, cost), *record.references], roles, strict=True),
        key=lambda row: -row[0][1] if record.headline_mode == "max" else row[0][1],
    )
    return [
        {
            "method": in_words(name),
            "role": "" if role == BASELINE else role,
            "score": spell_spread(value, record.error("model" if role == "network" else name)),
            "skill": f"{1 - value / trivial:.3g}" if trivial and record.headline_mode == "min" else "",
            "seconds": spell_seconds(seconds),
        }
        for (name, value, seconds), role in rows
    ]


def _scores(record: Record) -> dict[str, Any]:
    """All scores of the network, of the baseline to beat and of the optimum."""
    columns = {"network": record.metrics}
    for name in (record.rival[0] if record.rival else None, record.headline["optimum"]):
        if name and isinstance(scores := record.baselines.get(name), Mapping):
            columns[name] = scores
    rows = [
        (key.removeprefix("test/"), [spell(number(scores.get(key))) for scores in columns.values()])
        for key in record.metrics
    ]
    return {"columns": [in_words(name) for name in columns], "rows": rows}


def _figures(run: RunDirectory, log_lines: Sequence[str]) -> list[dict[str, str | bool]]:
    """The figures; of a run that FAILED without any, its curves so far."""
    shown = run_figures(run)
    if not shown and (found := curves(log_lines)):
        shown = [image("learning curves", png(curves_figure(found)), "Losses and scores until the run failed.")]
    return shown


def run_figures(run: RunDirectory, kinds: Sequence[str] = (".png", ".gif")) -> list[dict[str, str | bool]]:
    """The figures of a run as templates take them, each with what to see in it.

    Args:
        run: its directory.
        kinds: of files.
    """
    captions = _captions(run)
    place = {name: number for number, name in enumerate(captions)}
    files = [path for path in run.figures.glob("*") if path.suffix in kinds]
    files.sort(key=lambda path: (place.get(path.stem, len(place)), path.name))
    return [
        image(in_words(path.stem), path.read_bytes(), captions.get(path.stem, ""), path.suffix[1:]) for path in files
    ]


def _captions(run: RunDirectory) -> dict[str, str]:
    try:
        return _mapping(read_json(run.figures / "captions.json"))
    except ConfigError:  # of a run of before, or without figures
        return {}


def _mapping(value: Any) -> dict[str, str]:
    return {str(name): str(item) for name, item in value.items()} if isinstance(value, Mapping) else {}
