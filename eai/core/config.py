"""From a composed configuration to objects, with every mistake named by its key.

The signature of the class behind a ``_target_`` *is* the schema of its node; nothing is written
twice. Unknown keys, missing keys and wrong types are found before anything is built; ranges are
checked by the constructors with :func:`eai.core.errors.require`.
"""

from __future__ import annotations

import inspect
import re
import tempfile
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import hydra
from beartype import BeartypeConf
from beartype.door import is_bearable
from beartype.roar import BeartypeDecorHintPep585DeprecationWarning, BeartypeException
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.directory import RESOLVER
from eai.core.errors import ConfigError
from eai.core.files import PACKAGE, flat_keys
from eai.core.schema import Experiment
from eai.core.trust import OPTIMIZERS, hints_of, holds_no_nodes, kinds_in, root_kinds, trusted, whitelist

_PATHS = ("init_from", "model.forecast")  # beside data's own
_HYDRA_KEYS = {"_target_", "_partial_", "_convert_"}
_BANNED_KEYS = {"_recursive_", "_args_"}
_LOOSELY_TYPED = ("neuralop", "torch_geometric")  # libraries whose hints leave out that null is allowed
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
        is_path = key in _PATHS or (key.startswith("data.") and key.endswith(".path"))
        if is_path and isinstance(value, str) and "${" not in value and not value.startswith(PACKAGE):
            OmegaConf.update(copy, key, str(Path(value).expanduser().resolve()))
    copy.resume = None
    return copy


def check_top_level(cfg: DictConfig) -> Experiment:
    """Check the keys and values of a resolved configuration that need no torch; return them typed."""
    content = cast(dict[str, Any], OmegaConf.to_container(cfg))
    _check_arguments("", Experiment, content)
    return cast(Experiment, _construct("", Experiment, content))


def refuse_shared(cfg: DictConfig, keys: Iterable[str]) -> None:
    """Refuse to set a key below an interpolated node, which would change what other nodes take from the same place.

    Args:
        cfg: as composed, with its interpolations.
        keys: that are set; names of groups are no keys.

    Raises:
        ConfigError: names the key to set instead, which says that it changes both.
    """
    for key in keys:
        place = key
        while (further := _behind(cfg, place)) != place:
            place = further
        if place != key:
            raise ConfigError(f"{key}: would change {place}, which other nodes use too; set {place} if that is meant")


def _behind(cfg: DictConfig, key: str) -> str:
    """The key with the first node on its way that is interpolated replaced by where its content stands."""
    node: Any = cfg
    parts = key.split(".")
    for end, part in enumerate(parts[:-1], start=1):
        if not isinstance(node, DictConfig) or part not in node:
            break
        if OmegaConf.is_interpolation(node, part):
            source = str(cast(dict[str, Any], OmegaConf.to_container(node))[part])
            return ".".join([source.removeprefix("${").removesuffix("}"), *parts[end:]])
        node = node[part]
    return key


def check_experiment(cfg: DictConfig) -> Experiment:
    """Check a resolved configuration as a whole, before anything of it is called; return its typed top level."""
    experiment = check_top_level(cfg)
    content = cast(dict[str, Any], OmegaConf.to_container(cfg))
    for key, kinds in root_kinds().items():
        for problem in _problems(key, content.get(key, {}), kinds):
            raise ConfigError(problem)
    return experiment


@contextmanager
def named_by_key(key: str) -> Iterator[None]:
    """Turn what constructors refuse into a ``ConfigError`` that starts with the key of their node."""
    # Imports torch.
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except InstantiationException as error:
        raise ConfigError(str(error).replace("\n", " ")) from error
    except (ValueError, TypeError, MisconfigurationException) as error:
        # Hydra notes on the error which node was being built.
        notes = [note.removeprefix("full_key: ") for note in getattr(error, "__notes__", ()) if "full_key: " in note]
        where = notes[0] if notes else key
        joint = "." if re.match(r"[\w.]+: expected", str(error)) else ": "
        raise ConfigError(f"{where}{joint}{error}") from error


def build(cfg: DictConfig, key: str, **arguments: Any) -> Any:
    """Instantiate the node ``key``; a ``ConfigError`` says by key what cannot be built."""
    with named_by_key(key), _no_temporary_files():
        return hydra.utils.instantiate(cfg[key], _convert_="all", _execution_whitelist_=whitelist(), **arguments)


@contextmanager
def _no_temporary_files() -> Iterator[None]:
    """Remove what is written to the temporary folder inside: torch_geometric leaves a file for each kind of layer."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        tempfile.tempdir = folder
        try:
            yield
        finally:
            tempfile.tempdir = before


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
