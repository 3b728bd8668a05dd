"""The archive port: where vectors go that a retention policy takes out of a database."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol


class Archive(Protocol):
    def write(self, database: str, name: str, lines: Iterable[bytes]) -> str:
        """Keep these lines, each a JSON object without its line end, as one new file; where it is. Durable on return.

        A name that is taken gets a number. Raises DISK_FULL, READ_ONLY, IO_ERROR; then nothing is left of the file.
        """
        ...
