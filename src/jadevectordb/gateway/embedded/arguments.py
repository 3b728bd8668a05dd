"""What a caller may write for an id, a number, a recall: checked here, so that every method refuses alike and says what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from jadevectordb.index.api import SearchOverrides
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import K_MAX
from jadevectordb.query.plan import SearchRequest
from jadevectordb.query.write_checks import invalid, is_unicode
from jadevectordb.segment.records import hash_ids


def names_of(ids: str | Iterable[str]) -> list[str]:
    """Ids to look up: any strings, whether such a vector can exist or not."""
    names = [ids] if isinstance(ids, str) else list(ids) if isinstance(ids, Iterable) else None
    if names is None or isinstance(ids, bytes) or not all(isinstance(name, str) for name in names):
        raise invalid(f"ids must be a string or a sequence of strings, got {ids!r:.80}.")
    for place, name in enumerate(names):
        if not is_unicode(name):
            raise JadeError(
                ErrorCode.INVALID_ID,
                f"Id {name[:80]!r} at position {place} holds half of a surrogate pair, which is no character.",
                details={"position": place},
            )
    return names


def count_of(value: int, name: str) -> int:
    """k, or the length of a page."""
    if type(value) is not int:
        if not isinstance(value, np.integer):
            raise invalid(f"{name} must be an integer from 1 to {K_MAX}, got {value!r:.80}.")
        value = int(value)
    if not 1 <= value <= K_MAX:
        raise invalid(f"{name} must be an integer from 1 to {K_MAX}, got {value!r}.")
    return value


def recall_of(value: float) -> float:
    if type(value) is not float:
        value = number_of(value, "recall")
    if not 0.0 < value <= 1.0:
        raise invalid(f"recall is the share of true neighbours to find, above 0 and at most 1, got {value}.")
    return value


def number_of(value: float, name: str) -> float:
    try:
        number = float(value) if isinstance(value, int | float | np.integer | np.floating) else math.nan
    except OverflowError:  # an integer that no float can hold
        number = math.nan
    if isinstance(value, bool) or math.isnan(number):
        raise invalid(f"{name} must be a number, got {value!r:.80}.")
    return number


def timeout_of(value: float | None) -> float | None:
    return None if value is None else number_of(value, "timeout")


def loosened(similarity: float) -> float:
    """A little below, by more than rounding can move it."""
    return similarity - 1e-6 * abs(similarity) - 1e-15 if math.isfinite(similarity) else similarity


def overrides_of(exact: bool, nprobe: int | None, candidates: int | None, ef_search: int | None) -> SearchOverrides:
    for name, value in (("nprobe", nprobe), ("candidates", candidates), ("ef_search", ef_search)):
        if value is not None and (type(value) is not int or value < 1):
            raise invalid(f"{name} must be a positive integer, got {value!r}.")
    return SearchOverrides(nprobe=nprobe, candidates=candidates, ef_search=ef_search, exact=exact)


def place_of(cursor: str | None) -> tuple[int, str] | None:
    if cursor is None:
        return None
    if not isinstance(cursor, str) or not is_unicode(cursor):
        raise invalid("cursor must be what the page before gave.")
    return int(hash_ids([cursor])[0]), cursor


def group_into(request: SearchRequest, group_by: str, group_size: int) -> None:
    if request.k is None:
        raise invalid("group_by needs k, the number of groups.")
    if not isinstance(group_by, str) or not group_by:
        raise invalid(f"group_by names a metadata field, or a path such as 'author.name'; got {group_by!r:.80}.")
    request.group_by, request.group_size = group_by, count_of(group_size, "group_size")
