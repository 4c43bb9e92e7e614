"""The errors a user can cause, and the one way to check an argument."""

from __future__ import annotations

import signal


class EaiError(Exception):
    """An error whose message is meant for the user; commands print it without a traceback."""


class ConfigError(EaiError):
    """The configuration, a run directory or a checkpoint cannot be used as given."""


class MissingFileError(ValueError):
    """A file of data that the configuration names does not exist here."""


class RunInUseError(EaiError):
    """Another process is working in the run directory."""


class RankError(EaiError):
    """A run of several processes ended because one of them failed."""


class DiskFullError(EaiError):
    """A file could not be written because the disk, or a quota, is full."""


class NonFiniteLossError(EaiError):
    """The loss or a validation score stopped being a finite number."""


class ExplodedLossError(EaiError):
    """The training loss grew to a million times its first epoch's mean."""


class Interrupted(BaseException):
    """Training stopped by a signal, after ``last.ckpt`` was written.

    A ``BaseException``, so that no handler of ordinary errors takes it for a failure.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(f"interrupted by signal {signum}")
        self.signum = int(signum)
        # SIGUSR1 is a cluster's warning before SIGTERM, and ends a run as that does.
        self.exit_code = 130 if signum == signal.SIGINT else 143


def require(holds: bool, name: str, expected: str, got: object) -> None:
    """Raise ``ValueError('name: expected …, got …')`` unless ``holds``.

    The message starts with the argument's name, so that ``eai.core.configuration.build.build`` can put the
    configuration key in front of it.
    """
    if not holds:
        raise ValueError(f"{name}: expected {expected}, got {got!r}")
