"""What can be wrong with a file of fields."""

from __future__ import annotations


class FileError(ValueError):
    """A file cannot be used; the message starts with the argument ``path`` and names the file."""
