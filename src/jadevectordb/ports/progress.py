"""The progress port: where an open database says how far it is, for processes that follow its folder without writing to it.

A position is the number of entries applied, over all shards: it only grows, and whoever has applied as many entries of the same
log has the same state.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Of one database; calls of `applying` and `applied` come in turn. Nothing here may raise or wait."""

    def opened(self, position: int) -> None:
        """The folder is open for writing and its state stands at this position."""
        ...

    def applying(self, entries: int) -> None:
        """So many more entries are about to be seen by searches: until `applied`, nobody can say whether they were seen already."""
        ...

    def applied(self, entries: int) -> None:
        """So many more entries are durable and seen by searches; called before the write that brought them is acknowledged."""
        ...

    def installed(self) -> None:
        """The folder's checkpoint or segments changed; what they say did not."""
        ...

    def ended(self) -> None:
        """What follows must not be believed any more: closed, about to be configured otherwise, or damaged."""
        ...


class _Unwatched:
    """Nobody follows."""

    def opened(self, position: int) -> None:
        pass

    def applying(self, entries: int) -> None:
        pass

    def applied(self, entries: int) -> None:
        pass

    def installed(self) -> None:
        pass

    def ended(self) -> None:
        pass


UNWATCHED: Progress = _Unwatched()
