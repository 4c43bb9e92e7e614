"""From a composed configuration to objects, with every mistake named by its key.

The signature of the class behind a ``_target_`` *is* the schema of its node; nothing is written
twice. Unknown keys, missing keys and wrong types are found before anything is built; ranges are
checked by the constructors with :func:`eai.core.errors.require`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import hydra
from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.directory import RESOLVER, flat_keys
from eai.core.errors import ConfigError
from eai.core.schema import Experiment

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}
_INT_IS_FLOAT = BeartypeConf(is_pep484_tower=True)
# Hydra's own check of what it calls, behind ours.
_WHITELIST = ("eai.tasks.*", "lightning.Trainer", "lightning.pytorch.trainer.trainer.Trainer", "torch.optim.*")
# Arguments of lightning.Trainer that eai sets itself, with the key that says the same.
_OURS = {
    "accelerator": "accelerator.accelerator",
    "devices": "accelerator.devices",
    "num_nodes": "accelerator.num_nodes",
    "strategy": "accelerator.strategy",
    "precision": "accelerator.precision",
    "gradient_clip_val": "optimization.clip_norm",
    "gradient_clip_algorithm": "optimization.clip_norm, of the Euclidean norm",
    "accumulate_grad_batches": "optimization.accumulate",
    "fast_dev_run": "trainer=debug",
    "barebones": "figures.at_end=false and trainer=debug",
    "overfit_batches": "trainer.limit_train_batches",
    "default_root_dir": "hydra.run.dir",
    "logger": "none: a run logs to TensorBoard",
    "callbacks": "none: callbacks cannot be added yet",
    "plugins": "none: eai chooses them",
    "enable_progress_bar": "none: a terminal has a bar, a file has lines",
    "enable_checkpointing": "none: a run always keeps its best and its last checkpoint",
    "use_distributed_sampler": "none: eai divides samples without padding",
    "reload_dataloaders_every_n_epochs": "data.fresh",
}


def resolve(cfg: DictConfig) -> DictConfig:
    """A copy without interpolations; a ``ConfigError`` names the one that cannot be resolved."""
    try:
        return cast(DictConfig, OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from error


def portable(cfg: DictConfig) -> DictConfig:
    """A copy that means the same elsewhere: resolvers replaced by their values, paths of files absolute.

    Interpolations between keys stay alive, so that sizes follow when one of them is changed later.

    Args:
        cfg: as composed by Hydra.

    Raises:
        ConfigError: a resolver has no value; names its key.
    """
    plain = OmegaConf.to_container(cfg)
    copy = cast(DictConfig, OmegaConf.create(plain))
    for key, value in flat_keys(plain).items():
        if not isinstance(value, str):
            continue
        if RESOLVER.search(value):
            try:
                OmegaConf.update(copy, key, OmegaConf.select(cfg, key))
            except OmegaConfBaseException as error:
                raise ConfigError(f"{key}: {str(error).splitlines()[0]}") from error
            value = OmegaConf.select(copy, key)
        if isinstance(value, str) and (key == "init_from" or (key.startswith("data.") and key.endswith(".path"))):
            OmegaConf.update(copy, key, str(Path(value).resolve()))
    copy.resume = None
    return copy


def check_top_level(cfg: DictConfig) -> Experiment:
    """The typed top level of a resolved configuration; knows nothing of what its nodes build, and imports no torch.

    Args:
        cfg: the resolved configuration.

    Raises:
        ConfigError: names the key that is unknown, missing, of another type or out of range.
    """
    content = cast(dict[str, Any], OmegaConf.to_container(cfg))
    _check_arguments("", Experiment, content)
    return cast(Experiment, _construct("", Experiment, content))


def check_experiment(cfg: DictConfig) -> Experiment:
    """Check a resolved configuration as a whole and return its typed top level.

    Args:
        cfg: the resolved configuration.

    Raises:
        ConfigError: names the first mistake by its key. Nothing was built.
    """
    experiment = check_top_level(cfg)
    for key in ("data", "model", "trainer", "shared"):
        for problem in _problems(key, OmegaConf.to_container(cfg.get(key, OmegaConf.create()))):
            raise ConfigError(problem)
    return experiment


def check_trainer(cfg: DictConfig) -> None:
    """Check what a training, and not only a loaded run, needs of ``cfg.trainer``.

    Args:
        cfg: the resolved configuration.

    Raises:
        ConfigError: an argument of the Trainer has a key of its own, or leaves nothing to train, validate or test on.
    """
    trainer = cfg.trainer
    for name, instead in _OURS.items():
        harmless = {"accumulate_grad_batches": 1, "fast_dev_run": False, "overfit_batches": 0.0}.get(name)
        if (value := trainer.get(name)) is not None and (harmless is None or value != harmless):
            raise ConfigError(f"trainer.{name}: is not passed on; set {instead}")
    for name, key in (("max_epochs", "epochs"), ("check_val_every_n_epoch", "validate_every_n_epochs")):
        if trainer.get(name) not in (None, cfg[key]):
            raise ConfigError(f"trainer.{name}: set {key}, which schedules and sweeps follow; got {trainer[name]}")
    for split in ("train", "val", "test"):
        if trainer.get(f"limit_{split}_batches", 1.0) == 0:
            raise ConfigError(f"trainer.limit_{split}_batches: expected above 0, got 0; trainer=debug is a quick look")


def is_shortened(cfg: DictConfig) -> bool:
    """Whether the Trainer ends a run early or skips data, so that its scores say nothing of the experiment."""
    trainer = cfg.trainer
    limits = (trainer.get(f"limit_{split}_batches", 1.0) != 1.0 for split in ("train", "val", "test"))
    return any(limits) or any(trainer.get(name) not in (None, -1) for name in ("max_steps", "max_time"))


@contextmanager
def named_by_key(key: str) -> Iterator[None]:
    """Turn what constructors refuse into a ``ConfigError`` that starts with the key of their node."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except InstantiationException as error:
        raise ConfigError(str(error).replace("\n", " ")) from error
    except (ValueError, TypeError, MisconfigurationException) as error:
        # Hydra notes on the error which node was being built.
        notes = [note.removeprefix("full_key: ") for note in getattr(error, "__notes__", ()) if "full_key: " in note]
        where = notes[0] if notes else key
        joint = "." if re.match(r"\w+: expected", str(error)) else ": "
        raise ConfigError(f"{where}{joint}{error}") from error


