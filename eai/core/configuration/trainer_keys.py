"""What a configuration may say of Lightning's Trainer: arguments that other keys decide, and those that shorten a run.

Free of torch: checked before it is imported.
"""

from __future__ import annotations

from omegaconf import DictConfig

from eai.core.errors import ConfigError

# Arguments of the Trainer that something else decides: {argument: what to do instead}.
_DECIDED_ELSEWHERE = {
    **{name: f"set accelerator.{name}" for name in ("accelerator", "devices", "num_nodes", "precision", "strategy")},
    "gradient_clip_val": "set optimization.clip_norm",
    "gradient_clip_algorithm": "set optimization.clip_norm, the norm of all gradients together",
    "accumulate_grad_batches": "set optimization.accumulate",
    "default_root_dir": "set hydra.run.dir",
    "logger": "choose logger=…, as logger=csv",
    "enable_checkpointing": "a run always keeps its checkpoints; see reporting.checkpoint_every_n_epochs",
    "enable_progress_bar": "see reporting.line_every_n_epochs",
    "callbacks": "choose callbacks=…, as callbacks=early_stopping",
    "plugins": "set accelerator.strategy or accelerator.precision",
    "use_distributed_sampler": "every process gets its own part of the data",
    "sync_batchnorm": "not supported",
    "inference_mode": "not supported",
    "reload_dataloaders_every_n_epochs": "not supported; data.fresh draws new samples each epoch",
    "fast_dev_run": "use trainer=debug",
    "barebones": "use trainer=debug",
    "overfit_batches": "set trainer.limit_train_batches",
    "model_registry": "not supported",
}
# Values that old runs have and that change nothing.
_HARMLESS = {"accumulate_grad_batches": 1}
_SAME_AS = {"max_epochs": "epochs", "check_val_every_n_epoch": "validate_every_n_epochs"}
_LIMITS = ("limit_train_batches", "limit_val_batches", "limit_test_batches")
_SHORTENING = ("max_steps", "max_time")


def check_trainer(cfg: DictConfig) -> None:
    """Refuse arguments of the Trainer that would be ignored, or leave nothing to train or score.

    Meant for what is about to be trained: the directories of finished runs may hold such arguments.

    Raises:
        ConfigError: names the key, and the one to use instead.
    """
    for name, value in cfg.trainer.items():
        if value is not None and name in _DECIDED_ELSEWHERE and value != _HARMLESS.get(name):
            raise ConfigError(f"trainer.{name}: {_DECIDED_ELSEWHERE[name]}")
        if name in _SAME_AS and value != cfg[_SAME_AS[name]]:
            raise ConfigError(f"trainer.{name}: set {_SAME_AS[name]}, got {value!r}")
        if name in _LIMITS and value == 0:
            raise ConfigError(f"trainer.{name}: expected above 0, got {value!r}; trainer=debug takes two batches")


def is_shortened(cfg: DictConfig) -> bool:
    """Whether the Trainer is told to take less than all data, or to stop before ``epochs``."""
    # 1.0 is all, 1 is one batch.
    limited = any((value := cfg.trainer.get(name)) is not None and repr(value) != "1.0" for name in _LIMITS)
    return limited or any(cfg.trainer.get(name) not in (None, -1) for name in _SHORTENING)
