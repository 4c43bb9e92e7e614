"""The command line of eai-compare, and runs as a table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import eai
import eai.core.compare.records
from eai.compare import main
from eai.core.compare.records import find_runs, read_records
from eai.core.compare.summary import write_summary
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import write_json
from tests.core.compare.fake_runs import fake_run


def test_command_prints_what_the_summary_holds_and_one_row_per_run_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "lr=0.1, a [b]"
    for seed in (0, 1):
        fake_run(folder / str(seed), seed=seed, value=0.3 + seed / 10)
    write_summary(folder)

    def printed(*arguments: str) -> str:
        main([folder.name, *arguments])
        return capsys.readouterr().out

    assert printed("--csv") == (folder / "summary.csv").read_text()
    assert json.loads(printed("--json"))[0]["score_mean"] == pytest.approx(0.35)
    assert "| model | 0.350 ± 0.071 | 0.70 ± 0.14 | 2 | 7 s |" in printed("--markdown")
    assert json.loads(printed("--json", "--by-run")) == [
        {"task": "dynamics", "score": "test/nrmse", "value": pytest.approx(2 * (0.3 + seed / 10)), "baseline": 1.5,
         "baseline to beat": "persistence", "its value": 1.5, "optimum": 1e-6, "seconds": 7.0, "state": "COMPLETED",
         "run": str(folder / str(seed))}
        for seed in (0, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nowhere"], "error: runs: expected directories, got nowhere (no such directory)"),
        (["file"], "error: runs: expected directories, got file (a file)"),
        (["."], "error: runs: no run found below ."),
        (["runs=outputs"], "error: runs=outputs: expected folders and options, as eai-compare "),
        (["format=csv"], "error: format=csv: expected folders and options"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_are_one_line(
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 1
    assert said.startswith(expected)
    assert said.count("\n") == 1


def test_difference_of_runs_is_what_differs_and_the_commands_that_make_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, lr in (("a", 0.01), ("b", 0.03)):
        overrides = ("task=dynamics", f"model.optimizer.lr={lr}", "hydra.run.dir=it's here")
        fake_run(tmp_path / name, lr=lr, overrides=overrides, figures={"at_end": name == "a"})
    main([str(tmp_path / "a"), str(tmp_path / "b"), "--diff"])
    printed = capsys.readouterr().out
    rows = [line.split() for line in printed.splitlines() if line.strip().startswith(("model", "data", "figures"))]
    assert rows == [["model.optimizer.lr", "0.01", "0.03"]]
    assert "eai-train task=dynamics model.optimizer.lr=0.03 'hydra.run.dir=it'\"'\"'s here'" in printed


def test_difference_claims_no_command_that_is_unknown_and_names_a_run_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_run(tmp_path / "a")
    main([str(tmp_path), "--diff"])
    printed = capsys.readouterr().out
    assert "no command is on record" in printed
    assert "eai-train" not in printed

    (fake_run(tmp_path / "b") / "status.json").write_text("")
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--diff"])
    assert f"{tmp_path / 'b'} cannot be compared" in capsys.readouterr().err


def test_best_line_keeps_digits_near_one_and_printed_paths_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fake_run(tmp_path / "my runs" / "a", value=1.00002)
    fake_run(tmp_path / "my runs" / "b", lr=0.1, state="FAILED")
    main(["my runs"])
    printed = capsys.readouterr().out
    assert "best    'my runs/a'  val/nrmse 1.00002\n" in printed
    assert "FAILED  'my runs/b': " in printed


def test_folder_that_vanishes_while_it_is_looked_through_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_run(tmp_path / "a")
    (tmp_path / "gone").mkdir()
    stat = os.stat

    def vanishing(path: Any, **how: Any) -> os.stat_result:
        if str(path).endswith("gone"):
            raise FileNotFoundError(path)
        return stat(path, **how)

    monkeypatch.setattr(eai.core.compare.records.os, "stat", vanishing)
    assert [run.path.name for run in find_runs([tmp_path])] == ["a"]


def test_one_run_of_each_task_makes_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for task in ("dynamics", "recovery"):
        fake_run(tmp_path / task, task=task)
    main([str(tmp_path)])
    printed = capsys.readouterr().out
    assert sum("optimum" in line for line in printed.splitlines()) == 1
    assert "dynamics" in printed
    assert "recovery" in printed


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_never_fails_for_want_of_an_encoding(
    encoding: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    for seed in (0, 1):
        fake_run(tmp_path / str(seed), seed=seed, value=0.3 + seed / 10)
    command = [sys.executable, "-m", "eai.compare", str(tmp_path), "--markdown"]
    environment = clean_environment | {"PYTHONIOENCODING": encoding}
    result = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=60, check=True)
    assert b"0.350" in result.stdout


def test_runs_are_a_data_frame(tmp_path: Path) -> None:
    for number, (seed, lr) in enumerate([(0, 0.01), (1, 0.01), (0, 0.03)]):
        fake_run(tmp_path / str(number), seed=seed, lr=lr, value=0.1 * (number + 1))
    fake_run(tmp_path / "3", lr=0.1, state="FAILED")
    frame = eai.runs(tmp_path)
    assert list(frame.columns[:4]) == ["state", "task", "seed", "lr"]
    assert frame["state"].value_counts().to_dict() == {"COMPLETED": 3, "FAILED": 1}
    assert frame.groupby("lr")["score"].mean().to_dict() == pytest.approx(
        {0.01: 0.15, 0.03: 0.3, 0.1: float("nan")}, nan_ok=True
    )
    first = frame[frame["path"] == str(tmp_path / "0")].iloc[0]
    assert (first["monitor"], first["headline"], first["test"], first["baseline"]) == (
        "val/nrmse", "test/nrmse", pytest.approx(0.2), 1.5,
    )  # fmt: skip
    assert frame["started"].dt.tz is not None
    assert eai.runs([tmp_path / "0", tmp_path / "2"])["lr"].tolist() == [0.01, 0.03]
    with pytest.raises(ConfigError, match="no such directory"):
        eai.runs(tmp_path / "nowhere")
    assert isinstance(frame, pd.DataFrame)


def test_runs_come_in_the_order_of_their_start_whatever_the_zone_and_the_name(tmp_path: Path) -> None:
    starts = {"c": "2025-01-01T12:00:00+00:00", "a": "2025-01-01T12:30:00+02:00", "b": "2025-01-01T11:30:00+00:00"}
    for name, started in starts.items():
        path = fake_run(tmp_path / name)
        write_json(path / "status.json", {"state": "RUNNING", "started": started})
    assert [record.path.name for record in read_records([tmp_path])] == ["a", "b", "c"]


def test_runs_behind_links_are_found_once_and_unreadable_ones_are_listed(tmp_path: Path) -> None:
    fake_run(tmp_path / "elsewhere" / "run")
    outputs = tmp_path / "outputs"
    outputs.mkdir()
    (outputs / "link").symlink_to(tmp_path / "elsewhere")
    (outputs / "again").symlink_to(tmp_path / "elsewhere")
    (outputs / "loop").symlink_to(outputs)
    broken = fake_run(outputs / "broken")
    (broken / "status.json").write_text("")
    found: dict[str, Any] = {record.path.name: record.state for record in read_records([outputs])}
    assert found == {"run": "COMPLETED", "broken": "UNREADABLE"}


def test_only_what_changed_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        fake_run(tmp_path / str(number), seed=number)
    read_records([tmp_path])
    read: list[Path] = []
    original = eai.core.compare.records.read_record

    def noted(run: RunDirectory) -> Any:
        read.append(run.path)
        return original(run)

    monkeypatch.setattr(eai.core.compare.records, "read_record", noted)
    fake_run(tmp_path / "3", seed=3)
    write_json(tmp_path / "1" / "status.json", {"state": "RUNNING"})
    records = read_records([tmp_path])
    assert sorted(path.name for path in read) == ["1", "3"]
    assert sorted(record.state for record in records) == ["COMPLETED", "COMPLETED", "COMPLETED", "RUNNING"]
