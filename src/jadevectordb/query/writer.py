"""The write path: check, pack, route to shards, append one frame, and tell what became of it.

Everything about a request that can be wrong is found before the log is touched. The entries of a request, for however many
shards, are one frame: durable and visible together, or not at all. A condition (`if_version`) is decided where it is applied;
a request whose conditions fall into more than one entry is first checked with all other writers held back, so that it too
is applied whole or not at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from jadevectordb.index.space import VectorSpace
from jadevectordb.model import filters
from jadevectordb.model.database import DatabaseConfig
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filters import Filter
from jadevectordb.model.hybrid_time import HybridClock
from jadevectordb.model.ids import HybridTime, NodeId, RequestId, Sequence, ShardId, VectorId
from jadevectordb.model.limits import METADATA_BYTES_MAX
from jadevectordb.model.operations import (
    Delete,
    DeleteWhere,
    Entry,
    Operation,
    Outcome,
    Refusal,
    Seal,
    Update,
    Write,
)
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.log import Log
from jadevectordb.query.drafts import Draft, Taken, draft_delete, draft_update, draft_upsert
from jadevectordb.query.write_checks import NO_CONDITION, check_merged_sizes, check_request_id, located
from jadevectordb.segment.records import hash_ids
from jadevectordb.shard.view import DatabaseView
from jadevectordb.topology.sharding import shards_of

# A patch and a stored object up to these sizes make no object beyond METADATA_BYTES_MAX, whoever else changes it at that moment.
_PATCH_BYTES_SURE = 4096
_STORED_BYTES_SURE = METADATA_BYTES_MAX // 2


@dataclass(frozen=True, slots=True)
class Failed:
    """These vectors of a request were not written, or (UNAVAILABLE with `details["undecided"]`) it is not known whether."""

    ids: list[VectorId]
    error: JadeError


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a write did.

    count: vectors written, updated or deleted. sequences: newest log entry of the request by shard (a session token).
    duplicate: the request id was applied before, nothing was done again. failures: of a request over several shards of a
    cluster whose caller takes part of it for an answer.
    """

    count: int
    sequences: dict[int, int]
    duplicate: bool = False
    failures: tuple[Failed, ...] = ()

    @property
    def version(self) -> int:
        """The version the vectors of this request got, where they all are in one shard and one entry."""
        return max(self.sequences.values(), default=0)


class WriteTarget(Protocol):
    """What a writer needs of the database it writes to; `node.OpenDatabase` is one."""

    @property
    def config(self) -> DatabaseConfig: ...
    @property
    def space(self) -> VectorSpace: ...
    @property
    def log(self) -> Log: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def view(self) -> DatabaseView: ...
    @property
    def newest_time(self) -> HybridTime: ...
    def check_usable(self) -> None:
        """Raises what keeps the database from taking writes; waits while too much is on its way to the disk."""
        ...

    def take_outcome(self, shard: ShardId, sequence: Sequence) -> Outcome: ...
    def was_applied(self, shard: ShardId, request_id: str, part: int) -> bool:
        """Whether this part of the request changed the shard before, as far as the shard remembers."""
        ...


