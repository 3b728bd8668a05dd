"""VectorService: vectors by id, and walks over all of them."""

from __future__ import annotations

from collections.abc import Iterator

from jadevectordb.gateway.rpc.call import Call
from jadevectordb.gateway.rpc.generated import types_pb2 as types
from jadevectordb.gateway.rpc.generated import vectors_pb2 as wire
from jadevectordb.gateway.rpc.values import (
    conditions_of,
    filter_of,
    invalid,
    metadata_of,
    object_of,
    point_rows,
    receipt_of,
    rows_of,
    stored_of,
)
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import K_MAX, RPC_PAGE_BYTES
from jadevectordb.query.writer import WriteResult

_PAGE_SIZE = 1000
_GET_DEFAULT = types.Selection(metadata=True, vector=True, version=True)
_SCROLL_DEFAULT = types.Selection(metadata=True, version=True)


# Writing


def upsert(call: Call, request: wire.UpsertVectorsRequest) -> wire.UpsertVectorsResponse:
    result = _upsert(call, request)
    return wire.UpsertVectorsResponse(receipt=receipt_of(call, result))


def bulk_upsert(call: Call, requests: Iterator[wire.BulkUpsertRequest]) -> Iterator[wire.BulkUpsertResponse]:
    """Each message is admitted like a call of its own: a credential that is revoked meanwhile ends the stream."""
    database, total, applied = "", 0, 0
    try:
        for request in requests:
            if applied:
                call.admit()
            if not database and not request.database:
                raise invalid("The first message of the stream names the database.")
            if database and request.database not in ("", database):
                raise invalid("All messages of a stream are for one database: open another stream for another.")
            database = database or request.database
            call.resolve(database)
            result = _upsert(call, request)
            call.audit()
            total += result.count
            receipt = receipt_of(call, result)
            applied += 1
            yield wire.BulkUpsertResponse(message=applied - 1, receipt=receipt, count_total=total)
    except JadeError as error:
        # What came before the message that failed stays
        error.details.setdefault("messages_applied", applied)
        raise


def _upsert(call: Call, request: wire.UpsertVectorsRequest | wire.BulkUpsertRequest) -> WriteResult:
    handle, points = call.entry.handle, request.points
    if points:
        if request.HasField("columns"):
            raise invalid("Vectors come as points or as columns, not both.")
        ids = [point.id for point in points]
        vectors = point_rows(points, handle.dimension)
        metadata = metadata_of((point.metadata_json for point in points), len(ids))
        expected = [point.if_version if point.HasField("if_version") else None for point in points]
        conditions = expected if any(version is not None for version in expected) else None
    else:
        columns = request.columns
        ids = list(columns.ids)
        if not ids:
            raise invalid("The request holds no vectors: give points or columns.")
        vectors = rows_of(columns.vectors, len(ids), handle.dimension)
        metadata = metadata_of(columns.metadata_json, len(ids))
        conditions = conditions_of(columns.if_version)
    call.check_wanted()
    result = handle.upsert(ids, vectors, metadata, conditions, request_id=request.request_id, **call.writing())
    call.did(f"{result.count} vectors")
    return result


def update_metadata(call: Call, request: wire.UpdateMetadataRequest) -> wire.UpdateMetadataResponse:
    ids, given = list(request.ids), list(request.metadata_json)
    if not ids or not given:
        raise invalid("Give ids and the metadata to store with them.")
    if len(given) == 1:
        given *= len(ids)
    for one in given:
        if not one:
            raise invalid("Each metadata_json is a JSON object; {} to change nothing, or with replace to clear it.")
    metadata = [one.strip() for one in given]
    object_of(metadata[0], "metadata_json", ErrorCode.INVALID_METADATA)
    call.check_wanted()
    result = call.entry.handle.update_metadata(
        ids,
        metadata,
        merge=not request.replace,
        if_version=conditions_of(request.if_version),
        request_id=request.request_id,
        **call.writing(),
    )
    call.did(f"{result.count} vectors")
    return wire.UpdateMetadataResponse(receipt=receipt_of(call, result))


def delete(call: Call, request: wire.DeleteVectorsRequest) -> wire.DeleteVectorsResponse:
    ids, condition = list(request.ids), filter_of(request.filter_json)
    if bool(ids) == (condition is not None):
        raise invalid("Delete takes either ids or a filter.")
    call.check_wanted()
    result = call.entry.handle.delete(
        ids or None,
        filter=condition,
        if_version=conditions_of(request.if_version),
        request_id=request.request_id,
        **call.writing(),
    )
    call.did(f"{result.count} vectors")
    return wire.DeleteVectorsResponse(receipt=receipt_of(call, result))


# Reading


def get(call: Call, request: wire.GetVectorsRequest) -> wire.GetVectorsResponse:
    reading = call.reading(request.session)
    selection = request.include if request.HasField("include") else _GET_DEFAULT
    ids = list(request.ids)
    answer = wire.GetVectorsResponse()
    for vector_id, item in zip(ids, call.entry.handle.get(ids, **reading), strict=True):
        if item is None:
            answer.missing.append(vector_id)
        else:
            answer.vectors.append(stored_of(item, selection))
    answer.session = call.session
    return answer


def exist(call: Call, request: wire.VectorsExistRequest) -> wire.VectorsExistResponse:
    reading = call.reading(request.session)
    exists = call.entry.handle.exists(list(request.ids), **reading)
    return wire.VectorsExistResponse(exists=exists, session=call.session)


def count(call: Call, request: wire.CountVectorsRequest) -> wire.CountVectorsResponse:
    reading = call.reading(request.session)
    count = call.entry.handle.count(filter_of(request.filter_json), **reading)
    return wire.CountVectorsResponse(count=count, session=call.session)


def scroll(call: Call, request: wire.ScrollVectorsRequest) -> Iterator[wire.ScrollVectorsResponse]:
    """Messages end at the page size or at about RPC_PAGE_BYTES, whichever comes first: clients refuse large ones."""
    reading = call.reading(request.session)
    selection = request.include if request.HasField("include") else _SCROLL_DEFAULT
    page_size = request.page_size or _PAGE_SIZE
    if page_size > K_MAX:
        raise invalid(f"page_size must be 1 to {K_MAX}, got {page_size}.")
    condition = filter_of(request.filter_json)
    left = request.limit or None
    cursor: str | None = request.cursor or None
    while True:
        call.check_wanted()
        wanted = page_size if left is None else min(page_size, left)
        page = call.entry.handle.scroll(wanted, cursor, condition, **reading)
        cursor = page.cursor
        left = None if left is None else left - len(page.items)
        ended = cursor is None or left == 0
        session = call.session
        message, size = wire.ScrollVectorsResponse(session=session), 0
        for position, item in enumerate(page.items):
            one = stored_of(item, selection)
            message.vectors.append(one)
            size += one.ByteSize()
            if size >= RPC_PAGE_BYTES and position + 1 < len(page.items):
                message.cursor = item.id
                yield message
                call.check_wanted()
                message, size = wire.ScrollVectorsResponse(session=session), 0
        # A scroll that its limit ended can be gone on with
        message.cursor = cursor or ""
        yield message
        if ended:
            return
