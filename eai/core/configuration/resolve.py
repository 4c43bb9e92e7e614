"""What a composed configuration means: its interpolations, its paths, and which keys stand in two places."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.directory import RESOLVER
from eai.core.errors import ConfigError
from eai.core.files import PACKAGE, flat_keys

_PATHS = ("init_from", "model.forecast")  # beside data's own


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
