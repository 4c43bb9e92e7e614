"""What TensorBoard shows of a run: curves in order, command and configuration as text, a row of hyper-parameters.

It sorts groups of tags by name: ``test/…``, the headline's score of the best weights, one number; ``train/…``, the
loss, its terms and the pace; ``val/…``, the loss, the scores that the task has watched, and their references;
``val_best/…``, the monitored score of the best weights; ``views/…``, the figures.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import DictConfig, OmegaConf

from eai.core.directory import COSMETIC, RunDirectory
from eai.core.errors import ConfigError
from eai.core.files import read_json
from eai.core.learn.data import DataModule
from eai.core.learn.ranks import processes, rank
from eai.core.learn.scores import SampleMeans
from eai.core.learn.task import Task
from eai.core.style.wording import in_words

log = logging.getLogger("eai")
PACE, REFERENCE = "train/pace/", "val/reference/"  # groups of tags


def tensorboard_logger(run: RunDirectory, first_step: int = 0) -> TensorBoardLogger:
    """TensorBoard's logger; events newer than ``first_step``, if that is a resumption's, will be logged again.

    Args:
        run: the directory of the run.
        first_step: optimisation steps that were taken before.
    """
    return TensorBoardLogger(
        run.path,
        name=None,
        version="tensorboard",
        default_hp_metric=False,
        purge_step=(first_step + 1 if first_step else 0) if run.tensorboard.is_dir() else None,
        max_queue=1000,  # with torch's 10, training waits for the writer's thread
    )


class Board(L.Callback):
    """Curves beside the losses and scores, and a layout that puts together what belongs together.

    - ``val/reference/<method>``: the monitored validation score of the trivial baseline, of a strong classical method
      and of the optimum, as horizontal lines, so that the score tells what the network is worth while it trains;
    - ``train/pace/epoch``: epochs done, since the axis has steps;
    - ``train/pace/samples_per_second``: of training, in all processes together, without validations;
    - ``train/pace/learning_rate``;
    - ``train/pace/gradient_norm``: ‖∂L/∂θ‖₂ of the last step of the epoch, as the optimizer got it, clipped if it is.

    Every process needs it: references are scored on the samples of all.

    Args:
        cfg: the resolved configuration.
        run: the directory of the run.
    """

    def __init__(self, cfg: DictConfig, run: RunDirectory) -> None:
        self._cfg, self._run = cfg, run
        self._references: dict[str, float] = {}
        self._began, self._ended, self._steps = 0.0, 0.0, 0
        self._norm: float | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        self._references = _references(self._cfg, getattr(trainer, "datamodule"), pl_module)  # noqa: B009
        if (board := _board(trainer)) and trainer.global_step == 0:
            overrides = self._run.load_overrides()
            writer = board.experiment
            writer.add_text("run/command", f"    {shlex.join(['eai-train', *overrides])}")
            writer.add_text("run/configuration", _indented(OmegaConf.to_yaml(self._cfg)))
            self._log(trainer, self._references)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began, self._steps = time.monotonic(), trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        self._ended = time.monotonic()
        if trainer.is_last_batch:  # a validation, which may follow, removes the gradients
            # FSDP's are parts of a tensor of another type.
            gradients = [p.grad for p in pl_module.parameters() if type(p.grad) is torch.Tensor]
            self._norm = torch.nn.utils.get_total_norm(gradients).item() if gradients else None

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._log(trainer, self._references)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, Task)
        batches = (trainer.global_step - self._steps) * pl_module.optimization.accumulate
        data: DataModule[Any] = getattr(trainer, "datamodule")  # noqa: B009 - absent from Trainer's annotations
        samples = batches * data.batch_size * processes()
        rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        values = {f"{PACE}epoch": float(trainer.current_epoch + 1), f"{PACE}learning_rate": rate}
        if samples and self._ended > self._began:
            values[f"{PACE}samples_per_second"] = samples / (self._ended - self._began)
        if self._norm is not None:
            values[f"{PACE}gradient_norm"] = self._norm
        self._log(trainer, values)
        if trainer.current_epoch == 0 and (board := _board(trainer)):
            several = len(_terms(pl_module.latest)) > 1
            board.experiment.add_custom_scalars(_layout(str(self._cfg.monitor.score), list(self._references), several))

    def _log(self, trainer: L.Trainer, values: dict[str, float]) -> None:
        if values and (board := _board(trainer)):
            board.log_metrics(values, step=trainer.global_step)


def _board(trainer: L.Trainer) -> TensorBoardLogger | None:
    if rank():
        return None
    return next((one for one in trainer.loggers if isinstance(one, TensorBoardLogger)), None)


def _indented(text: str) -> str:
    """Markdown's way to show text as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def _terms(latest: Mapping[str, float]) -> list[str]:
    return [name for name in latest if name.startswith("train/") and name != "train/loss"]


