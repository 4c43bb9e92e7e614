"""Names of sweeps and jobs: what was typed, readable, and a hash that finds the same place again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.directory import COSMETIC

# Neither changes what a job does: with or without them, a command means the same sweep.
_NOT_OF_THE_SWEEP = ("retry_failed", "trials")


def short_hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:6]


def swept_keys(overrides: Sequence[str], params: DictConfig | None) -> list[str]:
    """The keys that a command varies: those with several values or a range, and those of the sweeper's own search."""
    typed = [f"{key!s}={value}" for key, value in (params or {}).items()] + list(overrides)
    parsed = OverridesParser.create().parse_overrides(typed)
    # What is typed comes last, and may fix what the search would vary.
    varied = {_bare(item.get_key_element()): item.is_sweep_override() for item in parsed}
    return [key for key, is_varied in varied.items() if is_varied]


def _bare(key: str) -> str:
    return key.lstrip("+~").partition("@")[0]


def sweep_name(overrides: Sequence[str], swept: Sequence[str]) -> str:
    """What a sweep varies, and a hash of its command: the same command finds the same directory again."""
    command = sorted(item for item in overrides if _bare(item.partition("=")[0]) not in _NOT_OF_THE_SWEEP)
    return "_".join([*(_tail(key) for key in swept[:4]), short_hash(command)])


def job_name(cfg: DictConfig, swept: Sequence[str]) -> str:
    """The swept values of a job, and a hash of all its configuration but what only concerns reporting.

    No ``=`` and no comma, so that the name can be typed as a value on Hydra's command line.
    """
    choices = cfg.hydra.runtime.choices
    parts = []
    for key in swept:
        value = choices[key] if key in choices else OmegaConf.select(cfg, key)
        parts.append(f"{_tail(key)}-{format(value, '.4g') if isinstance(value, float) else value}")
    readable = re.sub(r"[^\w.+-]+", "-", "_".join(parts))[:100]
    nodes = [str(name) for name in cfg if name != "hydra"]
    content: Any
    try:
        content = OmegaConf.to_container(OmegaConf.masked_copy(cfg, nodes), resolve=True)
        content = {name: content[name] for name in nodes if name not in COSMETIC}
    except OmegaConfBaseException:  # told, with its key, when the job starts
        content = list(cfg.hydra.overrides.task)
    return "_".join(part for part in (readable, short_hash(content)) if part)


def _tail(key: str) -> str:
    return re.split(r"[./]", key)[-1]


def _hydra() -> DictConfig:
    config = HydraConfig.instance().cfg
    assert config is not None
    return config


def keys_of_this_sweep() -> list[str]:
    """The swept keys of the sweep that is being prepared."""
    hydra = _hydra().hydra
    return swept_keys(hydra.overrides.task, hydra.sweeper.get("params"))


def _sweep_name() -> str:
    return sweep_name(_hydra().hydra.overrides.task, keys_of_this_sweep())


def _job_name(swept: str, *, _root_: DictConfig) -> str:
    return job_name(_root_, [key for key in swept.split("|") if key])


# Resolved once for the whole sweep, before its first job: a job has only its own overrides.
OmegaConf.register_resolver("eai.sweep_name", _sweep_name, use_cache=True, replace=True)
OmegaConf.register_resolver("eai.swept", lambda: "|".join(keys_of_this_sweep()), use_cache=True, replace=True)
OmegaConf.register_resolver("eai.job_name", _job_name, replace=True)
