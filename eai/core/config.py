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
from lightning.fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.cli import EXECUTION_WHITELIST
from eai.core.directory import RESOLVER, flat_keys
from eai.core.errors import ConfigError
from eai.core.schema import Experiment

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_", "_args_"}
_INT_IS_FLOAT = BeartypeConf(is_pep484_tower=True)


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


def check_experiment(cfg: DictConfig) -> Experiment:
    """Check a resolved configuration as a whole and return its typed top level."""
    content = cast(dict[str, Any], OmegaConf.to_container(cfg))
    _check_arguments("", Experiment, content)
    experiment = _construct("", Experiment, content)
    assert isinstance(experiment, Experiment)
    for key in ("data", "model", "trainer", "shared"):
        for problem in _problems(key, content.get(key, {})):
            raise ConfigError(problem)
    return experiment


@contextmanager
def named_by_key(key: str) -> Iterator[None]:
    """Turn what constructors refuse into a ``ConfigError`` that starts with the key of their node."""
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
        return hydra.utils.instantiate(
            cfg[key], _convert_="all", _execution_whitelist_=EXECUTION_WHITELIST, **arguments
        )


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
    if isinstance(node, dict) and "_target_" in node:
        arguments = {name: value for name, value in node.items() if name not in _HYDRA_KEYS}
        try:
            _check_arguments(key, _locate(key, node["_target_"]), arguments, bool(node.get("_partial_", False)))
        except ConfigError as error:
            yield str(error)
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, item in children:
        yield from _problems(_join(key, str(name)), item)


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
    return cast(Callable[..., Any], found)


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
