"""Loggers beside TensorBoard: what their stores hold, resumption, and what is refused."""

from __future__ import annotations

import csv
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import eai
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError, Interrupted, NonFiniteLossError
from eai.core.files import read_json
from eai.core.run.finished import evaluate
from eai.core.run.loggers import CSVLogger
from eai.tasks.assimilation.task import Assimilation
from tests.core.jobs import run as run_process
from tests.core.jobs import states
from tests.runs import TINY, Train, composed, curves_of

QUICK = (*TINY, "figures.at_end=false")


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def stop_after_epoch(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send this process SIGTERM in the given epoch, once."""
    plain = Assimilation.on_train_epoch_start if hasattr(Assimilation, "on_train_epoch_start") else None

    def stopping(task: Assimilation) -> None:
        if plain is not None:
            plain(task)
        if task.current_epoch == number:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Assimilation, "on_train_epoch_start", stopping)


def test_csv_has_the_curves_and_the_final_scores(train: Train) -> None:
    run = train(*QUICK, "logger=csv")
    table, curves = rows(run.path / "metrics.csv"), curves_of(run)
    for name in ("train/loss", "val/j_ratio"):
        told = [(int(row["step"]), float(row[name])) for row in table if row[name]]
        assert [step for step, _ in told] == [step for step, _ in curves[name]]
        assert [value for _, value in told] == pytest.approx([value for _, value in curves[name]])
    last, metrics = table[-1], read_json(run.metrics)
    assert float(last["test/j_ratio"]) == metrics["test/j_ratio"]
    assert float(last["baseline/blue/test/j_ratio"]) == pytest.approx(1.0)


def test_csv_of_a_run_that_was_stopped_and_resumed_is_that_of_one_that_was_not(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(*QUICK, "logger=csv", run="whole")
    with monkeypatch.context() as patch:
        stop_after_epoch(1, patch)
        with pytest.raises(Interrupted):
            train(*QUICK, "logger=csv", run="cut")
    cut = train(f"resume={whole.path.parent / 'cut'}", run="cut")
    assert (cut.path / "metrics.csv").read_text() == (whole.path / "metrics.csv").read_text()


def test_rows_after_the_checkpoint_are_dropped_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    before = CSVLogger(str(path))
    for step in (1, 2, 3):
        before.log_metrics({"a": float(step)}, step)
    before.log_metrics({"b": 7.0}, 3)
    after = CSVLogger(str(path), first_step=2)
    after.log_metrics({"a": 30.0}, 3)
    assert [(row["step"], row["a"], row["b"]) for row in rows(path)] == [
        ("1", "1.0", ""), ("2", "2.0", ""), ("3", "30.0", ""),
    ]  # fmt: skip


def test_without_tensorboard_a_run_is_complete_and_can_be_evaluated(train: Train) -> None:
    run = train(*TINY, "logger=none", "figures.every_n_epochs=1")
    assert not run.tensorboard.exists()
    assert len(list(run.figures.glob("*.png"))) > 3
    _, again = evaluate(composed("evaluate", [f"run={run.path}"]))
    assert read_json(again.metrics) == read_json(run.metrics)


# MLflow and Weights & Biases, for real.


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the store that a run in this working directory writes."""
    tracking = pytest.importorskip("mlflow.tracking", reason='needs the extra "mlflow"')
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return lambda: tracking.MlflowClient(f"sqlite:///{tmp_path / 'outputs' / 'mlflow.db'}")


@pytest.mark.filterwarnings("ignore")  # of MLflow's own
def test_mlflow_has_scores_parameters_and_figures_and_one_run_after_a_resumption(
    train: Train, mlflow: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_after_epoch(1, patch)
        with pytest.raises(Interrupted):
            train(*TINY, "logger=mlflow", "model.optimizer.lr=3e-3")
    client = mlflow()
    (experiment,) = [one for one in client.search_experiments() if one.name == "assimilation"]
    assert client.search_runs([experiment.experiment_id])[0].info.status == "FAILED"
    run = train(f"resume={Path('run').absolute()}", "epochs=4")
    (stored,) = client.search_runs([experiment.experiment_id])
    assert (stored.info.status, stored.info.run_name) == ("FINISHED", "run")
    assert stored.data.params["model.optimizer.lr"] == "0.003"
    curve = {point.step: point.value for point in client.get_metric_history(stored.info.run_id, "val/j_ratio")}
    assert curve == pytest.approx(dict(curves_of(run)["val/j_ratio"]))
    assert stored.data.metrics["test/j_ratio"] == read_json(run.metrics)["test/j_ratio"]
    assert stored.data.metrics["baseline/blue/test/j_ratio"] == pytest.approx(1.0)
    images = {Path(item.path).name for item in client.list_artifacts(stored.info.run_id, "figures")}
    assert images == {path.name for path in run.figures.glob("*.png")}


@pytest.mark.filterwarnings("ignore")
def test_run_that_fails_is_a_failed_one_in_mlflow(train: Train, mlflow: Any) -> None:
    with pytest.raises(NonFiniteLossError):
        train(*QUICK, "logger=mlflow", "model.optimizer.lr=1e30")
    (experiment,) = [one for one in mlflow().search_experiments() if one.name == "assimilation"]
    assert [one.info.status for one in mlflow().search_runs([experiment.experiment_id])] == ["FAILED"]


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_jobs_side_by_side_share_a_new_mlflow_store(tmp_path: Path, clean_environment: dict[str, str]) -> None:
    pytest.importorskip("mlflow", reason='needs the extra "mlflow"')
    command = ("-m", *QUICK, "logger=mlflow", "seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert run_process("train", *command, cwd=tmp_path, env=clean_environment) == 0
    (sweep,) = (tmp_path / "outputs" / "sweeps").iterdir()
    assert list(states(sweep).values()) == ["COMPLETED", "COMPLETED"]
    assert len({(job / ".mlflow_id").read_text() for job in sweep.glob("seed*")}) == 2


def log_records(content: bytes) -> Iterator[bytes]:
    """The records of a log in LevelDB's format: blocks of 32 KiB, pieces with checksum, length and kind."""
    block, place, parts = 32768, 7, b""
    content = bytes(7) + content
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        parts += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield parts
            parts = b""


@pytest.mark.filterwarnings("ignore")
def test_wandb_has_scores_parameters_and_figures_without_a_network(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason='needs the extra "wandb"')
    from wandb.proto.wandb_internal_pb2 import Record

    run = train(*TINY, "logger=wandb", "model.optimizer.lr=3e-3")
    (folder,) = run.path.glob("wandb/offline-run-*")
    assert (run.path / ".wandb_id").read_text() in folder.name
    (file,) = folder.glob("*.wandb")
    told: dict[str, str] = {}
    config, code = "", None
    for data in log_records(file.read_bytes()[7:]):
        record = Record.FromString(data)
        for item in record.history.item:
            told["/".join(item.nested_key) or item.key] = item.value_json
        config += str(record.run.config) + str(record.config)
        code = record.exit.exit_code if record.HasField("exit") else code
    assert float(told["test/j_ratio"]) == pytest.approx(read_json(run.metrics)["test/j_ratio"])
    assert "0.003" in config
    assert code == 0
    images = list(folder.glob("files/media/images/figures/*.png"))
    assert len(images) == len(list(run.figures.glob("*.png")))


# What is refused, and what is never built.


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+logger.csv=5"], r"^logger\.csv: expected a logger or null, got 5"),
        (["logger=csv", "+logger.csv.path=/tmp/x.csv"], r"^logger\.csv\.path: expected nothing"),
        (["logger=wandb", "+logger.wandb.save_dir=/tmp/x"], r"^logger\.wandb\.save_dir: expected nothing"),
        (
            ["logger=mlflow", "logger.mlflow.tracking_uri=file:///tmp/x"],
            r"^logger\.mlflow\.tracking_uri: expected http",
        ),
        (["logger=csv", "+logger.csv.colour=red"], r"^logger\.csv\.colour: unknown key"),
        (["+logger.x={_target_: torch.nn.ReLU}"], r"^logger\.x\._target_: expected Logger"),
        (["+logger.x={_target_: lightning.pytorch.loggers.CometLogger}"], r"^logger\.x\._target_: .*refused"),
        (["model.net._target_=lightning.pytorch.loggers.WandbLogger"], r"^model\.net\._target_: .*refused"),
        (["+trainer.logger=true"], r"^trainer\.logger: choose logger="),
    ],
)
def test_logger_that_cannot_be_is_refused_by_its_key_and_leaves_no_directory(
    overrides: list[str], message: str, train: Train, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        train(*QUICK, *overrides)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("name", "library"), [("mlflow", "mlflow"), ("wandb", "wandb")])
def test_logger_without_its_package_says_how_to_install_it(
    name: str, library: str, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("eai.core.run.loggers.find_spec", lambda asked: None)
    expected = rf'^logger\.{name}: needs the package {library}; pip install "eai\[{name}\]"'
    with pytest.raises(ConfigError, match=expected):
        train(*QUICK, f"logger={name}")


def test_logger_of_a_run_that_is_evaluated_or_loaded_is_never_built(finished: RunDirectory, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    node = {"_target_": "lightning.pytorch.loggers.WandbLogger", "save_dir": str(outside), "offline": True}
    for path in (finished.config, finished.path / ".hydra" / "config.yaml"):
        cfg = OmegaConf.load(path)
        OmegaConf.update(cfg, "logger", {"wandb": node})
        OmegaConf.save(cfg, path)
    eai.load_run(finished.path)
    evaluate(composed("evaluate", [f"run={finished.path}"]))
    assert not outside.exists()
    with pytest.raises(ConfigError, match=r"^logger\.wandb\.save_dir: expected nothing"):
        eai_train_resumed(finished)
    assert not outside.exists()


def eai_train_resumed(run: RunDirectory) -> None:
    from eai.core.run.run import train

    train(composed("train", [f"resume={run.path}", "epochs=4"]), run.path, [f"resume={run.path}", "epochs=4"])


def test_scores_with_loggers_are_those_without(train: Train) -> None:
    plain, logged = train(*QUICK, run="plain"), train(*QUICK, "logger=csv", run="logged")
    assert read_json(plain.metrics) == read_json(logged.metrics)
    weights, same = (torch.load(run.best, weights_only=True)["state_dict"] for run in (plain, logged))
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert all(math.isfinite(value) for value in read_json(logged.metrics).values())
