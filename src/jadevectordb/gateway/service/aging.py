"""What retention needs of a database: how far it has come, which vectors are as old as that, and taking them out.

A single node's database is asked directly. Of a cluster's, each shard's old vectors are asked of one of its replicas and deleted
through its log, as any write: all replicas stay equal. Both delete a vector only as the version that was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.embedded.hits import Item
from jadevectordb.gateway.service.handles import AnyDatabase
from jadevectordb.gateway.service.numbers import shortest
from jadevectordb.model import hybrid_time
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import VectorId
from jadevectordb.model.limits import EXPIRE_BATCH_ROWS
from jadevectordb.ports.clock import Clock
from jadevectordb.query.aged import written_up_to
from jadevectordb.query.seen import SeenSequences
from jadevectordb.segment.reader import SegmentReader

_TRIES = 5  # of a batch whose vectors are written again meanwhile


class Clocks(Protocol):
    """What o'clock it is. Nodes of a cluster may disagree: then `latest_ms` says when something was written, which is too late
    rather than too early, and `earliest_ms` what time it is now, so that nothing is taken out before its time.
    """

    def earliest_ms(self) -> int: ...
    def latest_ms(self) -> int: ...


class OneClock:
    """Of a node by itself."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def earliest_ms(self) -> int:
        return self._clock.now_ms()

    def latest_ms(self) -> int:
        return self._clock.now_ms()


@dataclass(frozen=True, slots=True)
class Old:
    """A vector to take out, as it was seen. line: as it is archived."""

    id: VectorId
    version: int
    line: Callable[[], bytes]


class Aging(Protocol):
    """Raises what reading and writing the database raise.

    only_grows: marks that are less than before come from a replica that is behind, not from an older copy in the database's place.
    """

    only_grows: bool

    def come_to(self) -> tuple[int, tuple[int, ...]]:
        """A time in ms, and a mark a shard up to which everything was written by then."""
        ...

    def batches(self, marks: tuple[int, ...]) -> Iterator[list[Old]]:
        """Live vectors written up to the marks, each once unless it is still there after its batch was dealt with."""
        ...

    def delete_as_seen(self, batch: list[Old]) -> list[VectorId]:
        """Delete those that still have the version that was seen; their ids."""
        ...


def aging_of(handle: AnyDatabase, clocks: Clocks) -> Aging:
    return ClusterAging(handle, clocks) if isinstance(handle, ClusterDatabase) else NodeAging(handle)


class NodeAging:
    """Of a database on this node."""

    only_grows = False

    def __init__(self, handle: Database) -> None:
        self._handle = handle

    def come_to(self) -> tuple[int, tuple[int, ...]]:
        opened = self._handle._use()
        marks = tuple(int(shard.watermark) for shard in opened.view.shards)
        return hybrid_time.to_ms(opened.newest_time), marks  # read after the marks: none of them was written later

    def batches(self, marks: tuple[int, ...]) -> Iterator[list[Old]]:
        found = written_up_to(self._handle._use().view, marks)
        while batch := list(islice(found, EXPIRE_BATCH_ROWS)):
            yield [self._old(reader, row) for reader, row in batch]

    def _old(self, reader: SegmentReader, row: int) -> Old:
        vector_id = VectorId(reader.id_of(row))

        def line() -> bytes:
            vector = self._handle._now().unpacker.unpack(reader.vector_of(row))
            return _line(vector_id, vector, reader.metadata_of(row))

        return Old(vector_id, reader.version_of(row), line)

    def delete_as_seen(self, batch: list[Old]) -> list[VectorId]:
        return _delete_as_seen(self._handle, batch, self._handle.get)


class ClusterAging:
    """Of a database of a cluster. Each batch is of one shard, so that it is deleted whole or not at all."""

    only_grows = True

    def __init__(self, handle: ClusterDatabase, clocks: Clocks) -> None:
        self._handle = handle
        self._clocks = clocks
        self._seen = SeenSequences()  # what the sweep has read and deleted

    def come_to(self) -> tuple[int, tuple[int, ...]]:
        marks = tuple(self._handle.watermarks())
        return self._clocks.latest_ms(), marks  # read after the marks

    def batches(self, marks: tuple[int, ...]) -> Iterator[list[Old]]:
        for shard, mark in enumerate(marks):
            seen: dict[str, int] = {}
            while mark:
                items = self._handle.written_up_to(shard, mark, EXPIRE_BATCH_ROWS, self._seen)
                if all(seen.get(item.id) == item.version for item in items):
                    break  # none, or what could not be deleted: the next sweep looks once more
                seen = {item.id: item.version for item in items}
                yield [Old(VectorId(item.id), item.version, partial(_line_of, item)) for item in items]

    def delete_as_seen(self, batch: list[Old]) -> list[VectorId]:
        def get(ids: list[VectorId]) -> list[Item | None]:
            return self._handle.get(ids, seen=self._seen)

        return _delete_as_seen(self._handle, batch, get, lambda sequences: self._seen.raise_to(sequences.items()))


def _line_of(item: Item) -> bytes:
    return _line(item.id, item.vector, item.metadata_json)


def _line(vector_id: str, vector: npt.NDArray[Any], metadata: bytes) -> bytes:
    plain = shortest(vector).tolist() if vector.dtype == np.float32 else vector.tolist()
    return msgspec.json.encode({"id": vector_id, "vector": plain, "metadata": msgspec.Raw(metadata)})


def _delete_as_seen(
    handle: AnyDatabase,
    batch: Seq[Old],
    get: Callable[[list[VectorId]], list[Item | None]],
    wrote: Callable[[Mapping[int, int]], None] = lambda sequences: None,
) -> list[VectorId]:
    for _ in range(_TRIES):
        items = get([old.id for old in batch])
        batch = [
            old for old, item in zip(batch, items, strict=True) if item is not None and item.version == old.version
        ]
        if not batch:
            return []
        try:
            result = handle.delete([old.id for old in batch], if_version=[old.version for old in batch])
            wrote(result.sequences)
            return [old.id for old in batch]
        except JadeError as error:
            if error.code is not ErrorCode.VERSION_CONFLICT:
                raise
    return []  # written again and again: the next sweep looks once more
