"""How sure a write must be before it is answered, and how new a read must be. One mechanism: sequences and watermarks."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from jadevectordb.query.write_checks import invalid


class WriteLevel(StrEnum):
    QUORUM = "quorum"  # durable on a majority of log nodes, applied by one live replica
    STRONG = "strong"  # and applied by every live replica
    EVENTUAL = "eventual"  # durable on the node that took it; published soon after


class ReadLevel(StrEnum):
    SESSION = "session"  # sees at least what the caller has seen
    STRONG = "strong"  # sees every write that was answered before
    EVENTUAL = "eventual"  # whatever a replica has


_Level = TypeVar("_Level", WriteLevel, ReadLevel)


def write_level(text: str) -> WriteLevel:
    """Raises INVALID_ARGUMENT."""
    return _level(WriteLevel, text, "writing")


def read_level(text: str) -> ReadLevel:
    """Raises INVALID_ARGUMENT."""
    return _level(ReadLevel, text, "reading")


def _level(kind: type[_Level], text: str, doing: str) -> _Level:
    try:
        return kind(text.lower())
    except (ValueError, AttributeError):
        raise invalid(f"Unknown consistency {text!r:.40} for {doing}: use one of {', '.join(kind)}.") from None