def build(cfg: DictConfig, key: str, **arguments: Any) -> Any:
    """Instantiate the node ``key``; a ``ConfigError`` says by key what cannot be built."""
    with named_by_key(key):
        return hydra.utils.instantiate(cfg[key], _convert_="all", _execution_whitelist_=_WHITELIST, **arguments)


def _construct(key: str, cls: type, content: Mapping[str, Any]) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in content.items():
        inner = _dataclass_in(hints[name])
        values[name] = _construct(_join(key, name), inner, value) if inner and value is not None else value
    try:
        return cls(**values)
    except ValueError as error:
        raise ConfigError(_join(key, str(error))) from error


def _problems(key: str, node: Any) -> Iterator[str]:
    """Every mistake at and below ``node``, outermost first: inner values are often interpolated from outer ones."""
    if isinstance(node, dict) and "_args_" in node:
        yield f"{_join(key, '_args_')}: expected arguments by name"
    if isinstance(node, dict) and "_target_" in node:
        arguments = {name: value for name, value in node.items() if name not in _HYDRA_KEYS}
        try:
            _check_arguments(key, _locate(key, node["_target_"]), arguments, bool(node.get("_partial_", False)))
        except ConfigError as error:
            yield str(error)
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, item in children:
        yield from _problems(_join(key, str(name)), item)


