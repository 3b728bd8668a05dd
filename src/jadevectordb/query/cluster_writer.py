"""The write path of a cluster: check, route by id, append to each shard's replicated log, and await what the level asks for.

Any gateway may write: the logs order entries, replicas decide what they do (a condition that does not hold included), all
alike. So the answer of one replica that has applied the entry is the result. A shard's part of a request is stored whole or not at
all; over several shards each part stands for itself, and what became of each is told (`write_outcome`), never rounded up to success.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index.space import VectorSpace
from jadevectordb.model import filters
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.hybrid_time import HybridClock, to_ms
from jadevectordb.model.ids import HybridTime, NodeId, RequestId, Sequence, ShardId, VectorId
from jadevectordb.model.limits import (
    CONDITIONAL_ENTRY_FACTOR,
    ENTRY_ROWS_MAX,
    HYBRID_AHEAD_MS_MAX,
    METADATA_BYTES_MAX,
    WRITE_S_MAX,
)
from jadevectordb.model.operations import Barrier, DeleteWhere, Entry, Operation, Seal, Write
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.node_calls import Applied, Asked, AwaitApplied
from jadevectordb.query.drafts import Draft, draft_delete, draft_update, draft_upsert
from jadevectordb.query.fan_out import FanOut
from jadevectordb.query.levels import WriteLevel
from jadevectordb.query.outbox import Outbox
from jadevectordb.query.question import Gathered, Question
from jadevectordb.query.routing import live_replicas
from jadevectordb.query.write_checks import check_request_id, invalid
from jadevectordb.query.write_outcome import WritePart, WriteRequest, outcome_of, result_of, sequences_of, unconfirmed
from jadevectordb.query.writer import WriteResult
from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.placed import PlacedDatabase
from jadevectordb.topology.sharding import shards_of_ids

_AWAITED_AT_ONCE = 256  # calls of one request; a connection between nodes takes NODE_CALLS_MAX in all
NOTHING_SEEN: Mapping[int, int] = {}
_PATCH_BYTES_SURE = 4096  # patches up to this size are merged without looking at what is stored


Piece = tuple[int, list[VectorId], Operation, int, int]  # shard, ids, what to do, part, parts


class AppendOnly(Protocol):
    """What a writer needs of the replicated log; `JetStreamLog` has it."""

    def append(self, entries: Seq[tuple[ShardId, Entry]]) -> list[Sequence]: ...


class GatewayTime:
    """The hybrid clock of one gateway, shared by all its writers. Thread-safe.

    A time far ahead of this machine's own clock is not followed: it comes from a clock that is wrong, and must not make all others so.
    """

    def __init__(self, clock: Clock) -> None:
        self._wall = clock
        self._lock = threading.Lock()
        self._hybrid = HybridClock()

    def tick(self) -> HybridTime:
        with self._lock:
            return self._hybrid.tick(self._wall.now_ms())

    def observe(self, time: int) -> None:
        """Something of this time is known here: what is written next is later."""
        with self._lock:
            now_ms = self._wall.now_ms()
            if time > self._hybrid.last and to_ms(HybridTime(time)) <= now_ms + HYBRID_AHEAD_MS_MAX:
                self._hybrid.observe(HybridTime(time), now_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterParts:
    """What writing to one database takes.

    stored_sizes: of the metadata of ids, of those that are stored. open_outbox: raises where this node keeps none. new_request_id: for a
    request that came without one and must be known again. known: how far this gateway knows each shard's log, and of what time that is.
    """

    placed: PlacedDatabase
    fan_out: FanOut
    log: AppendOnly
    time: GatewayTime
    open_outbox: Callable[[], Outbox]
    new_request_id: Callable[[], str]
    stored_sizes: Callable[[list[VectorId]], Mapping[str, int]]
    known: Callable[[], Mapping[int, tuple[int, int]]]


class ClusterWriter:
    """Writes to one database of a cluster. Thread-safe."""

    def __init__(self, parts: WriterParts) -> None:
        config = parts.placed.config
        self._placed = parts.placed
        self._space = VectorSpace(config.metric, config.dimension)
        self._fan_out = parts.fan_out
        self._log = parts.log
        self._time = parts.time
        self._open_outbox = parts.open_outbox
        self._new_request_id = parts.new_request_id
        self._stored_sizes = parts.stored_sizes
        self._known = parts.known

    def reconfigure(self, placed: PlacedDatabase) -> None:
        """From now on what is written is checked by this configuration; its shards and dimension are the same."""
        self._placed = placed

    # What can be written

    def upsert(
        self,
        ids: Iterable[str],
        vectors: npt.ArrayLike,
        metadata: Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any] | None,
        if_version: Seq[int | None] | int | None,
        request_id: str,
        level: WriteLevel,
        *,
        atomic: bool = False,
        partial: bool = False,
        seen: Mapping[int, int] = NOTHING_SEEN,
    ) -> WriteResult:
        schema = self._placed.config.schema
        draft = draft_upsert(self._space, schema, ids, vectors, metadata, if_version, request_id)
        return self._submit(draft, request_id, level, atomic, partial, seen)

    def delete(
        self,
        ids: Iterable[str],
        if_version: Seq[int | None] | int | None,
        request_id: str,
        level: WriteLevel,
        *,
        atomic: bool = False,
        partial: bool = False,
        seen: Mapping[int, int] = NOTHING_SEEN,
    ) -> WriteResult:
        draft = draft_delete(ids, if_version, request_id)
        return self._submit(draft, request_id, level, atomic, partial, seen)

    def update(
        self,
        ids: Iterable[str],
        metadata: Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any],
        merge: bool,
        if_version: Seq[int | None] | int | None,
        request_id: str,
        level: WriteLevel,
        *,
        atomic: bool = False,
        partial: bool = False,
        seen: Mapping[int, int] = NOTHING_SEEN,
    ) -> WriteResult:
        draft = draft_update(self._placed.config.schema, ids, metadata, merge, if_version, request_id)
        if merge:
            self._check_merged_sizes(draft)
        return self._submit(draft, request_id, level, atomic, partial, seen)

    def delete_where(
        self, node: Filter, request_id: str, level: WriteLevel, seen: Mapping[int, int] = NOTHING_SEEN
    ) -> WriteResult:
        check_request_id(request_id)
        return self._everywhere(DeleteWhere(filters.to_json(node)), request_id, level, seen)

    def seal(self, *, compact: bool) -> WriteResult:
        """Have every shard close its growing segment at one place of its log."""
        return self._everywhere(Seal(compact), "", WriteLevel.QUORUM)

    def barrier(self, shards: Iterable[int]) -> dict[int, int]:
        """A barrier in each shard's log; their sequences. Durable on return."""
        time = self._time.tick()
        entries = [(ShardId(shard), Entry(Barrier(), time, NodeId(self._fan_out.node))) for shard in shards]
        sequences = self._log.append(entries)
        return {int(shard): int(sequence) for (shard, _), sequence in zip(entries, sequences, strict=True)}

    def _check_merged_sizes(self, draft: Draft) -> None:
        """Raises INVALID_METADATA for an object that would be too large with what is stored now."""
        assert draft.patches is not None
        large = {n: len(p) for n, p in zip(draft.names, draft.patches, strict=True) if len(p) > _PATCH_BYTES_SURE}
        for name, stored in self._stored_sizes(list(large)).items() if large else ():
            size = stored + large[VectorId(name)]
            if size > METADATA_BYTES_MAX:
                raise JadeError(
                    ErrorCode.INVALID_METADATA,
                    f"Merged with what is stored, the metadata of {name!r} could take {size} bytes as JSON, at most "
                    f"{METADATA_BYTES_MAX} are possible. Nothing was changed; store large values elsewhere.",
                    details={"id": name, "bytes": size},
                )

    # From a draft to entries

    def _submit(
        self,
        draft: Draft,
        request_id: str,
        level: WriteLevel,
        atomic: bool,
        partial: bool,
        seen: Mapping[int, int],
    ) -> WriteResult:
        if not draft.names:
            return WriteResult(0, {})
        config = self._placed.config
        shards = shards_of_ids(self._placed.sharding, config.shards, draft.names, hash_ids(draft.names))
        used = np.unique(shards).tolist()
        if atomic and len(used) > 1:
            raise JadeError(
                ErrorCode.NOT_IMPLEMENTED,
                f"These vectors lie in {len(used)} shards, and a request is all or nothing within one shard only: send it "
                "without atomic and look at what became of each vector, or send those of one shard at a time.",
                details={"shards": used},
            )
        # A condition is decided entry by entry: all conditions of a shard go into one entry, which may be larger for that
        per_entry = draft.per_entry
        if draft.conditional:
            per_entry = min(ENTRY_ROWS_MAX, per_entry * CONDITIONAL_ENTRY_FACTOR)
        pieces: list[Piece] = []
        for shard in used:
            mine = np.flatnonzero(shards == shard)
            if draft.conditional and len(mine) > per_entry:
                raise invalid(
                    f"A request with if_version may have {per_entry} vectors like these in one shard, this one has {len(mine)} in shard "
                    f"{shard}: send it in smaller batches. Nothing was written."
                )
            starts = range(0, len(mine), per_entry)
            for part, start in enumerate(starts):
                take = mine[start : start + per_entry]
                names = [draft.names[i] for i in take.tolist()]
                pieces.append((shard, names, draft.operation(take), part, len(starts)))
        return self._write(pieces, request_id, level, draft.conditional, partial, seen)

    def _everywhere(
        self, operation: Operation, request_id: str, level: WriteLevel, seen: Mapping[int, int] = NOTHING_SEEN
    ) -> WriteResult:
        pieces: list[Piece] = [(shard, [], operation, 0, 1) for shard in range(self._placed.config.shards)]
        return self._write(pieces, request_id, level, conditional=False, partial=False, seen=seen)

    def _write(
        self,
        pieces: list[Piece],
        request_id: str,
        level: WriteLevel,
        conditional: bool,
        partial: bool,
        seen: Mapping[int, int],
    ) -> WriteResult:
        if level is WriteLevel.EVENTUAL:
            return self._put_out(pieces, request_id, conditional, seen)
        time, node = self._time.tick(), NodeId(self._fan_out.node)
        parts = [
            WritePart(shard, names, Entry(operation, time, node, RequestId(request_id), part, count))
            for shard, names, operation, part, count in pieces
        ]
        request = WriteRequest(parts, level, conditional, self._fan_out.transport.now_s() + WRITE_S_MAX, partial)
        for one in parts:
            request.by_shard.setdefault(one.shard, []).append(one)
        self._append(request)
        self._await_applied(request)
        return result_of(request, self._sequences(request))

    def _sequences(self, request: WriteRequest) -> dict[int, int]:
        return sequences_of(request)

    def _put_out(self, pieces: list[Piece], request_id: str, conditional: bool, seen: Mapping[int, int]) -> WriteResult:
        """seen: what the client has seen elsewhere, by shard. What this gateway knows comes first: the write's time is later."""
        if conditional:
            raise invalid(
                "if_version is decided where the write is applied, after an EVENTUAL write is answered: write at QUORUM."
            )
        outbox, places = self._open_outbox(), dict(seen)
        for shard, (place, newest_time) in self._known().items():
            places[shard] = max(place, places.get(shard, 0))
            self._time.observe(newest_time)
        time, node = self._time.tick(), NodeId(self._fan_out.node)
        name = RequestId(request_id or self._new_request_id())
        outbox.append(
            [
                (ShardId(shard), Entry(operation, time, node, name, part, count, places.get(shard, 0)))
                for shard, _, operation, part, count in pieces
            ]
        )
        return WriteResult(sum(len(names) for _, names, _, _, _ in pieces), {})

    # Appending

    def _append(self, request: WriteRequest) -> None:
        """Sequences for the parts that are durable, an error for the others."""
        entries = [(ShardId(part.shard), part.entry) for part in request.parts]
        try:
            sequences = self._log.append(entries)
        except JadeError as error:
            if error.code is ErrorCode.NOT_FOUND:
                error = JadeError(ErrorCode.CLOSED, f"Database {self._placed.name!r} was dropped.")
            self._append_failed(request, error)
            return
        for part, sequence in zip(request.parts, sequences, strict=True):
            part.sequence = sequence
        last = [(shard, parts[-1].sequence) for shard, parts in request.by_shard.items()]
        self._fan_out.known.note(self._placed.id, last)

    def _append_failed(self, request: WriteRequest, error: JadeError) -> None:
        durable: Mapping[int, int] = error.details.get("durable", {})
        plain = {name: value for name, value in error.details.items() if name != "durable"}
        # The log tells one error for all shards that failed: with several of them, any may have been stored
        undecided = bool(error.details.get("undecided")) or len(request.by_shard) - len(durable) > 1
        told = JadeError(error.code, error.message, details={**plain, "undecided": undecided})
        for shard, parts in request.by_shard.items():
            last = durable.get(shard)
            for place, part in enumerate(parts):
                if last is None:
                    part.error = told
                else:
                    part.sequence = last - len(parts) + 1 + place

    # Awaiting

    def _await_applied(self, request: WriteRequest) -> None:
        awaited = [part for part in request.parts if part.error is None and self._must_ask(request, part)]
        questions = [self._question(request, part.shard, part.sequence) for part in awaited]
        confirmations = self._confirmations(request)
        extra = [
            self._question(request, shard, sequence, only=node) for shard, sequence, node in confirmations
        ]  # fmt: skip
        gathered = self._ask(request, questions + extra)
        for part, found in zip(awaited, gathered, strict=False):
            part.applied, part.error = outcome_of(part, found)
        for (shard, sequence, node), found in zip(confirmations, gathered[len(questions) :], strict=True):
            if (found.missing or found.error is not None) and node in self._replicas(shard):
                error = unconfirmed(shard, sequence, f"the replica on {node}")
                for part in request.by_shard[shard]:
                    part.error = part.error or error
        for parts in request.by_shard.values():
            for part in parts:
                part.error = part.error or parts[-1].error  # of a shard's parts that were not asked about

    def _must_ask(self, request: WriteRequest, part: WritePart) -> bool:
        """What plain writes do is known beforehand: of several entries for a shard only the last must have been applied."""
        is_known = isinstance(part.entry.operation, Write) and not request.conditional
        return not is_known or part is request.by_shard[part.shard][-1]

    def _confirmations(self, request: WriteRequest) -> list[tuple[int, int, str]]:
        """(shard, sequence, node) of every live replica that a STRONG write waits for."""
        if request.level is not WriteLevel.STRONG:
            return []
        return [
            (shard, parts[-1].sequence, node)
            for shard, parts in request.by_shard.items()
            if parts[-1].error is None
            for node in self._replicas(shard)
        ]

    def _replicas(self, shard: int) -> list[str]:
        picture = self._fan_out.picture
        record = picture.map.databases.get(self._placed.id)
        return [] if record is None else live_replicas(record, shard, picture.is_alive)

    def _question(self, request: WriteRequest, shard: int, sequence: int, only: str = "") -> Question:
        database = self._placed.id
        left_s = max(0.001, request.until_s - self._fan_out.transport.now_s())

        def make(asked: Asked) -> msgspec.Struct:
            return AwaitApplied(database=database, shard=shard, sequence=sequence, wait_s=asked.wait_s)

        return Question(
            database, (shard,), make, left_s, min(left_s, WRITE_S_MAX / 4), only=only, weighed=False, accept=_is_known
        )

    def _ask(self, request: WriteRequest, questions: list[Question]) -> list[Gathered]:
        found: list[Gathered] = []
        for start in range(0, len(questions), _AWAITED_AT_ONCE):
            found += self._fan_out.ask_all(questions[start : start + _AWAITED_AT_ONCE])
        return found


def _is_known(applied: Applied) -> bool:
    return applied.known
