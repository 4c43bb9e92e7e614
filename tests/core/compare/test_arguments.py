"""The command line of eai-compare."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from eai.core.cli import CONFIG_DIR
from eai.core.compare.arguments import compare_overrides
from eai.core.compare.comparison import row_of_run
from eai.core.compare.leaderboard import write_summary
from eai.core.directory import RunDirectory
from tests.core.compare.fake_runs import fake_run


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
