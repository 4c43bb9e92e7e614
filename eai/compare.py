"""``eai-compare``: a leaderboard of finished runs, grouped over seeds, the baselines below."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eai import __version__
from eai.core.cli import call, prepare_streams
from eai.core.errors import ConfigError

EXAMPLES = """\
examples
  eai-compare outputs/sweeps/lr_1a2b3c
  eai-compare outputs/dynamics outputs/recovery --csv
  eai-compare outputs/recovery/2026-01-31_12-00-00-1a2b outputs/recovery/2026-01-31_12-30-00-3c4d --diff
  eai-compare --by-run --json
  eai-compare outputs/dynamics --html dynamics.html
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    told = argparse.ArgumentParser(
        "eai-compare",
        description="A leaderboard of the runs below the given folders. Runs that differ in their seed only are one "
        "row, mean ± standard deviation, sorted by the monitored score; baselines, the optimum and failed runs follow.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    told.add_argument("folders", nargs="*", default=["outputs"], help="of runs or sweeps (outputs, if none is given)")
    forms = told.add_mutually_exclusive_group()
    for form in ("csv", "json", "markdown"):
        forms.add_argument(f"--{form}", dest="form", action="store_const", const=form, default="table")
    forms.add_argument(
        "--diff", dest="form", action="store_const", const="diff",
        help="only the keys in which the runs differ, and the command that reproduces each",
    )  # fmt: skip
    forms.add_argument(
        "--html", metavar="FILE", type=Path,
        help="write one page that needs no network: the leaderboard, figures, the best run, why runs failed",
    )  # fmt: skip
    told.add_argument("--by-run", action="store_true", help="one row per run")
    told.add_argument("--version", action="version", version=f"eai {__version__}")
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    prepare_streams()
    typed = parser().parse_args(arguments)
    call(lambda: _compare(typed))


def _compare(typed: argparse.Namespace) -> None:
    for folder in typed.folders:
        if folder.partition("=")[0] in ("runs", "format", "by_run"):
            raise ConfigError(f"{folder}: expected folders and options, as eai-compare outputs/dynamics --csv --by-run")

    if typed.html:
        from eai.core.compare.several import write_page

        write_page(typed.folders, typed.html)
        sys.stdout.write(f"report {typed.html}\n")
        return
    from eai.core.compare.show import compare

    sys.stdout.write(compare(typed.folders, typed.form, typed.by_run))


if __name__ == "__main__":
    main()
