"""Check a configuration as a whole, with every mistake named by its key, before anything of it is called.

The signature of the class behind a ``_target_`` *is* the schema of its node; nothing is written
twice. Unknown keys, missing keys and wrong types are found before anything is built; ranges are
checked by the constructors with :func:`eai.core.errors.require`.
"""

from __future__ import annotations

import inspect
import re
import typing
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from typing import Any, cast

from beartype import BeartypeConf
from beartype.door import is_bearable
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning, BeartypeException
from omegaconf import DictConfig, OmegaConf

from eai.core.configuration.trust import OPTIMIZERS, hints_of, holds_no_nodes, kinds_in, root_kinds, trusted
from eai.core.errors import ConfigError
from eai.core.schema import Experiment

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_"}
_BANNED_KEYS = {"_recursive_", "_args_"}
_LOOSELY_TYPED = ("neuralop", "torch_geometric")  # libraries whose hints leave out that null is allowed
_INT_IS_FLOAT = BeartypeConf(is_pep484_tower=True)


def check_top_level(cfg: DictConfig) -> Experiment:
    """Check the keys and values of a resolved configuration that need no torch; return them typed."""
    content = cast(dict[str, Any], OmegaConf.to_container(cfg))
    _check_arguments("", Experiment, content)
    return cast(Experiment, _construct("", Experiment, content))


def check_experiment(cfg: DictConfig) -> Experiment:
    """Check a resolved configuration as a whole, before anything of it is called; return its typed top level."""
    experiment = check_top_level(cfg)
    content = cast(dict[str, Any], OmegaConf.to_container(cfg))
    for key, kinds in root_kinds().items():
        for problem in _problems(key, content.get(key, {}), kinds):
            raise ConfigError(problem)
    return experiment


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


def _problems(key: str, node: Any, kinds: tuple[type, ...]) -> Iterator[str]:
    """Every mistake at and below ``node``, outermost first: inner values are often interpolated from outer ones.

    Args:
        key: of the node.
        node: as plain dictionaries, lists and values.
        kinds: classes that it, or what it holds, may be built of; empty: any of ours.
    """
    hints: dict[str, Any] | None = None
    if isinstance(node, dict) and "_target_" in node:
        if banned := sorted(_BANNED_KEYS & node.keys()):
            yield f"{_join(key, banned[0])}: not supported; name the arguments by their keys"
            return
        arguments = {name: value for name, value in node.items() if name not in _HYDRA_KEYS}
        try:
            target = trusted(key, node["_target_"], kinds)
            hints = hints_of(_signed(target))
            _check_arguments(key, target, arguments, bool(node.get("_partial_", False)))
        except ConfigError as error:
            yield str(error)
        if holds_no_nodes(str(node["_target_"])) and (inner := _first_target(key, arguments)):
            yield f"{inner}._target_: expected a plain value, got a node; refused"
            return
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, item in children:
        below = kinds if hints is None else kinds_in(hints.get(str(name)))
        yield from _problems(_join(key, str(name)), item, below)


def _first_target(key: str, node: Any) -> str | None:
    """The key of the first node below ``key`` that is to be built."""
    if isinstance(node, dict) and "_target_" in node:
        return key
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return next((found for name, item in children if (found := _first_target(_join(key, str(name)), item))), None)


def _signed(target: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose type hints describe a call of ``target``."""
    return target.__init__ if inspect.isclass(target) and not is_dataclass(target) else target


def parameters_of(target: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    """The parameters of a call of ``target`` and their hints; ``**kwargs: Unpack[TypedDict]`` stands for its keys.

    Args:
        target: a class or function that a configuration may build.
    """
    parameters, hints = dict(inspect.signature(target).parameters), hints_of(_signed(target))
    for name, parameter in list(parameters.items()):
        hint = hints.get(name)
        if parameter.kind is parameter.VAR_KEYWORD and typing.get_origin(hint) is typing.Unpack:
            (keys,) = typing.get_args(hint)
            del parameters[name]
            for key, inner in typing.get_type_hints(keys).items():
                default = parameter.empty if key in keys.__required_keys__ else None
                parameters[key] = inspect.Parameter(key, parameter.KEYWORD_ONLY, default=default)
                hints[key] = inner
    return parameters, hints


def _check_arguments(key: str, target: Callable[..., Any], arguments: Mapping[str, Any], partial: bool = False) -> None:
    parameters, hints = parameters_of(target)
    for name, value in arguments.items():
        if name not in parameters or parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            open_ended = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())
            # The library's optimizers take any key, and ignore those that they do not know.
            if open_ended and target.__module__.partition(".")[0] != OPTIMIZERS:
                continue
            close = get_close_matches(name, parameters, n=1)
            guess = f"; did you mean {close[0]!r}?" if close else ""
            known = ", ".join(each for each in parameters if parameters[each].kind is not inspect.Parameter.VAR_KEYWORD)
            raise ConfigError(f"{_join(key, name)}: unknown key{guess} (known here: {known})")
        if value is None and target.__module__.partition(".")[0] in _LOOSELY_TYPED:
            continue
        _check_value(_join(key, name), hints.get(name, Any), value)
    # Skip missing-argument checks for partials; code supplies the rest.
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
    kinds = {hint, *typing.get_args(hint)} if isinstance(value, bool) else set()
    bool_as_number = bool(kinds & {int, float}) and bool not in kinds
    if bool_as_number or not _is_a(value, hint):
        raise ConfigError(f"{key}: expected {_spell(hint)}, got {value!r} ({type(value).__name__})")


def _is_a(value: Any, hint: Any) -> bool:
    """Whether a value of YAML, whose lists stand for tuples too, is what a hint asks for."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BeartypeDecorHintPep585DeprecationWarning)  # of a library's own hints
            fits = is_bearable(value, hint, conf=_INT_IS_FLOAT)
            return fits or (isinstance(value, list) and is_bearable(tuple(value), hint, conf=_INT_IS_FLOAT))
    except BeartypeException:  # somebody else's hint that cannot be checked
        return True


def _dataclass_in(hint: Any) -> type | None:
    for candidate in (hint, *typing.get_args(hint)):
        if inspect.isclass(candidate) and is_dataclass(candidate):
            return candidate
    return None


def _spell(hint: Any) -> str:
    if hint is Any:
        return "a value"
    return hint.__name__ if inspect.isclass(hint) else re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(hint))


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
