"""What a server gives back, as a program sees it: the same names as the embedded database uses, decoded straight from JSON.

Fields that an answer does not have keep their defaults and fields that this version does not know are passed over, so client and
server need not be of the same version.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.model.errors import ErrorCode, JadeError

Rows = npt.NDArray[Any]


class Item(msgspec.Struct, eq=False):
    """A stored vector. What the call did not ask for (`include`) raises INVALID_ARGUMENT when it is looked at."""

    id: str
    raw_metadata: dict[str, Any] | None = msgspec.field(default=None, name="metadata")
    raw_vector: Any = msgspec.field(default=None, name="vector")  # the array, or None when it was not asked for
    raw_version: int | None = msgspec.field(default=None, name="version")

    @property
    def metadata(self) -> dict[str, Any]:
        """As stored; the dict is the caller's own."""
        if self.raw_metadata is None:
            raise _not_asked_for("metadata")
        return self.raw_metadata

    @property
    def vector(self) -> Rows:
        """float32 (dimension,) exactly as it was sent (uint8 zeros and ones under hamming); read-only."""
        if self.raw_vector is None:
            raise _not_asked_for("vector")
        vector: Rows = self.raw_vector
        return vector

    @property
    def version(self) -> int:
        """Grows with every write of the id."""
        if self.raw_version is None:
            raise _not_asked_for("version")
        return self.raw_version

    def as_dict(self, *, vector: bool = False) -> dict[str, Any]:
        """Plain values, ready for JSON: what the answer held."""
        plain: dict[str, Any] = {"id": self.id}
        if self.raw_version is not None:
            plain["version"] = self.raw_version
        if self.raw_metadata is not None:
            plain["metadata"] = self.raw_metadata
        if vector:
            plain["vector"] = self.vector.tolist()
        return plain

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Item):
            return NotImplemented
        mine = (self.id, self.raw_version, self.raw_metadata)
        return mine == (other.id, other.raw_version, other.raw_metadata)

    __hash__ = None  # type: ignore[assignment]  # metadata is a dict

    def __repr__(self) -> str:
        return f"Item(id={self.id!r}, version={self.raw_version}, metadata={self.raw_metadata!r})"


class Hit(Item, kw_only=True, eq=False):
    """A search result. score: larger is better for every metric: cosine similarity, dot product, or 1 / (1 + distance)."""

    score: float

    def as_dict(self, *, vector: bool = False) -> dict[str, Any]:
        return {"score": self.score, **Item.as_dict(self, vector=vector)}

    def __repr__(self) -> str:
        return f"Hit(id={self.id!r}, score={self.score:.6g}, metadata={self.raw_metadata!r})"


class Hits(list[Hit]):
    """Hits, best first. explanation: what the search did, when it was asked to say (`explain=True`).

    missing_shards: those of a cluster that nobody answered for, of a search with `allow_partial`.
    """

    __slots__ = ("explanation", "missing_shards")

    def __init__(
        self, hits: Any = (), explanation: Explanation | None = None, missing_shards: tuple[int, ...] = ()
    ) -> None:
        super().__init__(hits)
        self.explanation = explanation
        self.missing_shards = missing_shards

    @property
    def ids(self) -> list[str]:
        return [hit.id for hit in self]

    @property
    def scores(self) -> list[float]:
        return [hit.score for hit in self]


class Explanation(msgspec.Struct):
    """The plan of a search with what it cost; times in microseconds of wall time on the server.

    nodes, visited: of a cluster: what each node was asked; which shards and why, where vectors decide their shard.
    """

    recall: float = 0.0
    matches: int = 0
    candidates: int = 0
    text_terms: list[str] = msgspec.field(default_factory=list)
    fusion: str = ""
    depth: int = 0
    segments: list[dict[str, Any]] = msgspec.field(default_factory=list)
    merge_us: float = 0.0
    total_us: float = 0.0
    nodes: list[dict[str, Any]] = msgspec.field(default_factory=list)
    visited: dict[str, Any] = msgspec.field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return {name: value for name, value in plain.items() if value or name not in ("nodes", "visited")}


