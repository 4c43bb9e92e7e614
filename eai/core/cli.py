"""What the console commands share, kept free of torch so that ``--help`` and TAB are quick."""

from __future__ import annotations

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
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.plugins.plugin import Plugin
from omegaconf import DictConfig, OmegaConf

from eai.core.errors import ConfigError, EaiError, Interrupted
from eai.core.files import no_links
from eai.core.packages import PackagesPath, config_folders

log = logging.getLogger("eai")
T = TypeVar("T")

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
# What Hydra itself may build for its own node. `eai.core.configuration.trust` says what a run may be built of.
EXECUTION_WHITELIST = ("eai.core.sweep.hooks.Sweep", "eai.core.cli.NoEmptyDirectory")


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


def replace_node(argument: str) -> list[str]:
    """Turn ``model.net={_target_: …}`` into a removal and an addition, so that nothing of the former node remains.

    Hydra would merge the two, and refuse the new class's arguments or keep the old one's.
    """
    key, _, value = argument.partition("=")
    whole = re.match(r"\s*\{.*_target_", value) and re.fullmatch(r"\w+(\.\w+)+", key)
    return [f"~{key}", f"+{argument}"] if whole else [argument]


def run_hydra(app: Callable[[], object], *plugins: type[Plugin]) -> None:
    """Run a Hydra application on the command line's arguments; what Hydra refuses is one line and exit status 1.

    Args:
        app: decorated with ``hydra.main``.
        plugins: of Hydra, beside those that are installed.
    """
    prepare_streams()
    if "--version" in sys.argv[1:]:
        print(f"eai {version('eai')}")
        return
    sys.argv[1:] = [part for argument in sys.argv[1:] for part in replace_node(split_group_choice(argument))]
    warnings.filterwarnings("ignore", message=".*is not available", module="hydra")  # see check_searchpath
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises, and what it says is put in one line here
    call(config_folders)  # name a package that is not there before Hydra does
    for plugin in (PackagesPath, *plugins):
        Plugins.instance().register(plugin)
    try:
        app()
    except HydraException as error:
        print(f"error: {_one_line(error)}", file=sys.stderr)
        raise SystemExit(1) from error
    except KeyboardInterrupt as stop:
        raise SystemExit(130) from stop


def prepare_streams() -> None:
    """Make printing safe: escape what the encoding lacks, and replace standard streams that are closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
            setattr(sys, name, open(os.devnull, "r" if number == 0 else "w"))  # noqa: SIM115 - until the process ends
        elif isinstance(stream := getattr(sys, name), TextIOWrapper) and number > 0:
            stream.reconfigure(errors="backslashreplace")


def _one_line(error: HydraException) -> str:
    """Hydra's refusal in one line, with what may have been meant."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return f"{key}: expected a value that needs no quotes, or quotes: '{key}=\"{value}\"', got {error.override}"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).rpartition("/")
        return _unknown_choice(group, name)
    if absent := re.match(r"Could not override '([\w/]+)'", lines[0]):
        # Of `data=recovery/vared`, split_group_choice made data/recovery=vared.
        typed = [item.partition("=") for item in sys.argv[1:] if item.startswith(f"{absent[1]}=")]
        if typed and "/" in absent[1]:
            group, known = absent[1], (Path(CONFIG_DIR) / absent[1]).is_dir()
            task = group.partition("/")[2]
            if known and (Path(CONFIG_DIR) / group / f"{typed[0][2]}.yaml").is_file():
                return f"{group}={typed[0][2]}: belongs to task={task}; add task={task}"
            return _unknown_choice(group, typed[0][2])
    said = "\n".join((*lines, str(error.__cause__)))
    hint = said[said.index("Did you mean") :] if "Did you mean" in said else ""
    return f"{lines[0]} {hint.splitlines()[0] if hint else ''}".rstrip()


def _unknown_choice(group: str, name: str) -> str:
    top = group.split("/")[0]
    folders = [place / top for place in (Path(CONFIG_DIR), *config_folders().values())]
    choices = sorted(
        str(path.relative_to(folder).with_suffix("")) for folder in folders for path in folder.rglob("*.yaml")
    )
    wanted = f"{group}/{name}".removeprefix(f"{top}/")
    near = get_close_matches(wanted, choices, n=3) or choices
    return f"{top}: expected one of {', '.join(near)}, got {wanted!r}"


class NoEmptyDirectory(Callback):
    """Remove the directory that Hydra makes before the configuration is checked, if it stayed empty."""

    _absent: tuple[Path, ...] = ()

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        folder = Path(config.hydra.run.dir).absolute()
        self._absent = tuple(path for path in (folder, *folder.parents) if not path.exists())

    def on_run_end(self, config: DictConfig, **_: Any) -> None:
        for path in self._absent:
            try:
                path.rmdir()
            except OSError:  # not empty
                return


def check_searchpath(job: DictConfig) -> None:
    """Refuse a folder of ``hydra.searchpath`` that does not exist.

    Raises:
        ConfigError: names it.
    """
    for place in job.searchpath:
        folder = str(place).removeprefix("file://")
        if "://" not in folder and not Path(folder).is_dir():
            raise ConfigError(f"hydra.searchpath: expected folders, got {place}, which does not exist")


class _PlainText(logging.Formatter):
    """Messages without the escape codes that colour a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return _ANSI.sub("", super().format(record))


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Append what is logged inside to a file, uncoloured; a symbolic link is not followed."""
    with open(path, "a", opener=no_links, encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(_PlainText("%(message)s"))
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            yield
        finally:
            root.removeHandler(handler)


def call(function: Callable[[], T]) -> T:
    """Call ``function``; print an error meant for the user as one line and exit with status 1."""
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
    # Given a checkpoint, use its run directory.
    run = Path(resume).parents[1] if Path(resume).is_file() and Path(resume).suffix == ".ckpt" else Path(resume)
    if not (run / "config.yaml").is_file():
        # Refuse it here: Hydra is about to create the directory.
        print(f"error: resume: expected the directory of a run, or a checkpoint in one, got {resume}", file=sys.stderr)
        raise SystemExit(1)
    return str(run)


def _run_name() -> str:
    """A name for a run's directory: the time and a random id, or what the processes of one job have in common."""
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