class WriteGate:
    """Writers pass together; one that needs the state to stand still passes alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                if not self._inside:
                    self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            while self._alone:
                self._changed.wait()
            self._alone = True
            while self._inside:
                self._changed.wait()
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


class Writer:
    """Writes to one open database. Thread-safe."""

    def __init__(self, database: WriteTarget, node: NodeId) -> None:
        self._database = database
        self._node = node
        self._gate = WriteGate()
        self._clock = HybridClock(database.newest_time)  # a wall clock set back must not contradict the log
        self._clock_lock = threading.Lock()

    def upsert(
        self,
        ids: Iterable[str],
        vectors: npt.ArrayLike,
        metadata: Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any] | None,
        if_version: Seq[int | None] | int | None,
        request_id: str,
    ) -> WriteResult:
        database = self._database
        draft = draft_upsert(
            database.space, database.config.schema, ids, vectors, metadata, if_version, request_id
        )  # fmt: skip
        return self._submit(draft, request_id)

    def delete(self, ids: Iterable[str], if_version: Seq[int | None] | int | None, request_id: str) -> WriteResult:
        return self._submit(draft_delete(ids, if_version, request_id), request_id)

    def delete_where(self, node: Filter, request_id: str) -> WriteResult:
        check_request_id(request_id)
        operation = DeleteWhere(filters.to_json(node))
        shards = [ShardId(i) for i in range(self._database.config.shards)]
        with self._gate.shared():
            return self._append([(shard, operation, 0, 1) for shard in shards], request_id)

    def update(
        self,
        ids: Iterable[str],
        metadata: Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any],
        merge: bool,
        if_version: Seq[int | None] | int | None,
        request_id: str,
    ) -> WriteResult:
        draft = draft_update(self._database.config.schema, ids, metadata, merge, if_version, request_id)
        assert draft.patches is not None
        check = self._merged_size_check(draft.names, draft.patches) if merge else None
        return self._submit(draft, request_id, check)

    def _merged_size_check(self, names: list[VectorId], patches: list[bytes]) -> Callable[[], None] | None:
        """What must hold with all other writers held back; None when what is stored and the patches are too small to matter."""
        if not any(
            len(p) > _PATCH_BYTES_SURE or s + len(p) > _STORED_BYTES_SURE for p, s in self._sizes(names, patches)
        ):
            return None

        def check() -> None:
            check_merged_sizes(self._database.view, names, patches)

        return check

    def _sizes(self, names: list[VectorId], patches: list[bytes]) -> Iterator[tuple[bytes, int]]:
        """Each patch and the size of the metadata it is merged into."""
        for patch, where in zip(patches, located(self._database.view, names), strict=True):
            if where is not None:
                yield patch, len(where[0].reader.metadata_of(where[1]))

    def seal(self, *, compact: bool) -> WriteResult:
        """Have every shard close its growing segment at one place of its log."""
        shards = [ShardId(i) for i in range(self._database.config.shards)]
        with self._gate.shared():
            return self._append([(shard, Seal(compact), 0, 1) for shard in shards], "")

    # Routing and appending

    def _submit(self, draft: Draft, request_id: str, check: Callable[[], None] | None = None) -> WriteResult:
        """check: raises what stands against the request, as long as nobody else writes."""
        if not draft.names:
            return WriteResult(0, {})
        pieces = self._pieces(draft.names, draft.operation, draft.per_entry)
        several_conditions = draft.conditional and len(pieces) > 1
        if check is not None or several_conditions:
            with self._gate.alone():
                if check is not None and not self._is_known(pieces, request_id):
                    check()
                if several_conditions:
                    self._check_conditions(pieces, request_id)
                return self._append(pieces, request_id)
        with self._gate.shared():
            return self._append(pieces, request_id)

    def _pieces(
        self, names: list[VectorId], operation: Callable[[Taken], Operation], per_entry: int
    ) -> list[tuple[ShardId, Operation, int, int]]:
        """The request cut by shard and entry size: (shard, operation, part, parts)."""
        shard_count = self._database.config.shards
        if shard_count == 1:
            starts = range(0, len(names), per_entry)
            return [(ShardId(0), operation(slice(s, s + per_entry)), i, len(starts)) for i, s in enumerate(starts)]
        shards = shards_of(hash_ids(names), shard_count)
        pieces = []
        for shard in np.unique(shards).tolist():
            mine = np.flatnonzero(shards == shard)
            starts = range(0, len(mine), per_entry)
            pieces += [
                (ShardId(shard), operation(mine[s : s + per_entry]), i, len(starts)) for i, s in enumerate(starts)
            ]
        return pieces

    def _append(self, pieces: list[tuple[ShardId, Operation, int, int]], request_id: str) -> WriteResult:
        database = self._database
        database.check_usable()
        with self._clock_lock:
            time = self._clock.tick(database.clock.now_ms())
        entries = [
            (shard, Entry(operation, time, self._node, RequestId(request_id), part, parts))
            for shard, operation, part, parts in pieces
        ]
        sequences = database.log.append(entries)
        outcomes = [
            database.take_outcome(shard, sequence) for (shard, _), sequence in zip(entries, sequences, strict=True)
        ]
        return _result(entries, outcomes)

    def _is_known(self, pieces: list[tuple[ShardId, Operation, int, int]], request_id: str) -> bool:
        return bool(request_id) and all(
            self._database.was_applied(shard, request_id, part) for shard, _, part, _ in pieces
        )

    def _check_conditions(self, pieces: list[tuple[ShardId, Operation, int, int]], request_id: str) -> None:
        """Raise VERSION_CONFLICT if any condition of the request does not hold now; nobody else is writing."""
        shards = self._database.view.shards
        for shard, operation, part, _ in pieces:
            if request_id and self._database.was_applied(shard, request_id, part):
                continue  # a retry: the versions it asks for were replaced by its first try
            assert isinstance(operation, Write | Delete | Update) and operation.if_version is not None
            located = shards[shard].locate(list(operation.ids))
            for name, expected, where in zip(operation.ids, operation.if_version, located, strict=True):
                actual = 0 if where is None else where[0].reader.version_of(where[1])
                if expected not in (NO_CONDITION, actual):
                    raise conflict(name, expected, actual)


def _result(entries: list[tuple[ShardId, Entry]], outcomes: list[Outcome]) -> WriteResult:
    sequences: dict[int, int] = {}
    for (shard, _), outcome in zip(entries, outcomes, strict=True):
        if outcome.refusal is not None:
            refusal: Refusal = outcome.refusal
            raise conflict(refusal.id, refusal.expected, refusal.actual)
        sequences[shard] = max(sequences.get(shard, 0), outcome.sequence)
    return WriteResult(sum(o.changed for o in outcomes), sequences, any(o.duplicate for o in outcomes))


def conflict(vector_id: str, expected: int, actual: int) -> JadeError:
    found = "it does not exist" if actual == 0 else f"it has version {actual}"
    wanted = "must not exist yet" if expected == 0 else f"must have version {expected}"
    return JadeError(
        ErrorCode.VERSION_CONFLICT,
        f"Vector {vector_id!r} {wanted}, but {found}; nothing was written. Read it again and retry with its version.",
        details={"id": vector_id, "expected": expected, "actual": actual},
    )