class Page(msgspec.Struct):
    """A stretch of a scroll. cursor: give it to the next call; None at the end."""

    items: list[Item] = msgspec.field(name="vectors")
    cursor: str | None = None


class WriteResult(msgspec.Struct, frozen=True):
    """What a write did.

    count: vectors written, updated or deleted. session: a text that stands for this write; the client sends it with later reads by
    itself. duplicate: the request id was applied before, nothing was done again.
    """

    count: int
    session: str = ""
    version: int = 0
    duplicate: bool = False


class SegmentStats(msgspec.Struct, frozen=True):
    """index: "growing", "not built yet", or the kind. memory_bytes: beyond the page cache."""

    shard: int = 0
    name: str = ""
    index: str = ""
    rows: int = 0  # dead rows included
    live: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0


class Stats(msgspec.Struct, frozen=True):
    """rows: live vectors; indexed + not yet indexed = rows. trouble: why background work can't go on, "" when it can."""

    rows: int
    indexed_rows: int = 0
    dead_rows: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0
    log_bytes: int = 0
    watermarks: list[int] = msgspec.field(default_factory=list)
    segments: list[SegmentStats] = msgspec.field(default_factory=list)
    trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class ConflictingWrite(msgspec.Struct, frozen=True):
    """node: the gateway that took it. time: by that node's clock, None = not remembered. sequence: its place in the shard's log."""

    node: str
    time: str | None
    sequence: int
    deletes: bool
    request_id: str = ""


class Conflict(msgspec.Struct, frozen=True):
    """late: a write at EVENTUAL that was logged behind `stood` without having seen it. winner: late or stood.

    concurrent: False when `stood` came after `late` on the same node and overtook it.
    """

    id: str
    shard: int
    winner: str
    concurrent: bool
    found_at: str | None
    late: ConflictingWrite
    stood: ConflictingWrite


class Conflicts(msgspec.Struct, frozen=True):
    """found: concurrent pairs since the database was made. superseded: writes that changed nothing because a later one of their own
    node had overtaken them. conflicts: the newest of both, of each shard, newest first.
    """

    found: int
    superseded: int
    conflicts: list[Conflict]


class DatabaseInfo(msgspec.Struct, frozen=True):
    """How a database was made, whose it is, and how many vectors it had when the answer was given.

    sharding: how vectors are spread over shards. sharding_reason: why, where it was left to the server.
    """

    id: str
    name: str
    dimension: int
    metric: str
    index: str = ""
    shards: int = 1
    schema: dict[str, Any] = msgspec.field(default_factory=dict)
    strict: bool = False
    text_language: str = ""
    description: str = ""
    owner: str | None = None
    created_at: str | None = None
    updated_at: str | None = None
    vectors: int = 0
    sharding: str = "hash"
    sharding_reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


class ServerInfo(msgspec.Struct, frozen=True):
    """version: of the server. api: the versions of its API. features: what it was set up to do."""

    version: str
    api: list[str] = msgspec.field(default_factory=list)
    grpc_port: int | None = None
    auth_mode: str = ""
    features: dict[str, Any] = msgspec.field(default_factory=dict)


def attach_vectors(items: list[Any], rows: npt.NDArray[np.float32], is_bits: bool) -> None:
    """Give each item its row. is_bits: the values are zeros and ones, which callers see as uint8."""
    values: Rows = rows.astype(np.uint8) if is_bits else rows
    values.flags.writeable = False
    for item, row in zip(items, values, strict=True):
        item.raw_vector = row


def _not_asked_for(what: str) -> JadeError:
    return JadeError(
        ErrorCode.INVALID_ARGUMENT,
        f"The call did not ask for the {what}: add it, as in include=('metadata', {what!r}).",
    )
