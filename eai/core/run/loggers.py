"""Where a run's scores go: TensorBoard, and beside it what the group ``logger`` of the configuration names.

Nothing of this is built for an evaluation of a run, nor by :func:`eai.load_run`.
"""

from __future__ import annotations

import csv
import fcntl
import io
import os
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from eai.core.configuration.build import build
from eai.core.directory import RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import flat_keys, no_links, write_whole
from eai.core.run.board import tensorboard_logger
from eai.core.schema import Experiment

# Libraries that a logger needs, and the extra of eai's that brings them.
_NEEDS = {"MLFlowLogger": ("mlflow", "mlflow"), "WandbLogger": ("wandb", "wandb")}
# Arguments that say where to write: a configuration may come with a stranger's run.
_PLACES = ("save_dir", "dir", "path", "artifact_location", "experiment")


class CSVLogger(Logger):
    """All scalars in one CSV file: a row a step, a column a name; rows of steps after a resumption's are written anew.

    Args:
        path: of the file.
        first_step: optimisation steps taken before; later rows of the file are dropped.
    """

    def __init__(self, path: str = "metrics.csv", first_step: int = 0) -> None:
        super().__init__()
        self._path, self._rows = Path(path), dict[int, dict[str, float | str]]()
        self._columns: list[str] = ["step"]
        self._whole = False  # whether the file is as the rows are
        if first_step and self._path.is_file():
            with open(self._path, newline="", opener=no_links) as file:
                for row in csv.DictReader(file):
                    if int(row["step"]) <= first_step:
                        self._rows[int(row["step"])] = {name: value for name, value in row.items() if value}
                        self._columns = list(row)

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> CSVLogger:
        return self

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *_: Any, **__: Any) -> None:
        """Nothing: ``config.yaml`` has them."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row: dict[str, float | str] = {"step": str(step or 0), **metrics}
        known = self._rows.setdefault(int(step or 0), {})
        fresh = self._whole and not known and row.keys() <= set(self._columns)
        known.update(row)
        if fresh:
            with open(self._path, "a", newline="", opener=no_links) as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerow(known)
            return
        self._columns += [name for name in row if name not in self._columns]
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows[number] for number in sorted(self._rows))
        write_whole(self._path, text.getvalue().encode())
        self._whole = True


def check_loggers(cfg: DictConfig) -> None:
    """Refuse loggers that could not be built, or would write elsewhere, before anything is written.

    Args:
        cfg: the resolved configuration.

    Raises:
        ConfigError: names the key.
    """
    for name, node in cfg.get("logger", {}).items():
        key = f"logger.{name}"
        if node is None:
            continue
        if not OmegaConf.is_dict(node) or "_target_" not in node:
            raise ConfigError(f"{key}: expected a logger or null, got {node!r}")
        package, _, kind = str(node["_target_"]).rpartition(".")
        if package.startswith(("eai.", "lightning.")):
            for place in _PLACES:
                if node.get(place) is not None:
                    raise ConfigError(f"{key}.{place}: expected nothing, as eai decides where a run writes")
            uri = node.get("tracking_uri")
            if uri is not None and not str(uri).startswith(("http://", "https://")):
                raise ConfigError(
                    f"{key}.tracking_uri: expected http(s)://… or null, got {uri!r}; for a local store set "
                    "MLFLOW_TRACKING_URI in the environment"
                )
        library, extra = _NEEDS.get(kind, (None, None))
        if library and not find_spec(library):
            raise ConfigError(f'{key}: needs the package {library}; pip install "eai[{extra}]"')


def build_loggers(cfg: DictConfig, experiment: Experiment, run: RunDirectory, first_step: int = 0) -> list[Logger]:
    """TensorBoard's logger, unless there is to be none, and those of the configuration.

    Args:
        cfg: the resolved configuration.
        experiment: its checked top level.
        run: the directory of the run.
        first_step: optimisation steps that were taken before.

    Raises:
        ConfigError: one cannot be built, or is none.
    """
    loggers: list[Logger] = [tensorboard_logger(run, first_step)] if experiment.tensorboard else []
    for name, node in experiment.logger.items():
        if node is None:
            continue
        given = _given(str(node["_target_"]).rpartition(".")[2], node, experiment, run, first_step)
        with _alone(_store("mlflow.lock")) if "run_id" in given else nullcontext():
            logger = build(cfg.logger, name, **given)
        if not isinstance(logger, Logger):
            raise ConfigError(f"logger.{name}: expected a logger, got {type(logger).__name__}")
        loggers.append(logger)
    return loggers


def _given(
    kind: str, node: Mapping[str, Any], experiment: Experiment, run: RunDirectory, first_step: int
) -> dict[str, Any]:
    """The arguments that eai decides: the place in the run, and the identity by which a resumed run goes on."""
    if kind == "CSVLogger":
        return {"path": str(run.path / "metrics.csv"), "first_step": first_step}
    if kind == "MLFlowLogger":
        known, ours = _mlflow_id(run), f"sqlite:///{_store('mlflow.db')}"
        # MLflow itself puts what it was told into the environment.
        uri = node.get("tracking_uri") or os.environ.get("MLFLOW_TRACKING_URI") or ours
        return {
            "run_id": known.read_text() if known.is_file() else None,
            "run_name": node.get("run_name") or run.path.name,
            "tracking_uri": uri,
            "artifact_location": str(_store("mlflow")) if uri == ours else None,
        }
    if kind == "WandbLogger":
        # Weights & Biases knows a run by its id, which has to be unique.
        identity = sha256(f"{run.path} {run.state().get('started')}".encode()).hexdigest()[:12]
        known = run.path / ".wandb_id"
        if not known.is_file():
            write_whole(known, identity.encode())
        return {
            "save_dir": str(run.path), "id": known.read_text(), "resume": "allow",
            "name": node.get("name") or run.path.name, "settings": {"console": "off", "silent": True},
        }  # fmt: skip
    return {}


def _mlflow_id(run: RunDirectory) -> Path:
    return run.path / ".mlflow_id"


def _store(name: str) -> Path:
    """One store for the runs of a working directory, so that they can be compared."""
    return Path("outputs").absolute() / name


@contextmanager
def published(loggers: Sequence[Logger], cfg: DictConfig, run: RunDirectory) -> Iterator[None]:
    """Tell loggers the configuration at the start, and how the run ended.

    Args:
        loggers: of the run.
        cfg: the resolved configuration.
        run: its directory.
    """
    others = [logger for logger in loggers if not isinstance(logger, TensorBoardLogger)]
    _begin(others, cfg, run)
    try:
        yield
    except BaseException:
        _end(others, "failed")
        raise
    _end(others, "success")


@rank_zero_only
def _begin(loggers: Sequence[Logger], cfg: DictConfig, run: RunDirectory) -> None:
    parameters = flat_keys(OmegaConf.to_container(cfg))
    for logger in loggers:
        if isinstance(logger, MLFlowLogger):
            known = _mlflow_id(run)
            if known.is_file():  # a resumed run; MLflow refuses parameters that changed, as epochs may
                continue
            with _alone(_store("mlflow.lock")):
                run_id = logger.run_id
            write_whole(known, str(run_id).encode())
        logger.log_hyperparams(parameters)


@rank_zero_only
def _end(loggers: Sequence[Logger], status: str) -> None:
    for logger in loggers:
        logger.finalize(status)
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=0 if status == "success" else 1)


def publish(loggers: Sequence[Logger], scores: Mapping[str, float], figures: Path, step: int) -> None:
    """Give loggers the final scores and the figures.

    Args:
        loggers: those beside TensorBoard; it has them already.
        scores: by name.
        figures: folder of images.
        step: of the scores.
    """
    images = [str(path) for path in sorted(figures.glob("*.png"))] if figures.is_dir() else []
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            continue
        logger.log_metrics(dict(scores), step=step)
        for image in images:
            if isinstance(logger, MLFlowLogger):
                logger.experiment.log_artifact(str(logger.run_id), image, "figures")
            elif isinstance(logger, WandbLogger):
                logger.log_image(f"figures/{Path(image).stem}", [image])


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Let one process in at a time: two that make MLflow's tables, or an experiment, at once fail."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", opener=no_links) as file:
        with suppress(OSError):  # no locks here
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
