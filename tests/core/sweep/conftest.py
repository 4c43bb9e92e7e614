"""Configurations of sweeps, composed as Hydra does for its hooks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import hydra
import pytest
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from eai.core.cli import CONFIG_DIR

Composed = Callable[..., DictConfig]


@pytest.fixture
def composed() -> Iterator[Composed]:
    """``composed(*overrides)``: eai-train's configuration with Hydra's, which stays set until the next one."""

    def compose(*overrides: str) -> DictConfig:
        with initialize_config_dir(CONFIG_DIR):
            config = hydra.compose("train", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        return config

    before = HydraConfig.instance().cfg
    yield compose
    HydraConfig.instance().cfg = before
