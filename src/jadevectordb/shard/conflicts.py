"""What a shard says about writes that did not know of each other: who, when, and which of them counts. Values for reading.

Kept in the shard's state (`shard.causality`), so they are the same on every replica and survive restarts and snapshots.
"""

from __future__ import annotations

import msgspec

UNKNOWN_TIME = 0  # of a write logged so long ago that its time is not remembered; its node is ""


class Contender(msgspec.Struct, frozen=True, array_like=True):
    """One of the two. sequence: its place in the shard's log. time: its hybrid time. node: the gateway that took it.

    request_id: of the one that came late, "" of the other. deletes: it deleted the vector.
    """

    sequence: int
    time: int
    node: str
    deletes: bool
    request_id: str = ""


class Conflict(msgspec.Struct, frozen=True, array_like=True):
    """A write at EVENTUAL (`late`) was logged behind another of the same vector (`stood`) that it had not seen.

    late_won: the later hybrid time counts, of equal ones the greater node name. found_time: the newest hybrid time in the log then.
    is_concurrent: False when `stood` came after `late` for certain (it overtook it on the same node): listed, as `late` was
    acknowledged and changed nothing, and not counted as a conflict.
    """

    id: str
    late: Contender
    stood: Contender
    late_won: bool
    found_time: int
    is_concurrent: bool = True


class ConflictReport(msgspec.Struct, frozen=True, array_like=True):
    """Of one shard. found: conflicts, all that there ever were. superseded: writes that changed nothing because a later one of their
    own node had overtaken them. listed: the newest of both, newest last.
    """

    found: int
    superseded: int
    listed: list[Conflict]
