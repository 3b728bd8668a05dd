"""Whether metadata that is already stored fits a schema that is about to be declared.

Reading a million rows takes seconds, in which others go on writing: `check_stored` runs once over a view while they do, and
once more over what was written since, when they are held back.
"""

from __future__ import annotations

import msgspec
import numpy as np

from jadevectordb.index import bitmap
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.schema import Schema
from jadevectordb.model.schema_encode import check_declared
from jadevectordb.segment.reader import UNREADABLE
from jadevectordb.shard.view import DatabaseView, Part

_BLOCK_ROWS = 1024
_decode = msgspec.json.Decoder().decode


def narrowed(old: Schema, new: Schema) -> Schema | None:
    """What of the new schema the old one did not already demand; None when nothing."""
    if new.strict and (not old.strict or old.fields.keys() - new.fields.keys()):
        return new
    fields = {path: declared for path, declared in new.fields.items() if old.fields.get(path) is not declared}
    return Schema(fields) if fields else None


def check_stored(view: DatabaseView, schema: Schema, since: DatabaseView | None) -> None:
    """Raises SCHEMA_VIOLATION naming the first vector found that does not fit. since: a view whose vectors are known to fit."""
    for number, shard in enumerate(view.shards):
        known = set() if since is None else {id(part.reader) for part in since.shards[number].parts}
        newer_than = 0 if since is None else since.shards[number].watermark
        for part in shard.alive_parts():
            if id(part.reader) not in known:
                _check_part(part, schema, newer_than)


def _check_part(part: Part, schema: Schema, newer_than: int) -> None:
    reader = part.reader
    rows = np.arange(reader.row_count) if part.alive is None else bitmap.to_rows(part.alive)
    for start in range(0, len(rows), _BLOCK_ROWS):
        block = [row for row in rows[start : start + _BLOCK_ROWS].tolist() if reader.version_of(row) > newer_than]
        try:
            documents = [_decode(reader.metadata_of(row)) for row in block]
        except UNREADABLE as error:
            raise reader.blame(error) from error
        try:
            check_declared(documents, schema)
        except JadeError as error:
            raise _violation(reader.id_of(block[error.details["row"]]), error) from error


def _violation(vector_id: str, error: JadeError) -> JadeError:
    field = error.details["field"]
    found = "it is not declared, and the schema is strict"
    if "expected" in error.details:
        found = f"declared {error.details['expected']}, the vector has {error.details['actual']}"
    return JadeError(
        ErrorCode.SCHEMA_VIOLATION,
        f"Vector {vector_id!r} does not fit the new schema: field {field}: {found}. "
        "Nothing was changed; change the metadata of such vectors first, or declare the field otherwise.",
        details={**error.details, "id": vector_id},
    )
