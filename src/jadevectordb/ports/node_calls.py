"""What nodes of a cluster ask of each other about the shards they hold: plain values that travel as msgpack.

One call names all shards of one database that the asked node shall look at, so a search costs one message a node, not one a
shard. `map_version` is what the asker routed by: a node that does not hold a shard any more refuses with STALE_MAP and changes
nothing. Waiting is the asked node's business: `at_least` are watermarks it must have applied before it looks.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec


class Asked(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What every call about shards carries.

    shards: numbers. at_least: (shard, sequence) to have applied first. wait_s: how long to wait for that.
    """

    database: str
    shards: tuple[int, ...]
    map_version: int = 0
    at_least: tuple[tuple[int, int], ...] = ()
    wait_s: float = 0.0


class Search(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One vector search. query: the vector as the client gave it, float32 or (hamming) uint8 bytes, little-endian.

    options: those of `Database.search` that are set, as JSON-like values (k, recall, filter, threshold, max_distance, exact, nprobe,
    candidates, ef_search, group_by, group_size). include: what hits shall carry beside id, score and version.
    """

    asked: Asked
    query: bytes
    options: dict[str, object]
    include: tuple[Literal["metadata", "vector"], ...] = ("metadata",)
    explain: bool = False
    distinct: bool = False  # the shards may show an id twice, while it moves from one to another: its newest row counts


class Found(msgspec.Struct, array_like=True, kw_only=True):
    """Hits of all shards asked, merged, best first, equal scores by id. scores: public, larger is better. vectors: rows end to end.

    watermarks: (shard, sequence) that the search saw. explanation: JSON, of all segments of all these shards.
    """

    ids: list[str]
    scores: list[float]
    versions: list[int]
    metadata: list[bytes] = []
    vectors: bytes = b""
    watermarks: list[tuple[int, int]] = []
    explanation: bytes = b""
    search_us: float = 0.0


class Totals(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """What was counted of a query's terms over some shards, as `index.text.TermStats`: plain integers, which add exactly."""

    terms: tuple[str, ...]
    document_frequency: tuple[tuple[int, ...], ...]
    document_count: tuple[int, ...]
    total_length: tuple[int, ...]


class SearchWords(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """One search by words (BM25), with a query vector too one by both: then each of the two rankings is answered.

    A score needs counts over all shards of the database. totals: those counts, to score with. None: a node that is asked about all
    `shards_all` shards scores with its own counts, every other one answers its counts only. Counts always come back, so the asker
    sees whether what he gave was still true.

    terms: of the query, repeats kept, as the asker's analyzer made them. fields: the text fields in the schema's order; a replica
    that has other ones refuses. query, options, include: as in `Search`, without threshold and max_distance; k 0 = counts only;
    group_by with words alone. exclude: an id that the vectors' ranking leaves out.
    """

    asked: Asked
    terms: tuple[str, ...]
    fields: tuple[str, ...]
    shards_all: int
    options: dict[str, object]
    totals: Totals | None = None
    query: bytes = b""
    exclude: str = ""
    include: tuple[Literal["metadata", "vector"], ...] = ("metadata",)
    explain: bool = False


class FoundWords(msgspec.Struct, array_like=True, kw_only=True):
    """Rows that one ranking or both found, each once, and the rankings, best first, equal scores by id, as places among these rows.

    similarities: on the internal scale, which fusing needs. is_scored: False = only `totals`, this node's counts, is answered.
    live: vectors in the shards asked. The rest as in `Found`.
    """

    totals: Totals
    is_scored: bool = False
    live: int = 0
    ids: list[str] = []
    versions: list[int] = []
    metadata: list[bytes] = []
    vectors: bytes = b""
    by_vector: list[int] = []
    similarities: list[float] = []
    by_text: list[int] = []
    text_scores: list[float] = []
    watermarks: list[tuple[int, int]] = []
    explanation: bytes = b""
    search_us: float = 0.0


class Judge(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The exact scores of these ids for a query, whether a ranking reached down to them or not. Fields as in `SearchWords`."""

    asked: Asked
    ids: tuple[str, ...]
    terms: tuple[str, ...]
    fields: tuple[str, ...]
    totals: Totals | None = None
    query: bytes = b""


class Judged(msgspec.Struct, array_like=True, kw_only=True):
    """Of the ids that are there. similarities: internal scale, none without a query vector. text_scores: 0 = none of the words."""

    ids: list[str]
    similarities: list[float]
    text_scores: list[float]
    watermarks: list[tuple[int, int]] = []


class Get(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """departed_since: also tell of everything that left the shards for others after this sequence; -1 = only of these ids."""

    asked: Asked
    ids: tuple[str, ...]
    vectors: bool = True
    departed_since: int = -1


class Scroll(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """The next `limit` vectors in the order of a scroll, (hash of the id, id).

    after: the id to go on behind, "" = from the start. filter: JSON, b"" = none.
    """

    asked: Asked
    after: str
    limit: int
    filter: bytes = b""
    vectors: bool = False


class Items(msgspec.Struct, array_like=True, kw_only=True):
    """Vectors that are there; of `Get` those found, in no order.

    vectors: rows end to end as the client sent them: float32, or uint8 zeros and ones under hamming. Of `Get`, where shards share a
    log: departed: (id, sequence, to which shard) of ids that are not there any more. forgotten: what departed up to this sequence may
    be missing in it.
    """

    ids: list[str]
    versions: list[int]
    metadata: list[bytes]
    vectors: bytes = b""
    watermarks: list[tuple[int, int]] = []
    departed: list[tuple[str, int, int]] = []
    forgotten: int = 0


class Aged(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Up to `limit` live vectors of the one shard asked whose version is at most `up_to`; answered with `Items`, vectors included."""

    asked: Asked
    up_to: int
    limit: int


class Count(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    asked: Asked
    filter: bytes = b""


class Counted(msgspec.Struct, array_like=True, kw_only=True):
    count: int
    watermarks: list[tuple[int, int]] = []


class AwaitApplied(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Answered when the replica has applied the log up to `sequence` of `shard`; what that entry did comes back."""

    database: str
    shard: int
    sequence: int
    wait_s: float


class Applied(msgspec.Struct, array_like=True, kw_only=True):
    """As `model.operations.Outcome`. known: False when it was so long ago that its outcome is forgotten."""

    known: bool
    sequence: int = 0
    changed: int = 0
    duplicate: bool = False
    refused_id: str = ""
    refused_expected: int = 0
    refused_actual: int = 0
    is_refused: bool = False


LookedAt: TypeAlias = Literal["stats", "digest", "verify", "log_end", "conflicts"]


class Look(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Figures of each shard asked, as JSON of `Database.stats` ("stats"), or digests ("digest").

    "verify": every file of each is read and compared with its checksum; the answer says of each which is damaged, "" when none is.
    hurry_s: above 0: somebody waits for what these replicas have to build; they hurry for so long, or until it is built.
    "conflicts": a `shard.conflicts.ConflictReport`. "log_end": the newest sequence of each shard's log, as its servers say.
    """

    asked: Asked
    what: LookedAt
    hurry_s: float = 0.0


class Looked(msgspec.Struct, array_like=True, kw_only=True):
    """by_shard: (shard, JSON)."""

    by_shard: list[tuple[int, bytes]]


class LookAtText(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Figures of the text index. parts: 0, or in how many parts hashes of the terms are sent, of which this asks for `part`."""

    asked: Asked
    part: int = 0
    parts: int = 0


class TextFigures(msgspec.Struct, array_like=True, kw_only=True):
    """documents: with a term in them, deleted ones left out. tokens: their terms, repeats counted.

    terms: different ones. hashes: uint64, little-endian, one for each different term of the part, deleted rows' included.
    """

    documents: int
    tokens: int
    terms: int
    hashes: bytes = b""
    watermarks: list[tuple[int, int]] = []


class CheckSchema(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Whether what is stored fits a schema that is about to be declared: fields, each with its type. The first that does not is refused.

    Answered with how many vectors were looked at.
    """

    asked: Asked
    fields: dict[str, str]
    strict: bool = False


class SnapshotBegin(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Make a snapshot of one shard and keep it until `SnapshotEnd`, or until nobody has read it for a while."""

    database: str
    shard: int


class SnapshotOffer(msgspec.Struct, array_like=True, kw_only=True):
    """files: (path in the snapshot, bytes, xxh3-64 as hex; of a segment's files those its manifest vouches for).

    applied: the log continues it from applied + 1. watermark: what the replica itself has applied, the rest of it in memory only.
    """

    snapshot: str
    applied: int
    files: list[tuple[str, int, str]]
    watermark: int = 0


class SnapshotRead(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Up to `length` bytes of a file; the answer's payload is the bytes themselves."""

    snapshot: str
    path: str
    offset: int
    length: int


class SnapshotEnd(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    snapshot: str


class Ping(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    pass


class Pong(msgspec.Struct, array_like=True, kw_only=True):
    node: str
    incarnation: str
    map_version: int


class Failure(msgspec.Struct, array_like=True, kw_only=True):
    """A JadeError on its way back."""

    code: str
    message: str
    details: dict[str, object] = {}


# Numbers are on the wire: never reuse one.
CALLS: dict[int, type[msgspec.Struct]] = {
    1: Ping, 2: Search, 3: Get, 4: Scroll, 5: Count, 6: AwaitApplied, 7: Look,
    8: SnapshotBegin, 9: SnapshotRead, 10: SnapshotEnd, 11: SearchWords, 12: Judge, 13: Aged, 14: CheckSchema, 15: LookAtText,
}  # fmt: skip
NUMBERS: dict[type[msgspec.Struct], int] = {kind: number for number, kind in CALLS.items()}
ANSWERS: dict[type[msgspec.Struct], type[msgspec.Struct] | None] = {
    Ping: Pong, Search: Found, Get: Items, Scroll: Items, Count: Counted, AwaitApplied: Applied, Look: Looked,
    SnapshotBegin: SnapshotOffer, SnapshotRead: None, SnapshotEnd: None, SearchWords: FoundWords, Judge: Judged,
    Aged: Items, CheckSchema: Counted, LookAtText: TextFigures,
}  # fmt: skip
