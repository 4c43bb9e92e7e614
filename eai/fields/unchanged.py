"""Files that must be the same when a training goes on."""

from __future__ import annotations

from typing import Any

from eai.core.errors import ConfigError
from eai.fields.fields import Fields


class FromFile:
    """Beside DataModule, for data of a file: refuse to go on where its times or its grid are not those of before.

    Periods are shares of its times, and statistics are those of its training period: of a file that has grown meanwhile
    both would differ, and what validated before could train now.
    """

    fields: Fields

    def state_dict(self) -> dict[str, Any]:
        """What checkpoints keep of the file."""
        return {"fields": _told(self.fields)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare the file with that of the checkpoint.

        Args:
            state_dict: see :meth:`state_dict`.

        Raises:
            ConfigError: it is another one.
        """
        before, now = state_dict["fields"], _told(self.fields)
        if before != now:
            raise ConfigError(f"data.path: expected the file as it was when the run began, {before}; got {now}")


def _told(fields: Fields) -> str:
    shape = " × ".join(map(str, fields.shape))
    return (
        f"{len(fields)} steps from {fields.times[0]} to {fields.times[-1]} of {', '.join(fields.variables)} on {shape}"
    )
