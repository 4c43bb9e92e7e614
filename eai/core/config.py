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
from dataclasses import dataclass, field, is_dataclass
from difflib import get_close_matches
from typing import Any, Literal

import hydra
from beartype import BeartypeConf
from beartype.door import is_bearable
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.command import EXECUTION_WHITELIST
from eai.core.errors import ConfigError, EaiError, require

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_INT_IS_FLOAT = BeartypeConf(is_pep484_tower=True)


@dataclass
class Monitor:
    """The validation score that chooses the best checkpoint and is returned to a sweep."""

    score: str
    mode: Literal["min", "max"] = "min"

    def __post_init__(self) -> None:
        require(self.score.startswith("val/"), "score", "a validation score, val/…", self.score)


@dataclass
class Accelerator:
    """Where a run computes. ``threads`` are torch's on a CPU; null leaves torch's own choice."""

    accelerator: str
    devices: int | str = 1
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = None

    def __post_init__(self) -> None:
        require(self.threads is None or self.threads >= 1, "threads", "null or at least 1", self.threads)
        require(
            self.devices in (1, "auto"), "devices", "1 (several processes per run are not supported yet)", self.devices
        )
        require(self.num_nodes == 1, "num_nodes", "1 (several nodes per run are not supported yet)", self.num_nodes)


@dataclass
class FigureSchedule:
    """When figures are drawn into TensorBoard: each ``every_n_epochs``; 0 leaves the final ones only."""

    every_n_epochs: int = 0

    def __post_init__(self) -> None:
        require(self.every_n_epochs >= 0, "every_n_epochs", "0 or more", self.every_n_epochs)


@dataclass
class Reporting:
    """How often a run says where it stands: a line, and ``last.ckpt``."""

    line_every_n_epochs: int = 1
    checkpoint_every_n_epochs: int = 1

    def __post_init__(self) -> None:
        for name in ("line_every_n_epochs", "checkpoint_every_n_epochs"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))


@dataclass
class Expectation:
    """What an experiment should reach: ``score`` at most or at least so much, in ``source``."""

    source: str
    score: str
    at_most: float | None = None
    at_least: float | None = None

    def met_by(self, value: float) -> bool:
        above = self.at_least is None or value >= self.at_least
        return above and (self.at_most is None or value <= self.at_most)

    def __str__(self) -> str:
        bounds = [f"≥ {self.at_least:g}"] if self.at_least is not None else []
        bounds += [f"≤ {self.at_most:g}"] if self.at_most is not None else []
        return f"{self.score} {' and '.join(bounds)} ({self.source})"


@dataclass
class Headline:
    """What the summary table shows: ``score``, the ``baseline`` to beat, and the ``optimum``, if known."""

    score: str
    baseline: str
    optimum: str | None = None


@dataclass
class Experiment:
    """The top level of ``conf/train.yaml``. Nodes with a ``_target_`` are checked by their signatures."""

    task: str
    data: dict[str, Any]
    model: dict[str, Any]
    trainer: dict[str, Any]
    accelerator: Accelerator
    monitor: Monitor
    headline: Headline
    seed: int = 0
    figures: FigureSchedule = field(default_factory=FigureSchedule)
    reporting: Reporting = field(default_factory=Reporting)
    expect: Expectation | None = None
    resume: str | None = None

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", "0 or more", self.seed)


def resolve(cfg: DictConfig) -> DictConfig:
    """A copy without interpolations; a ``ConfigError`` names the one that cannot be resolved."""
    try:
        return OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'configuration'}: {str(error).splitlines()[0]}") from error


def check_experiment(cfg: DictConfig) -> Experiment:
    """Check a resolved configuration as a whole and return its typed top level."""
    content = OmegaConf.to_container(cfg)
    assert isinstance(content, dict)
    _check_arguments("", Experiment, content)
    experiment = _construct("", Experiment, content)
    assert isinstance(experiment, Experiment)
    for key in ("data", "model", "trainer"):
        for problem in _problems(key, content[key]):
            raise ConfigError(problem)
    return experiment


def build(cfg: DictConfig, key: str, **arguments: Any) -> Any:
    """Instantiate the node ``key``; what its constructors refuse becomes a ``ConfigError`` with the key."""
    try:
        return hydra.utils.instantiate(cfg[key], _convert_="all", **arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, EaiError):
            raise cause from error
        if not isinstance(cause, ValueError | TypeError):
            raise ConfigError(str(error).replace("\n", " ")) from error
        match = re.search(r"full_key: (\S+)", str(error))
        where = match.group(1) if match else key
        where = where if where.split(".")[0] == key else f"{key}.{where}"
        joint = "." if re.match(r"\w+: expected", str(cause)) else ": "
        raise ConfigError(f"{where}{joint}{cause}") from error


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
    """Every mistake below ``node``, deepest constructor first."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            yield from _problems(f"{key}[{i}]", item)
    if not isinstance(node, dict):
        return
    for name, item in node.items():
        yield from _problems(_join(key, str(name)), item)
    if "_target_" in node:
        try:
            _check_arguments(
                key,
                _locate(key, node["_target_"]),
                {name: value for name, value in node.items() if name not in _HYDRA_KEYS},
                partial=bool(node.get("_partial_", False)),
            )
        except ConfigError as error:
            yield str(error)


def _locate(key: str, target: str) -> Callable[..., Any]:
    """The trusted class or function behind ``target``."""

    def trusted(name: str) -> bool:
        return any(name == rule or (rule.endswith(".*") and name.startswith(rule[:-1])) for rule in EXECUTION_WHITELIST)

    if not trusted(target):
        raise ConfigError(
            f"{_join(key, '_target_')}: expected one of {', '.join(EXECUTION_WHITELIST)}, got {target!r}; refused"
        )
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{_join(key, '_target_')}: {target!r} does not exist ({error})") from error
    if not callable(found) or not trusted(f"{found.__module__}.{found.__qualname__}"):
        raise ConfigError(f"{_join(key, '_target_')}: {target!r} is not a class or function of ours; refused")
    return typing.cast(Callable[..., Any], found)


def _check_arguments(key: str, target: Callable[..., Any], arguments: Mapping[str, Any], partial: bool = False) -> None:
    parameters = inspect.signature(target).parameters
    owner = target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target
    hints = typing.get_type_hints(owner)
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
            if parameter.default is parameter.empty and name not in arguments and parameter.kind != parameter.VAR_KEYWORD:
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
    if bool_as_number or not (is_bearable(value, hint, conf=_INT_IS_FLOAT) or _as_tuple(value, hint)):
        raise ConfigError(f"{key}: expected {_spell(hint)}, got {value!r} ({type(value).__name__})")


def _as_tuple(value: Any, hint: Any) -> bool:
    # YAML has no tuples; constructors may ask for one.
    return isinstance(value, list) and is_bearable(tuple(value), hint, conf=_INT_IS_FLOAT)


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
