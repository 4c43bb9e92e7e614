"""The report of a run: one HTML file that needs no network, from the files of its directory.

Free of torch and lightning: a run that FAILED gets one too.
"""

from __future__ import annotations

import base64
import io
import logging
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from eai.core.compare.record import BASELINE, Record, number
from eai.core.compare.records import read_record
from eai.core.compare.sentences import headline_sentences, in_words
from eai.core.compare.text import UNKNOWN, spell, spell_seconds, spell_spread
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json, write_whole

log = logging.getLogger("eai")
ENDED = ("COMPLETED", "PRUNED", "FAILED")
TAIL = 40  # lines of the log of a run that FAILED
_EPOCH = re.compile(r"^epoch\s+(\d+)/\d+  (.*)$")
_VALUE = re.compile(r"(\S+/\S+) (\S+)")


@contextmanager
def reported(path: str | Path) -> Iterator[None]:
    """Write the report of a run that ends inside, however it ends.

    Args:
        path: of its directory; where no run begins, or one is found complete, nothing is written.
    """
    run = RunDirectory(path)
    before = _ended(run)
    try:
        yield
    finally:
        if (ended := _ended(run)) and ended != before:
            write_report(run)


def _ended(run: RunDirectory) -> str | None:
    """When a run ended for good; None if it has not."""
    try:
        status = run.state()
    except ConfigError:  # unreadable
        return None
    return str(status.get("ended")) if status.get("state") in ENDED else None


def write_report(run: RunDirectory) -> None:
    """Write ``report.html``, unless the configuration asks for no figures at the end; a failure is a warning.

    Args:
        run: that has ended, or an evaluation.
    """
    try:
        record = read_record(run)
        figures = record.config.get("figures")
        if not isinstance(figures, Mapping) or figures.get("at_end") is not False:
            write_whole(run.report, page("run.html", **_told(record, run)).encode())
    except Exception as error:  # a run matters more than its report
        log.warning("no report of %s: %s: %s", run.path, type(error).__name__, error)


def page(template: str, **told: Any) -> str:
    """A page of one of the package's templates.

    Args:
        template: its name.
        told: its values.
    """
    templates = Environment(
        loader=PackageLoader("eai.core.compare"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return templates.get_template(template).render(**told)


def _told(record: Record, run: RunDirectory) -> dict[str, Any]:
    log_lines = _log(run)
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


def _figures(run: RunDirectory, log_lines: Sequence[str]) -> list[dict[str, str]]:
    """The figures, as data of the page, each with what to see in it; of a run that FAILED its curves so far."""
    captions = _captions(run)
    place = {name: number for number, name in enumerate(captions)}
    files = [path for path in run.figures.glob("*") if path.suffix in (".png", ".gif")]
    files.sort(key=lambda path: (place.get(path.stem, len(place)), path.name))
    shown = [_image(path.stem, path.read_bytes(), path.suffix[1:], captions.get(path.stem, "")) for path in files]
    if not shown and (points := curves(log_lines)):
        shown = [_image("learning curves", _drawn(points), "png", "Losses and scores until the run failed.")]
    return shown


def _image(name: str, content: bytes, kind: str, caption: str) -> dict[str, str]:
    source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return {"name": in_words(name), "source": source, "caption": caption}


def curves(log_lines: Sequence[str]) -> dict[str, list[tuple[int, float]]]:
    """Losses and scores by epoch, as the lines of ``train.log`` tell them.

    Args:
        log_lines: of the log.
    """
    found: dict[str, list[tuple[int, float]]] = {}
    for line in log_lines:
        if match := _EPOCH.match(line):
            for name, value in _VALUE.findall(match[2]):
                try:
                    found.setdefault(name, []).append((int(match[1]), float(value)))
                except ValueError:
                    continue
    return found


def _drawn(points: Mapping[str, Sequence[tuple[int, float]]]) -> bytes:
    from eai.core.palette import BLACK, BLUE, GREEN, ORANGE, PURPLE, RED, new_figure

    figure = new_figure()
    axes = figure.subplots()
    axes.set(title="Losses and scores by epoch", xlabel="epoch")
    for (name, series), colour in zip(points.items(), (BLACK, ORANGE, BLUE, GREEN, PURPLE, RED), strict=False):
        axes.plot(*zip(*series, strict=True), "o-", ms=3, lw=1.2, color=colour, label=name)
    if all(value > 0 for series in points.values() for _, value in series):
        axes.set_yscale("log")
    axes.legend(fontsize="small")
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _log(run: RunDirectory) -> list[str]:
    try:
        return (run.path / "train.log").read_text(errors="replace").splitlines()
    except OSError:
        return []


def _captions(run: RunDirectory) -> dict[str, str]:
    try:
        return _mapping(read_json(run.figures / "captions.json"))
    except ConfigError:  # of a run of before, or without figures
        return {}


def _mapping(value: Any) -> dict[str, str]:
    return {str(name): str(item) for name, item in value.items()} if isinstance(value, Mapping) else {}
