"""What is checked of a write before the log is touched: ids, metadata, expected versions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import Any

import numpy as np

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import VectorId
from jadevectordb.model.limits import ID_LENGTH_MAX, METADATA_BYTES_MAX
from jadevectordb.model.schema import Schema
from jadevectordb.model.schema_encode import encode_for_ids
from jadevectordb.segment.reader import UNREADABLE
from jadevectordb.segment.records import hash_ids
from jadevectordb.shard.apply import merge_metadata
from jadevectordb.shard.view import DatabaseView, Part
from jadevectordb.topology.sharding import shards_of

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
NO_CONDITION = -1


def check_ids(ids: Iterable[str]) -> list[VectorId]:
    """Ids as a list, each 1..ID_LENGTH_MAX characters without control characters, no two alike."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise invalid("ids must be a sequence of strings, one a vector; a single id goes in a list.")
    names = [VectorId(i) for i in (ids.tolist() if isinstance(ids, np.ndarray) else ids)]
    if set(map(type, names)) - {str}:
        bad = next(i for i, name in enumerate(names) if type(name) is not str)
        raise JadeError(
            ErrorCode.INVALID_ID,
            f"Id {names[bad]!r} at position {bad} is a {type(names[bad]).__name__}: ids are strings, write str(id).",
            details={"position": bad},
        )
    # One pass over the joined text instead of one check an id: thousands a batch
    joined = "".join(names)
    if _CONTROL.search(joined) or any(map(_bad_length, set(map(len, names)))) or not is_unicode(joined):
        bad = next(i for i, n in enumerate(names) if _bad_length(len(n)) or _CONTROL.search(n) or not is_unicode(n))
        raise JadeError(
            ErrorCode.INVALID_ID,
            f"Id {names[bad][:80]!r} at position {bad} is not allowed: 1 to {ID_LENGTH_MAX} characters, no control characters.",
            details={"position": bad},
        )
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = next(n for n in names if n in seen or seen.add(n))  # type: ignore[func-returns-value]
        raise JadeError(
            ErrorCode.DUPLICATE_ID,
            f"Id {twice!r} occurs twice in the batch: which of its vectors counts? Keep one. Nothing was written.",
            details={"id": twice},
        )
    return names


def check_request_id(request_id: str) -> None:
    if type(request_id) is not str or len(request_id) > ID_LENGTH_MAX or not is_unicode(request_id):
        raise invalid(f"request_id must be a string of at most {ID_LENGTH_MAX} characters, got {request_id!r:.80}.")


def _bad_length(length: int) -> bool:
    return not 1 <= length <= ID_LENGTH_MAX


def is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def encode_all(
    metadata: Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any] | None, names: Seq[str], schema: Schema
) -> list[bytes]:
    """Metadata as JSON, one object an id; none is {} for all."""
    return [b"{}"] * len(names) if metadata is None else encode_for_ids(metadata, len(names), schema)


def check_merged_sizes(view: DatabaseView, names: list[VectorId], patches: list[bytes]) -> None:
    """Raises INVALID_METADATA when a patch, merged into what is stored under its id now, makes an object that is too large."""
    for name, patch, where in zip(names, patches, located(view, names), strict=True):
        if where is None:
            continue
        reader, row = where[0].reader, where[1]
        stored = reader.metadata_of(row)
        if len(stored) + len(patch) <= METADATA_BYTES_MAX:
            continue
        try:
            size = len(merge_metadata(stored, patch))
        except UNREADABLE as error:
            raise reader.blame(error) from error
        if size > METADATA_BYTES_MAX:
            raise JadeError(
                ErrorCode.INVALID_METADATA,
                f"Merged with what is stored, the metadata of {name!r} would take {size} bytes as JSON, at most "
                f"{METADATA_BYTES_MAX} are possible. Nothing was changed; store large values elsewhere.",
                details={"id": name, "bytes": size},
            )


def located(view: DatabaseView, names: Seq[VectorId]) -> list[tuple[Part, int] | None]:
    """Where each id lives now: its part and row, None for ids that don't exist."""
    if len(view.shards) == 1:
        return view.shards[0].locate(list(names))
    shards = shards_of(hash_ids(names), len(view.shards))
    found: list[tuple[Part, int] | None] = [None] * len(names)
    for shard in np.unique(shards).tolist():
        mine = np.flatnonzero(shards == shard).tolist()
        for i, where in zip(mine, view.shards[shard].locate([names[i] for i in mine]), strict=True):
            found[i] = where
    return found


def conditions(if_version: Seq[int | None] | int | None, count: int) -> list[int] | None:
    """Expected versions, one an id; -1 = no condition for that one."""
    if if_version is None:
        return None
    if isinstance(if_version, int | np.integer):
        given: list[object] = [if_version] * count
    elif isinstance(if_version, Iterable) and not isinstance(if_version, str | bytes):
        given = list(if_version)
    else:
        raise _bad_versions()
    expected = []
    for version in given:
        if version is None:
            expected.append(NO_CONDITION)
        elif isinstance(version, int | np.integer) and not isinstance(version, bool) and 0 <= version < 1 << 63:
            expected.append(int(version))
        else:
            raise _bad_versions()
    if len(expected) != count:
        raise invalid(f"{count} ids came with {len(expected)} expected versions: give one for all, or one an id.")
    return expected


def _bad_versions() -> JadeError:
    return invalid(
        "if_version is 0 (must not exist), a version, or None for no condition: one for all, or a list with one an id."
    )


def invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
