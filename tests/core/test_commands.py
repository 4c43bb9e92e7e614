"""The console commands as a user runs them: processes, from any directory."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path

import pytest

import eai
from eai.core.cli import log_to
from eai.core.configuration.check import check_top_level
from eai.core.configuration.resolve import resolve
from eai.train import _verdict
from tests.runs import TINY, composed

REPOSITORY = Path(__file__).parents[2]


def run(*command: str, cwd: Path, env: dict[str, str], timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=timeout)


QUIET_START = """
import sys
sys.argv[:] = ["eai-train", *{arguments}]
from eai.{module} import main
try:
    main()
except SystemExit:
    pass
heavy = {{"torch", "lightning", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("module", ["train", "evaluate", "compare"])
@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"], ["-sc", "query=bash"]])
def test_help_config_and_completion_import_no_torch(
    module: str, arguments: list[str], tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    environment = clean_environment | {"COMP_LINE": f"eai-{module} seed", "COMP_CWORD": "1", "COMP_POINT": "14"}
    code = QUIET_START.format(arguments=arguments, module=module)
    result = run(sys.executable, "-c", code, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() or module == "compare" or arguments[0] == "-sc"
    assert list(tmp_path.iterdir()) == []


def test_completion_offers_the_tasks(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    environment = clean_environment | {"COMP_LINE": "eai-train task=", "COMP_CWORD": "1", "COMP_POINT": "15"}
    result = run(sys.executable, "-m", "eai.train", "-sc", "query=bash", cwd=tmp_path, env=environment)
    assert {"task=assimilation", "task=dynamics", "task=recovery"} <= set(result.stdout.split())


def test_one_run_from_another_directory_prints_each_line_once_and_says_where_results_are(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    command = [sys.executable, "-m", "eai.train", *TINY]
    result = run(*command, cwd=tmp_path, env=clean_environment)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = [line for line in result.stdout.splitlines() if line.startswith("epoch")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    (directory,) = (tmp_path / "outputs" / "assimilation").iterdir()
    assert str(directory / "metrics.json") in result.stdout
    compared = run(sys.executable, "-m", "eai.compare", "--json", "--by-run", cwd=tmp_path, env=clean_environment)
    (row,) = json.loads(compared.stdout)
    assert row["state"] == "COMPLETED"
    assert row["run"] == str(directory)


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        ("train", ["task=assimilation", "+typo=1"], "error: typo: unknown key"),
        ("train", ["task=assimilation", "data.network.p=0"], "error: data.network.p: expected at least 1, got 0"),
        (
            "train",
            ["resume=nowhere"],
            "error: resume: expected the directory of a run, or a checkpoint in one, got nowhere",
        ),
        ("train", ["task=dynamcs"], "error: task: expected one of dynamics, got 'dynamcs'"),
        ("train", ["data=recovery/vared"], "error: data: expected one of recovery/varied, "),
        ("train", ["hydra.run.dir=nowhere/a=b"], "error: hydra.run.dir: expected a value that needs no quotes"),
        ("train", ["hydra.searchpath=[file://nowhere]"], "error: hydra.searchpath: expected folders"),
        ("train", ["epoch=3"], "error: Could not override 'epoch'. Did you mean: 'epochs'?"),
        ("train", ["task=assimilation", "hydra.run.dir=nowhere/run", "data.n=4"], "error: data.n: expected at least 8"),
        ("evaluate", [], "error: run: missing"),
        ("evaluate", ["run=nowhere"], "error: run: expected the directory of a run, got nowhere"),
        ("compare", ["nowhere"], "error: runs: expected directories, got nowhere"),
    ],
)
def test_mistake_is_one_line_without_traceback_and_a_failing_exit_code(
    module: str, arguments: list[str], message: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    result = run(sys.executable, "-m", f"eai.{module}", *arguments, cwd=tmp_path, env=clean_environment)
    assert result.returncode == 1
    assert result.stderr.startswith(message), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_version_is_ours(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    result = run(sys.executable, "-m", "eai.train", "--version", cwd=tmp_path, env=clean_environment)
    assert result.stdout == f"eai {eai.__version__}\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_text_does_not_fail_for_want_of_an_encoding(
    encoding: str, tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    code = "from eai.core.cli import prepare_streams; prepare_streams(); print('0.1 │ ≥')"
    environment = clean_environment | {"PYTHONIOENCODING": encoding}
    result = run(sys.executable, "-c", code, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr
    assert "0.1 " in result.stdout


def test_closed_standard_streams_are_no_error(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    command = f"{shlex.quote(sys.executable)} -m eai.train --cfg job <&- >&- 2>&-"
    assert run("bash", "-c", command, cwd=tmp_path, env=clean_environment).returncode == 0


def test_log_follows_no_symbolic_link_and_ends_with_the_run(tmp_path: Path) -> None:
    root, path = logging.getLogger(), tmp_path / "train.log"
    before = list(root.handlers)
    with log_to(path):
        root.warning("said")
    assert root.handlers == before
    assert path.read_text() == "said\n"
    (tmp_path / "link.log").symlink_to(path)
    with pytest.raises(OSError, match=r"link\.log"), log_to(tmp_path / "link.log"):
        pass


def test_verdict_says_what_was_reached_and_none_on_a_shortened_run() -> None:
    def verdict(value: float, *overrides: str) -> str | None:
        cfg = resolve(composed("train", ["experiment=tutorial_2_3", *overrides]))
        return _verdict(check_top_level(cfg), cfg, {cfg.expect.score: value})

    for value, said in ((1e9, "NOT reached with 1e+09"), (0.0, ": reached with 0")):
        assert said in str(verdict(value, "++expect.at_least=null", "++expect.at_most=1"))
        assert verdict(value, "trainer=debug") is None


def test_ctrl_c_leaves_a_checkpoint_a_status_and_exit_code_130(
    tmp_path: Path, clean_environment: dict[str, str]
) -> None:
    directory = tmp_path / "run"
    command = [sys.executable, "-m", "eai.train", *TINY, "epochs=100000", f"hydra.run.dir={directory}"]
    process = subprocess.Popen(command, cwd=tmp_path, env=clean_environment, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 90
        while not (directory / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
    finally:
        process.kill()
    status = json.loads((directory / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("PREEMPTED", 130)
    assert (directory / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheel_installed_elsewhere_carries_its_configuration(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    built = run(
        sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(REPOSITORY),
        cwd=tmp_path, env=clean_environment,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    # A new environment that sees this one's packages, except for the editable `eai`.
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    site = next((tmp_path / "venv" / "lib").glob("python*")) / "site-packages"
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (site / "borrowed.pth").write_text("\n".join(ours) + "\n")
    installed = run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel),
        cwd=tmp_path, env=clean_environment,
    )  # fmt: skip
    assert installed.returncode == 0, installed.stderr
    where = run(str(python), "-c", "import eai; print(eai.__file__)", cwd=tmp_path, env=clean_environment)
    assert where.stdout.startswith(str(site)), where.stdout + where.stderr
    result = run(str(python), "-m", "eai.train", *TINY, cwd=tmp_path, env=clean_environment)
    assert result.returncode == 0, result.stderr
    assert os.listdir(tmp_path / "outputs") == ["assimilation"]