def _layout(score: str, references: Sequence[str], several_terms: bool) -> dict[str, dict[str, list[Any]]]:
    """TensorBoard's custom scalars: charts of curves that are read together.

    Each reference has a chart of its own: the trivial one is often so far off that beside it the network and the
    optimum are one line.
    """
    charts = {
        f"{in_words(score)}: network and {in_words(name.rpartition('/')[2])}": [f"^{score}$", f"^{name}$"]
        for name in reversed(references)
    } or {in_words(score): [f"^{score}$"]}
    charts["Loss: training and validation"] = ["^train/loss$", "^val/loss$"]
    if several_terms:
        charts["Terms of the training loss"] = [f"^train/(?!loss$|{PACE.removeprefix('train/')})"]
    for name in ("learning_rate", "gradient_norm", "samples_per_second"):
        charts[in_words(name).capitalize()] = [f"^{PACE}{name}$"]
    return {"Training": {title: ["Multiline", tags] for title, tags in charts.items()}}


def _drawn(cfg: DictConfig, methods: Collection[str]) -> list[str]:
    """The references that TensorBoard draws: the worst first."""
    rivals = [name for name in methods if fnmatch(name, cfg.headline.get("rival") or "")]
    wanted = [cfg.headline.baseline, *rivals[:1], cfg.headline.optimum]
    return [name for name in dict.fromkeys(wanted) if name in methods]


@torch.no_grad()
def _references(cfg: DictConfig, data: DataModule[Any], task: Task) -> dict[str, float]:
    """The monitored score on the validation data of the trivial baseline, the rival and the optimum, where they exist.

    Random numbers of the training are left as they are.
    """
    found: dict[str, float] = {}
    key = str(cfg.monitor.score).removeprefix("val/")
    try:
        with torch.random.fork_rng():
            methods = task.baselines(data)
            for name in _drawn(cfg, methods):
                means = SampleMeans()
                for batch in data.val_dataloader():
                    batch = task.transfer_batch_to_device(batch, task.device, 0)
                    means.update(task.scores(batch, methods[name](batch)))
                if (value := task.summarise(means.compute_over_ranks()).get(key)) is not None:
                    found[f"{REFERENCE}{name}"] = value
    except Exception as error:  # a run matters more than its lines
        log.warning("no reference in TensorBoard: %s: %s", type(error).__name__, error)
    return found


def hyperparameters(cfg: DictConfig, overrides: Sequence[str], run: RunDirectory) -> dict[str, str | float]:
    """What TensorBoard's HParams tab shows of a run: in a sweep what is swept, else what was typed, and the seed.

    TensorBoard drops a None and with it the key, so that rows of one sweep would not line up; null becomes a text, and
    so does a list.

    Args:
        cfg: the resolved configuration.
        overrides: ``key=value`` and ``group=option``.
        run: the directory of the run.
    """
    swept = _swept(run)
    shown: dict[str, Any] = {}
    for override in overrides:
        key, _, typed = override.lstrip("+").partition("=")
        if key.partition(".")[0].startswith("hydra") or key in COSMETIC or override.startswith("~"):
            continue
        if swept and key not in swept:
            continue
        value = None if "/" in key else OmegaConf.select(cfg, key)
        shown[key] = typed if OmegaConf.is_dict(value) or "/" in key else value
    if not swept or not shown:
        shown.setdefault("seed", cfg.seed)
    return {key: "null" if value is None else _plain(value) for key, value in shown.items()}


def _swept(run: RunDirectory) -> list[str]:
    """The keys that the run's sweep varies; empty outside a sweep."""
    try:
        keys = read_json(run.path.parent / "sweep.json").get("swept")
    except ConfigError:
        return []
    return [str(key) for key in keys] if isinstance(keys, list) else []


def _plain(value: Any) -> str | float:
    return value if isinstance(value, str | int | float) else str(value)
