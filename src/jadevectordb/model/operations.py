"""What a log entry says. An entry is the only way a shard changes: a replica is a pure function of its entries in order.

One entry holds a whole client batch for one shard, or one part of it when the batch is larger than `ENTRY_BYTES_MAX`.
The parts of a request, and its entries for several local shards, are appended as one frame: all durable or none.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, TypeAlias

import numpy.typing as npt

from jadevectordb.model.ids import HybridTime, NodeId, RequestId, VectorId, Version

Rows: TypeAlias = npt.NDArray[
    Any
]  # (n, width): float32 (n, dimension), or uint8 (n, ceil(dimension / 8)) packed bits under hamming


class EntryKind(IntEnum):
    """Numbers are on disk: never reuse one."""

    WRITE = 1
    DELETE = 2
    UPDATE = 3
    DELETE_WHERE = 4
    SEAL = 5
    BARRIER = 6
    # 7, 8, 9 are kept for PREPARE, COMMIT and ABORT of transactions
    PLACED_WRITE = 10


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """Insert or replace vectors, all of them or none.

    vectors: C-order, one row an id, as the caller sent them (not normalised); not to be changed afterwards.
    metadata: one JSON object an id, as UTF-8 bytes.
    if_version: None, or one expected version an id: -1 = no condition, 0 = must not exist.
    """

    ids: list[VectorId]
    vectors: Rows
    metadata: list[bytes]
    if_version: list[int] | None = None

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.vectors) == len(self.metadata)
        assert self.if_version is None or len(self.if_version) == len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class PlacedWrite(Write):
    """A write to all shards of a database at once, where they share one log: each vector goes to the shard of its place.

    In every other shard the id has no row afterwards, so that it lives in one place at any sequence, wherever it was before.
    places: one shard number a vector. here: the shard whose replica applies it, told to it by who follows the log; not in the log.
    """

    places: list[int] = field(default_factory=list)
    here: int = 0

    def __post_init__(self) -> None:
        assert len(self.ids) == len(self.vectors) == len(self.metadata) == len(self.places)
        assert self.if_version is None, "no single shard could decide it"


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete by id; an id that does not exist is not an error."""

    ids: list[VectorId]
    if_version: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """Change metadata only. merge: top-level keys of the patch replace those stored, null included; else the patch replaces all.

    An id that does not exist is skipped and not counted.
    """

    ids: list[VectorId]
    patches: list[bytes]  # JSON objects, UTF-8
    merge: bool
    if_version: list[int] | None = None


@dataclass(frozen=True, slots=True)
class DeleteWhere:
    """Delete every vector whose metadata matches, decided at apply, so that it is atomic with writes around it."""

    filter: bytes  # the filter in its canonical JSON form


@dataclass(frozen=True, slots=True)
class Seal:
    """Close the growing segment here. Clocks may decide to append it; what it does is decided by the log alone.

    compact: also merge all sealed segments into one.
    """

    compact: bool = False


@dataclass(frozen=True, slots=True)
class Barrier:
    """Changes nothing: a position in the log to wait for."""


Operation: TypeAlias = Write | Delete | Update | DeleteWhere | Seal | Barrier


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One change to one shard, with who asked for it and when.

    part, parts: this is part `part` of `parts` of one request for this shard (0 of 1 when it was not cut).
    seen: of a write that waited in an outbox: the place of this shard's log up to which its node knew the log when it took the write.
    What was logged behind that place is concurrent with it (`shard.causality`). None: the log alone orders it.
    """

    operation: Operation
    time: HybridTime
    node: NodeId = NodeId("")
    request_id: RequestId = RequestId("")
    part: int = 0
    parts: int = 1
    seen: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A condition of `if_version` did not hold, so nothing of the entry was applied."""

    id: VectorId
    expected: Version
    actual: Version  # 0 = does not exist


@dataclass(frozen=True, slots=True)
class Outcome:
    """What applying one entry did. A retry of a request that was applied before gets the first try's `sequence` and count."""

    sequence: int
    changed: int  # vectors written, deleted or updated
    refusal: Refusal | None = None
    duplicate: bool = False
