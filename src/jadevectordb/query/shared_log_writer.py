"""Writes to a database whose shards share one log, because its vectors decide which shard they belong to.

One entry tells all shards: the one a vector belongs to takes it, the others drop what they had under its id (`PlacedWrite`). The log
gives every entry one place in one order, so wherever writers race and whatever fails between, every id lives in one shard at any
sequence, in the one that the newest of its writes names. A request is one frame of this log, all of it or nothing.

What it costs: every shard reads every entry, and writes of all shards go through one log. What can't be had: `if_version`, because
no single shard knows whether an id is stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import NodeId, RequestId, ShardId
from jadevectordb.model.operations import Barrier, Entry, Operation, PlacedWrite, Write
from jadevectordb.ports.node_calls import Applied
from jadevectordb.query.cluster_writer import NOTHING_SEEN, ClusterWriter, Piece, WriterParts
from jadevectordb.query.drafts import Draft
from jadevectordb.query.levels import WriteLevel
from jadevectordb.query.question import Gathered
from jadevectordb.query.write_outcome import WritePart, WriteRequest, outcome_of, sequences_of, unconfirmed
from jadevectordb.query.writer import WriteResult
from jadevectordb.topology.cells import CellMap

_LOG = 0  # the log of all shards


class SharedLogWriter(ClusterWriter):
    """As `ClusterWriter`. cells: of the database. Thread-safe."""

    def __init__(self, parts: WriterParts, cells: CellMap) -> None:
        super().__init__(parts)
        self._cells = cells
        self._shards = range(parts.placed.config.shards)

    def barrier(self, shards: Iterable[int]) -> dict[int, int]:
        """One barrier is one for all shards: their sequences are those of one log."""
        entry = Entry(Barrier(), self._time.tick(), NodeId(self._fan_out.node))
        sequence = int(self._log.append([(ShardId(_LOG), entry)])[0])
        return dict.fromkeys(shards, sequence)

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
        del atomic, partial  # every request is all or nothing
        if not draft.names:
            return WriteResult(0, {})
        if draft.conditional:
            raise JadeError(
                ErrorCode.NOT_IMPLEMENTED,
                "if_version is not offered where vectors decide their shard: none of the shards knows by itself whether an id is stored. "
                "Nothing was written; use a database that is sharded by hash where writes depend on versions.",
            )
        places = None if draft.rows is None else self._cells.shards_of(self._space.search_rows(draft.rows))
        starts = range(0, len(draft.names), draft.per_entry)
        pieces: list[Piece] = []
        for part, start in enumerate(starts):
            take = np.arange(start, min(start + draft.per_entry, len(draft.names)))
            operation = draft.operation(take)
            if places is not None:
                assert isinstance(operation, Write)
                operation = PlacedWrite(
                    operation.ids, operation.vectors, operation.metadata, None, places[take].tolist()
                )
            names = draft.names[start : start + draft.per_entry]
            pieces.append((_LOG, names, operation, part, len(starts)))
        return self._write(pieces, request_id, level, False, False, seen)

    def _everywhere(
        self, operation: Operation, request_id: str, level: WriteLevel, seen: Mapping[int, int] = NOTHING_SEEN
    ) -> WriteResult:
        pieces: list[Piece] = [(_LOG, [], operation, 0, 1)]
        return self._write(pieces, request_id, level, False, False, seen)

    def _put_out(self, pieces: list[Piece], request_id: str, conditional: bool, seen: Mapping[int, int]) -> WriteResult:
        """Without what was seen: whether a concurrent write is newer only the shard that holds the row could say, so the log decides."""
        del conditional, seen  # refused before
        time, node = self._time.tick(), NodeId(self._fan_out.node)
        name = RequestId(request_id or self._new_request_id())
        entries = [
            (ShardId(_LOG), Entry(operation, time, node, name, part, count)) for _, _, operation, part, count in pieces
        ]
        self._open_outbox().append(entries)
        return WriteResult(sum(len(names) for _, names, _, _, _ in pieces), {})

    def _sequences(self, request: WriteRequest) -> dict[int, int]:
        """A place in the one log is one of every shard."""
        return {shard: sequence for sequence in sequences_of(request).values() for shard in self._shards}

    # Awaiting

    def _await_applied(self, request: WriteRequest) -> None:
        """A replica of each shard (or every live one) has applied what must be known; what they did is added up."""
        parts = [part for part in request.parts if part.error is None]
        asked = [(part, shard) for part in parts if self._must_ask(request, part) for shard in self._shards]
        questions = [self._question(request, shard, part.sequence) for part, shard in asked]
        replicas = self._live_replicas(request, parts)
        questions += [self._question(request, shard, parts[-1].sequence, only=node) for shard, node in replicas]
        gathered = self._ask(request, questions)
        for (part, shard), found in zip(asked, gathered, strict=False):
            self._add(part, shard, found)
        for (shard, node), found in zip(replicas, gathered[len(asked) :], strict=True):
            if (found.missing or found.error is not None) and node in self._replicas(shard):
                parts[-1].error = parts[-1].error or unconfirmed(_LOG, parts[-1].sequence, f"shard {shard} on {node}")
        for part in parts:
            part.error = part.error or parts[-1].error  # of those that were not asked about

    def _live_replicas(self, request: WriteRequest, parts: list[WritePart]) -> list[tuple[int, str]]:
        """(shard, node) of every replica that a STRONG write waits for."""
        if request.level is not WriteLevel.STRONG or not parts:
            return []
        return [(shard, node) for shard in self._shards for node in self._replicas(shard)]

    def _add(self, part: WritePart, shard: int, found: Gathered) -> None:
        applied, error = outcome_of(part, found)
        if error is not None or applied is None:
            part.error = part.error or error
        elif part.applied is None:
            part.applied = applied
        elif applied.known and part.applied.known:
            part.applied = Applied(
                known=True,
                sequence=part.applied.sequence,
                changed=part.applied.changed + applied.changed,
                duplicate=part.applied.duplicate or applied.duplicate,
            )
        else:
            part.applied = Applied(known=False)  # a plain write: what it does is known from itself
