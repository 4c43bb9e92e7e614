"""What the console commands share, kept free of torch so that ``--help`` and TAB are quick."""

from __future__ import annotations

import io
import logging
import os
import re
import secrets
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import TypeVar

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from eai.core.directory import no_links
from eai.core.errors import EaiError, Interrupted

log = logging.getLogger("eai")
T = TypeVar("T")

# What Hydra itself may build for eai. What a run is built from is checked in `eai.core.config`.
EXECUTION_WHITELIST = ("eai.core.sweep.hooks.Sweep",)
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


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
    """Run a Hydra application on the command line's arguments; say what Hydra refuses in one line.

    Args:
        app: decorated with ``hydra.main``.

    Raises:
        SystemExit: 1 for a mistake on the command line or in a configuration, 130 after Ctrl-C.
    """
    make_output_lenient()
    if sys.argv[1:] == ["--version"]:
        from eai import __version__

        print(f"eai {__version__}")
        return
    sys.argv[1:] = [split_group_choice(argument) for argument in sys.argv[1:]]
    if "HYDRA_FULL_ERROR" in os.environ:
        app()
        return
    # A folder that does not exist is refused by name, later.
    warnings.filterwarnings("ignore", message=r"provider=hydra.searchpath .* is not available")
    # Hydra then raises its errors instead of printing them over many lines.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        app()
    except (HydraException, OmegaConfBaseException) as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def make_output_lenient() -> None:
    """Let output never fail for want of an encoding or of a stream: what cannot be written becomes a question mark."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _one_line(error: Exception) -> str:
    """What Hydra refuses, without its search path, with the near misses of a name that is not there."""
    if isinstance(error, OverrideParseException) and "mismatched input '='" in str(error):
        key, _, value = error.override.partition("=")
        return f"{error.override}: a value that holds '=' needs quotes: '{key}=\"{value}\"'"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = error.missing_cfg_file.rpartition("/")
        close = get_close_matches(name, error.options or (), n=2, cutoff=0.5)
        guess = f"; did you mean {' or '.join(close)}?" if close else ""
        known = f" (known here: {', '.join(error.options)})" if error.options else ""
        return f"{group}={name}: there is no such choice{guess}{known}"
    if no_group := re.match(r"Could not override '((model|data)/\w+)'", str(error)):
        folders = sorted(f"{no_group[2]}/{folder.name}" for folder in Path(CONFIG_DIR, no_group[2]).iterdir())
        return f"{no_group[1]}: there is no such group (known here: {', '.join(folders)})"
    text = str(error).partition("Config search path")[0].partition("\nAvailable options")[0]
    cause = f" ({error.__cause__})" if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return " ".join(f"{text}{cause}".partition("See https")[0].split())


class _PlainText(logging.Formatter):
    """Messages without the escape codes that colour a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return _ANSI.sub("", super().format(record))


@contextmanager
def logged_to(path: Path) -> Iterator[None]:
    """Append what is logged inside to a file, in plain text, without following a symbolic link.

    Args:
        path: of the file; it is created, its folder is not.
    """
    with open(path, "a", encoding="utf-8", opener=no_links) as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(_PlainText("%(message)s"))
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)


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
