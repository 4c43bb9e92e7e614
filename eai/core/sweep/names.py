"""Names of sweeps and jobs: what varies, readable, and a hash that finds the same place again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.directory import COSMETIC

# Neither changes what a job does: with or without them, a command means the same sweep.
_NOT_OF_THE_SWEEP = ("retry_failed", "trials")
# Parts of a sweeper that do not change what Optuna searches, only how long and where.
_NOT_OF_THE_SEARCH = ("n_trials", "n_jobs", "storage", "study_name", "max_failure_rate")


def short_hash(content: Any) -> str:
    """Six hexadecimal digits that depend on ``content``, which JSON can hold or ``str`` can spell."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:6]


def typed_of(hydra_node: Any) -> list[str]:
    """The overrides as they were typed, interpolations and all; ``hydra_node`` is Hydra's configuration."""
    return cast(list[str], OmegaConf.to_container(hydra_node.overrides.task, resolve=False))


def overrides_of(config: DictConfig) -> dict[str, Override]:
    """The overrides of a sweep, parsed, by key: what is typed replaces ``params`` of the sweeper.

    Args:
        config: the sweep's configuration, with Hydra's.
    """
    params = config.hydra.sweeper.get("params") or {}
    texts = [f"{key!s}={value}" for key, value in params.items()] + typed_of(config.hydra)
    return {_bare(item.get_key_element()): item for item in OverridesParser.create().parse_overrides(texts)}


def keys_of(config: DictConfig) -> list[str]:
    """The keys that a sweep varies: those with several values or a range, typed or in the sweeper's ``params``."""
    return [key for key, item in overrides_of(config).items() if item.is_sweep_override()]


def _bare(key: str) -> str:
    return key.lstrip("+~").partition("@")[0]


def first_jobs(config: DictConfig) -> Iterator[dict[str, str]]:
    """Overrides, by key, of the first job, and of one more job for every other choice of a swept group."""
    values = {
        key: _values(item, key in config.hydra.runtime.choices or "/" in key)
        for key, item in overrides_of(config).items()
    }
    first = {key: options[0] for key, options in values.items() if options}
    yield first
    for key, options in values.items():
        for option in options[1:]:
            yield first | {key: option}


def _values(item: Override, is_group: bool) -> list[str]:
    """The values of an override, each as an override; only the first unless it chooses files of a group."""
    key = item.get_key_element()
    if item.is_choice_sweep() or item.is_range_sweep():
        return [f"{key}={value}" for value in item.sweep_string_iterator()][: None if is_group else 1]
    if item.is_sweep_override():
        interval = item.value()
        return [f"{key}={interval.start}"] if isinstance(interval, IntervalSweep) else []
    return [item.input_line or f"{key}={item.get_value_element_as_str()}"]


def sweep_name(config: DictConfig) -> str:
    """What a sweep varies, and a hash of its command: the same command finds the same directory again.

    Optuna learns from all trials of a study. There the hash is one of the whole search instead: the space, the sampler
    and the configuration that all trials share, however they were spelled.

    Args:
        config: the sweep's configuration, with Hydra's.
    """
    swept, typed = keys_of(config), typed_of(config.hydra)
    content: Any = sorted(item for item in typed if _bare(item.partition("=")[0]) not in _NOT_OF_THE_SWEEP)
    if is_optuna(config):
        sweeper = cast(dict[str, Any], OmegaConf.to_container(config.hydra.sweeper))
        content = {
            "sweeper": {key: value for key, value in sweeper.items() if key not in _NOT_OF_THE_SEARCH},
            "varied": sorted(str(overrides_of(config)[key].input_line) for key in swept),
            "objectives": list(config.objectives),
            "shared": _content(config),
        }
    return "_".join([*_labels(swept[:4]), short_hash(content)])


def is_optuna(config: DictConfig) -> bool:
    """Whether Optuna chooses the parameters of the sweep."""
    return "direction" in config.hydra.sweeper


def job_name(cfg: DictConfig, swept: Sequence[str]) -> str:
    """The swept values of a job, and a hash of its whole configuration except what only concerns reporting.

    Without ``=`` and comma, so that the name can be typed as a value on Hydra's command line.

    Args:
        cfg: the job's configuration, with Hydra's.
        swept: the keys that vary.
    """
    choices = cfg.hydra.runtime.choices
    parts = []
    for key, label in zip(swept, _labels(swept), strict=True):
        value = choices[key] if key in choices else OmegaConf.select(cfg, key)
        if key.endswith("_target_"):
            value = str(value).rpartition(".")[2]
        if OmegaConf.is_dict(value):
            value = "-".join(f"{name}-{item}" for name, item in value.items())
        parts.append(f"{label}-{format(value, '.4g') if isinstance(value, float) else value}")
    readable = re.sub(r"[^\w.+-]+", "-", "_".join(parts))[:100]
    return "_".join(part for part in (readable, short_hash(_content(cfg))) if part)


def _content(cfg: DictConfig) -> Any:
    """All that decides what a run comes to; the overrides where the configuration cannot be resolved."""
    nodes = [str(name) for name in cfg if name != "hydra"]
    try:
        content: Any = OmegaConf.to_container(OmegaConf.masked_copy(cfg, nodes), resolve=True)
        return {name: content[name] for name in nodes if name not in COSMETIC}
    except OmegaConfBaseException:  # reported, with its key, when the job starts
        return typed_of(cfg.hydra)


def _labels(keys: Sequence[str]) -> list[str]:
    """Short names of keys: the last part, or the last two where that is not unique.

    Of ``data/<task>`` and ``model/<task>`` it is the first part, of a ``_target_`` its node.
    """
    parts = [[part for part in re.split(r"[./]", key) if part != "_target_"] for key in keys]
    labels = [p[0] if key.startswith(("data/", "model/")) else p[-1] for key, p in zip(keys, parts, strict=True)]
    return [label if labels.count(label) == 1 else ".".join(p[-2:]) for label, p in zip(labels, parts, strict=True)]


def _job_name(swept: str, *, _root_: DictConfig) -> str:
    return job_name(_root_, [key for key in swept.split("|") if key])


def _this_sweep() -> DictConfig:
    # A resolver that Hydra's cache can keep gets no root.
    config = OmegaConf.select(cast(DictConfig, HydraConfig.get()), "..")
    assert isinstance(config, DictConfig)
    return config


# Resolved once for the whole sweep, before its first job: a job has only its own overrides.
OmegaConf.register_resolver("eai.sweep_name", lambda: sweep_name(_this_sweep()), use_cache=True, replace=True)
OmegaConf.register_resolver("eai.swept", lambda: "|".join(keys_of(_this_sweep())), use_cache=True, replace=True)
OmegaConf.register_resolver("eai.job_name", _job_name, replace=True)
