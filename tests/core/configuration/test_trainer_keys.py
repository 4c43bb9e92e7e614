"""Arguments of Lightning's Trainer that eai decides elsewhere are refused, with the key to use."""

from __future__ import annotations

import re

import pytest

from eai.core.configuration.check import check_experiment
from eai.core.configuration.resolve import resolve
from eai.core.configuration.trainer_keys import check_trainer, is_shortened
from eai.core.errors import ConfigError
from tests.runs import composed


@pytest.mark.parametrize(
    ("override", "instead"),
    [
        ("+trainer.precision=64-true", "set accelerator.precision"),
        ("+trainer.devices=2", "set accelerator.devices"),
        ("+trainer.strategy=nonsense", "set accelerator.strategy"),
        ("+trainer.default_root_dir=x", "set hydra.run.dir"),
        ("+trainer.logger=false", "choose logger="),
        ("+trainer.enable_checkpointing=false", "checkpoints"),
        ("+trainer.gradient_clip_val=1.0", "set optimization.clip_norm"),
        ("+trainer.accumulate_grad_batches=2", "set optimization.accumulate"),
        ("+trainer.fast_dev_run=true", "trainer=debug"),
        ("+trainer.overfit_batches=0.5", "set trainer.limit_train_batches"),
        ("trainer.limit_test_batches=0", "expected above 0, got 0"),
        ("trainer.max_epochs=3", "set epochs, got 3"),
        ("trainer.check_val_every_n_epoch=3", "set validate_every_n_epochs, got 3"),
    ],
)
def test_argument_of_the_trainer_that_would_be_ignored_names_the_key_to_use(override: str, instead: str) -> None:
    cfg = resolve(composed("train", ["task=assimilation", "epochs=20", override]))
    key = override.lstrip("+").partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{re.escape(key)}: .*{re.escape(instead)}"):
        check_trainer(cfg)
    check_experiment(cfg)  # the directory of an old run may say so


@pytest.mark.parametrize(
    ("overrides", "shortened"),
    [
        ([], False),
        (["epochs=1"], False),
        (["trainer=debug"], True),
        (["trainer.limit_train_batches=1"], True),
        (["+trainer.max_steps=5"], True),
        (["+trainer.gradient_clip_val=null", "+trainer.accumulate_grad_batches=1"], False),
    ],
)
def test_shortened_run_is_known_by_its_trainer(overrides: list[str], shortened: bool) -> None:
    cfg = resolve(composed("train", ["task=assimilation", *overrides]))
    check_trainer(cfg)
    assert is_shortened(cfg) is shortened
