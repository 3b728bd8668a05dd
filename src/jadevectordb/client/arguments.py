"""What a caller may write for ids, metadata, filters, numbers: turned here into what is sent, or refused saying what to do.

Only what could not be sent, or would arrive as something else, is refused; the rest is the server's to judge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import Any
from urllib.parse import quote_plus

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.client.call import encode
from jadevectordb.client.raw import query_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.filter_nodes import Filter

MetadataLike = Seq[Mapping[str, Any] | bytes | None] | Mapping[str, Any]  # bytes: a JSON object
FilterLike = Filter | Mapping[str, Any] | None
Versions = Seq[int | None] | int | None
Include = Seq[str]

_PARTS = frozenset({"metadata", "vector", "version"})


def wire_filter(filter: FilterLike) -> dict[str, Any] | None:
    if filter is None:
        return None
    # Loads the regular expressions: only who filters waits for them
    from jadevectordb.model.filter_document import wire_form

    return wire_form(filter)


def with_filter(body: dict[str, Any], filter: FilterLike) -> dict[str, Any]:
    document = wire_filter(filter)
    if document is not None:
        body["filter"] = document
    return body


def limits_text(filter: FilterLike, threshold: float | None, max_distance: float | None) -> str:
    document = wire_filter(filter)
    text = "" if document is None else f"&filter={quote_plus(encoded(document))}"
    if threshold is not None:
        text += f"&threshold={number(threshold, 'threshold')}"
    if max_distance is not None:
        text += f"&max_distance={number(max_distance, 'max_distance')}"
    return text


def effort_text(exact: bool, nprobe: int | None, candidates: int | None, ef_search: int | None) -> str:
    text = "&exact=true" if exact else ""
    for name, value in (("nprobe", nprobe), ("candidates", candidates), ("ef_search", ef_search)):
        if value is not None:
            text += f"&{name}={integer(value, name)}"
    return text


def listed(vector: npt.ArrayLike, dimension: int, metric: str) -> list[float]:
    values: list[float] = np.frombuffer(query_of(vector, dimension, metric), "<f4").tolist()
    if not all(map(math.isfinite, values)):  # JSON has no word for these: they would arrive as null
        raise JadeError(ErrorCode.INVALID_VECTOR, "The query holds NaN or infinity, which cannot be compared.")
    return values


def given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def unusual(**options: tuple[Any, Any]) -> dict[str, Any]:
    """Options that differ from what the server takes without them."""
    return {name: value for name, (value, usual) in options.items() if value is not usual and value != usual}


def parts_of(include: Include) -> list[str]:
    parts = [include] if isinstance(include, str) else list(include)
    unknown = [part for part in parts if part not in _PARTS]
    if unknown:
        raise invalid(f"include names what to send along, of {', '.join(sorted(_PARTS))}; got {unknown[0]!r:.40}.")
    return parts


def names_of(ids: Iterable[str], is_write: bool = False) -> list[str]:
    """Ids as a list of strings; what else an id must be is the server's to say."""
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise invalid("ids must be a sequence of strings; a single id goes in a list.")
    names = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
    if set(map(type, names)) - {str}:
        bad = next(i for i, name in enumerate(names) if type(name) is not str)
        raise JadeError(
            ErrorCode.INVALID_ID if is_write else ErrorCode.INVALID_ARGUMENT,
            f"Id {names[bad]!r:.80} at position {bad} is a {type(names[bad]).__name__}: ids are strings, write str(id).",
            details={"position": bad},
        )
    if not "".join(names).isascii():
        _check_unicode(names)
    return names


def _check_unicode(names: list[str]) -> None:
    for place, name in enumerate(names):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise JadeError(
                ErrorCode.INVALID_ID,
                f"Id {name[:80]!r} at position {place} holds half of a surrogate pair, which is no character.",
                details={"position": place},
            ) from None


def encoded_metadata(metadata: MetadataLike, names: list[str]) -> list[msgspec.Raw]:
    """As JSON, one object an id: dates and numpy values become what JSON has, in the same way as in the embedded database."""
    from jadevectordb.model.schema_encode import encode_for_ids

    return [msgspec.Raw(row) for row in encode_for_ids(metadata, len(names))]


def versions_of(if_version: Versions, count: int) -> list[int | None]:
    wanted = [if_version] * count if isinstance(if_version, int | np.integer) else if_version
    if isinstance(wanted, str | bytes) or not isinstance(wanted, Iterable):
        raise _bad_versions()
    versions: list[int | None] = []
    for version in wanted:
        if version is not None and (isinstance(version, bool) or not isinstance(version, int | np.integer)):
            raise _bad_versions()
        versions.append(None if version is None else int(version))
    if len(versions) != count:
        raise invalid(f"{count} ids came with {len(versions)} expected versions: give one for all, or one an id.")
    return versions


def _bad_versions() -> JadeError:
    return invalid(
        "if_version is 0 (must not exist), a version, or None for no condition: one for all, or a list with one an id."
    )


def encoded(body: Mapping[str, Any]) -> bytes:
    try:
        return encode(body)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise invalid(f"An argument can't be sent: {error}.") from None


def listed_rows(vectors: npt.ArrayLike) -> list[Any]:
    """As lists of floats; what they must be is the server's to say."""
    try:
        rows: list[Any] = np.asarray(vectors, np.float32).tolist()
    except (TypeError, ValueError) as error:
        raise invalid(f"Vectors must be rows of numbers: {error}.") from None
    return rows


def integer(value: object, name: str) -> int:
    """Its bounds are the server's to say."""
    if type(value) is int:
        return value
    if isinstance(value, np.integer):
        return int(value)
    raise invalid(f"{name} must be an integer, got {value!r:.80}.")


def number(value: object, name: str) -> float:
    if type(value) is float or (
        isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    ):
        plain = float(value)
        if math.isfinite(plain):
            return plain
    raise invalid(f"{name} must be a finite number, got {value!r:.80}.")


def invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
