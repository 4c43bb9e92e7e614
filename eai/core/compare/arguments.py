"""The command line of ``eai-compare`` as Hydra overrides: folders and ``--csv`` have no place in Hydra's grammar."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.core.override_parser.types import Quote, QuotedString

_FLAGS = {
    "--csv": "format=csv",
    "--json": "format=json",
    "--markdown": "format=markdown",
    "--by-run": "by_run=true",
}
_KEYS = ("runs", "format", "by_run", "install", "uninstall", "query")
# Hydra's own options that are followed by a value.
_VALUED = ("--cfg", "-c", "--package", "-p", "--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd",
           "--experimental-rerun", "--info", "-i")  # fmt: skip


def compare_overrides(arguments: Sequence[str]) -> list[str]:
    """``a b=1 --csv`` becomes ``format=csv runs=['a','b=1']``; overrides and Hydra's options are left alone.

    What starts with one of the command's own keys and an equals sign is an override, anything else that is not
    an option is a folder: ``./runs=1`` is one, too.
    """
    kept: list[str] = []
    folders: list[str] = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        if before in _VALUED or argument.startswith("-") or _is_override(argument):
            kept.append(_FLAGS.get(argument, argument))
        else:
            folders.append(_quoted(argument))
    return [*kept, f"runs=[{','.join(folders)}]"] if folders else kept


def _is_override(argument: str) -> bool:
    key, equals, _ = argument.lstrip("+~").partition("=")
    return bool(equals) and (key in _KEYS or key.startswith(("hydra.", "hydra/")))


def _quoted(folder: str) -> str:
    # A dollar sign would start an interpolation.
    return QuotedString(folder.replace("${", r"\${"), Quote.single).with_quotes()
