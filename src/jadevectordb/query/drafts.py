"""A write that was checked and packed, before anyone asks which shards and entries it becomes.

Everything about a request that can be wrong by itself is found here, for the writer of one node and the writer of a cluster
alike: ids, vectors, metadata, expected versions, sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import VectorId
from jadevectordb.model.limits import BATCH_ROWS_MAX, ENTRY_BYTES_MAX, ENTRY_ROWS_MAX, REQUEST_BYTES_MAX
from jadevectordb.model.operations import Delete, Operation, Rows, Update, Write
from jadevectordb.model.schema import Schema
from jadevectordb.query.write_checks import check_ids, check_request_id, conditions, encode_all, invalid

Taken = slice | npt.NDArray[np.int64]  # which of a draft's vectors


@dataclass(frozen=True, slots=True)
class Draft:
    """names: the ids of the request, in order. operation: what the log is told of some of them. per_entry: as many at most.

    rows: of an upsert, as sent. patches: of an update.
    """

    names: list[VectorId]
    operation: Callable[[Taken], Operation]
    per_entry: int
    conditional: bool
    rows: Rows | None = None
    patches: list[bytes] | None = None


def draft_upsert(
    space: VectorSpace,
    schema: Schema,
    ids: Iterable[str],
    vectors: npt.ArrayLike,
    metadata: Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any] | None,
    if_version: Seq[int | None] | int | None,
    request_id: str,
) -> Draft:
    """Raises what is wrong with the request."""
    names = check_ids(ids)
    check_request_id(request_id)
    rows = space.check_and_pack(vectors)
    if len(rows) != len(names):
        raise invalid(f"{len(names)} ids came with {len(rows)} vectors: give one vector an id.")
    encoded = encode_all(metadata, names, schema)
    expected = conditions(if_version, len(names))
    size = rows.nbytes + sum(map(len, encoded))
    if len(names) > BATCH_ROWS_MAX or size > REQUEST_BYTES_MAX:
        raise JadeError(
            ErrorCode.REQUEST_TOO_LARGE,
            f"One request may hold {BATCH_ROWS_MAX:,} vectors and {REQUEST_BYTES_MAX >> 20} MiB, this one has {len(names):,} and "
            f"{size >> 20} MiB: send it in smaller batches.",
            details={"rows": len(names), "bytes": size},
        )

    def operation(take: Taken) -> Operation:
        if isinstance(take, slice):
            return Write(names[take], rows[take], encoded[take], None if expected is None else expected[take])
        at = take.tolist()
        return Write(
            [names[i] for i in at],
            rows[take],
            [encoded[i] for i in at],
            None if expected is None else [expected[i] for i in at],
        )

    return Draft(names, operation, _per_entry(len(names), size), expected is not None, rows=rows)


def draft_delete(ids: Iterable[str], if_version: Seq[int | None] | int | None, request_id: str) -> Draft:
    """Raises what is wrong with the request."""
    names = check_ids(ids)
    check_request_id(request_id)
    expected = conditions(if_version, len(names))

    def operation(take: Taken) -> Operation:
        at = _places(take, len(names))
        return Delete([names[i] for i in at], None if expected is None else [expected[i] for i in at])

    return Draft(names, operation, ENTRY_ROWS_MAX, expected is not None)


def draft_update(
    schema: Schema,
    ids: Iterable[str],
    metadata: Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any],
    merge: bool,
    if_version: Seq[int | None] | int | None,
    request_id: str,
) -> Draft:
    """Raises what is wrong with the request."""
    names = check_ids(ids)
    check_request_id(request_id)
    patches = encode_all(metadata, names, schema)
    expected = conditions(if_version, len(names))

    def operation(take: Taken) -> Operation:
        at = _places(take, len(names))
        conditions_taken = None if expected is None else [expected[i] for i in at]
        return Update([names[i] for i in at], [patches[i] for i in at], merge, conditions_taken)

    size = sum(map(len, patches))
    return Draft(names, operation, _per_entry(len(names), size), expected is not None, patches=patches)


def _places(take: Taken, count: int) -> Iterable[int]:
    if isinstance(take, slice):
        return range(count)[take]
    places: list[int] = take.tolist()
    return places


def _per_entry(count: int, size: int) -> int:
    return max(1, min(ENTRY_ROWS_MAX, ENTRY_BYTES_MAX * count // max(1, size)))
