"""What the console commands share, kept free of torch so that ``--help`` and TAB are quick."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from omegaconf import OmegaConf

from eai.core.errors import EaiError, Interrupted

log = logging.getLogger("eai")
T = TypeVar("T")

# The only code that a configuration may name as a `_target_`. Never read from a configuration.
EXECUTION_WHITELIST = ("eai.*", "lightning.Trainer", "lightning.pytorch.trainer.trainer.Trainer", "torch.optim.*")


def find_config_dir(package: Path | None = None) -> Path:
    """The configuration folder: inside the package (wheel) or beside it (checkout)."""
    package = package or Path(__file__).resolve().parents[1]
    for candidate in (package / "conf", package.parent / "conf"):
        if (candidate / "train.yaml").is_file():
            return candidate
    raise EaiError(f"no configuration found: neither {package / 'conf'} nor {package.parent / 'conf'} exists")


CONFIG_DIR = str(find_config_dir())


def split_group_choice(argument: str) -> str:
    """Turn ``data=recovery/varied`` into ``data/recovery=varied``, the form that Hydra 1.4 matches.

    Both are accepted on the command line; comma-separated sweeps work if all share one folder.
    """
    key, equals, value = argument.partition("=")
    choices = [choice.rpartition("/") for choice in value.split(",")]
    folders = {folder for folder, _, _ in choices}
    if not equals or key not in ("data", "model") or len(folders) != 1 or folders == {""}:
        return argument
    return f"{key}/{folders.pop()}={','.join(name for _, _, name in choices)}"


def run_hydra(app: Callable[[], object]) -> None:
    """Run a Hydra application on the command line's arguments."""
    sys.argv[1:] = [split_group_choice(argument) for argument in sys.argv[1:]]
    app()


def call(function: Callable[[], T]) -> T:
    """Call ``function``; print what the user can mend as one line and exit with status 1."""
    try:
        return function()
    except EaiError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from error
    except Interrupted as stop:
        raise SystemExit(stop.exit_code) from stop
    except KeyboardInterrupt as stop:
        raise SystemExit(130) from stop


def _run_dir(resume: str | None, fresh: str) -> str:
    if not resume:
        return fresh
    # A checkpoint stands for the run that it belongs to.
    run = Path(resume).parents[1] if Path(resume).is_file() and Path(resume).suffix == ".ckpt" else Path(resume)
    if not (run / "config.yaml").is_file():
        # Said here, because Hydra is about to create the directory.
        print(f"error: resume: expected the directory of a run, or a checkpoint in one, got {resume}", file=sys.stderr)
        raise SystemExit(1)
    return str(run)


def _run_name() -> str:
    """A name for a run's directory: the time and a random id, or what all processes of one job have in common."""
    fresh = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{secrets.token_hex(2)}"
    torchrun = os.environ.get("TORCHELASTIC_RUN_ID")
    if torchrun:  # "none" without --rdzv-id
        return f"torchrun_{_agreed(fresh) if torchrun == 'none' else torchrun}"
    job, step = (os.environ.get(name) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    several = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1
    if job and step and (several or os.environ.get("ENVIRONMENT") == "BATCH"):
        # A requeued job keeps this name and therefore resumes. Commands typed in an interactive shell share its step.
        return f"slurm_{job}_{step}"
    return fresh


def _agreed(name: str) -> str:
    """The name that the first of torchrun's processes proposed; torchrun's store keeps it when it restarts them."""
    import torch.distributed as dist

    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)  # type: ignore[attr-defined]
    return store.compare_set("eai.run_name", "", name).decode()


OmegaConf.register_resolver("eai.run_name", _run_name, use_cache=True, replace=True)
OmegaConf.register_resolver("eai.run_dir", _run_dir, replace=True)