def _locate(key: str, target: Any) -> Callable[..., Any]:
    """The class, or the factory of a graph, that a configuration may build at ``key``.

    A run directory may come from a stranger: what builds a run must not do anything else.
    """
    module_name, _, name = target.rpartition(".") if isinstance(target, str) else ("", "", "")
    where = _join(key, "_target_")
    private = any(part.startswith("_") for part in f"{module_name}.{name}".split("."))
    ours = module_name.startswith("eai.tasks.") and key.partition(".")[0] in ("data", "model", "shared")
    torchs = key.endswith((".optimizer", ".scheduler")) and module_name in ("torch.optim", "torch.optim.lr_scheduler")
    trainer = key == "trainer" and target in _WHITELIST
    if private or not (ours or torchs or trainer):
        kinds = {
            "trainer": "lightning.Trainer",
            "optimizer": "a class of torch.optim",
            "scheduler": "one of its schedules",
        }
        expected = kinds.get(key.rpartition(".")[2], "a class of eai.tasks")
        raise ConfigError(f"{where}: expected {expected}, got {target!r}; refused")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{where}: {target!r} does not exist ({error})") from error
    if trainer:
        return cast(Callable[..., Any], found)
    if ours:
        # Not what a module merely imports; functions only where they make graphs.
        home = (getattr(found, "__module__", None), getattr(found, "__qualname__", None)) == (module_name, name)
        fits = home and (inspect.isclass(found) or (inspect.isfunction(found) and module_name.endswith(".graphs")))
    else:
        from torch.optim import Optimizer
        from torch.optim.lr_scheduler import LRScheduler

        fits = inspect.isclass(found) and issubclass(found, Optimizer if key.endswith(".optimizer") else LRScheduler)
    if not fits:
        raise ConfigError(f"{where}: {target!r} is not a class that builds {key.rpartition('.')[2]}; refused")
    return cast(Callable[..., Any], found)


def _check_arguments(key: str, target: Callable[..., Any], arguments: Mapping[str, Any], partial: bool = False) -> None:
    parameters = inspect.signature(target).parameters
    owner = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
    try:
        hints = typing.get_type_hints(owner)
    except NameError:  # annotations that only a type checker can read, as those of torch's schedulers
        hints = {}
    for name, value in arguments.items():
        if name not in parameters:
            close = get_close_matches(name, parameters, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(parameters)
            raise ConfigError(f"{_join(key, name)}: unknown key{guess} (known here: {known})")
        _check_value(_join(key, name), hints.get(name, Any), value)
    # What code passes at the call (a net's parameters to an optimizer) cannot stand in the configuration.
    if not partial:
        for name, parameter in parameters.items():
            optional = parameter.default is not parameter.empty or parameter.kind in (
                parameter.VAR_POSITIONAL,
                parameter.VAR_KEYWORD,
            )
            if not optional and name not in arguments:
                raise ConfigError(f"{_join(key, name)}: missing; expected {_spell(hints.get(name, Any))}")


def _check_value(key: str, hint: Any, value: Any) -> None:
    inner = _dataclass_in(hint)
    if inner and isinstance(value, dict):
        _check_arguments(key, inner, value)
        return
    if isinstance(value, dict) and "_target_" in value:
        return
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return
    bool_as_number = isinstance(value, bool) and hint in (int, float, int | None, float | None)
    if bool_as_number or not is_bearable(value, hint, conf=_INT_IS_FLOAT):
        raise ConfigError(f"{key}: expected {_spell(hint)}, got {value!r} ({type(value).__name__})")


def _dataclass_in(hint: Any) -> type | None:
    for candidate in (hint, *typing.get_args(hint)):
        if inspect.isclass(candidate) and is_dataclass(candidate):
            return candidate
    return None


def _spell(hint: Any) -> str:
    if hint is Any:
        return "a value"
    return hint.__name__ if inspect.isclass(hint) else str(hint).replace("typing.", "")


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
