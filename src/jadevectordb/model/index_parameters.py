"""The parameters that can be set for an index by hand: their names, which kind has them, and what they may be.

Without any, an index is measured when it is built and finds its own settings for the recall that a search asks for; these
are for those who want the numbers of another system. Some shape the structure, and changing them builds it anew; others
(`SEARCH_PARAMETERS`) only say how far a search looks when it does not ask for a recall of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.limits import (
    HNSW_BREADTH_MAX,
    HNSW_LINKS_MAX,
    IVF_LISTS_MAX,
    LSH_BITS_MAX,
    LSH_TABLE_BITS_MAX,
    LSH_TABLES_MAX,
)

IndexParameters = dict[str, int]
SEARCH_PARAMETERS: Final = frozenset({"efSearch", "nprobe"})


class _Range(NamedTuple):
    low: int
    high: int


_RANGES: Final[dict[IndexKind, dict[str, _Range]]] = {
    IndexKind.AUTO: {},
    IndexKind.FLAT: {},
    IndexKind.HNSW: {
        "M": _Range(2, HNSW_LINKS_MAX),  # neighbours a node and level
        "efConstruction": _Range(4, HNSW_BREADTH_MAX),
        "efSearch": _Range(1, HNSW_BREADTH_MAX),
    },
    IndexKind.IVF: {
        "nlist": _Range(1, IVF_LISTS_MAX),  # lists of a segment; at most a quarter of its rows are made
        "nprobe": _Range(1, IVF_LISTS_MAX),
    },
    IndexKind.LSH: {  # all codes are scanned, so tables times bits is the length of a row's code, rounded up to 64
        "numTables": _Range(1, LSH_TABLES_MAX),
        "numBits": _Range(1, LSH_TABLE_BITS_MAX),
    },
}


def parse_index_parameters(kind: IndexKind, value: Mapping[str, Any] | None) -> IndexParameters:
    """What a caller gave for an index of this kind, checked. Raises INVALID_ARGUMENT."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise _invalid(f"index_parameters is a dict such as {{'M': 16}}, not {type(value).__name__}.")
    ranges = _RANGES[kind]
    for name, number in value.items():
        if name not in ranges:
            takes = f"it takes {', '.join(ranges)}" if ranges else "it takes none"
            raise _invalid(f"Unknown parameter {name!r} for an index of kind {kind}: {takes}.")
        low, high = ranges[name]
        if type(number) is not int or not low <= number <= high:
            raise _invalid(f"{name} must be an integer from {low} to {high}, got {number!r:.80}.")
    parameters = {name: value[name] for name in ranges if name in value}  # always in the same order
    if parameters.get("nprobe", 1) > parameters.get("nlist", IVF_LISTS_MAX):
        raise _invalid(f"nprobe ({parameters['nprobe']}) is more than nlist ({parameters['nlist']}).")
    if parameters.get("numTables", 1) * parameters.get("numBits", 1) > LSH_BITS_MAX:
        raise _invalid(f"numTables times numBits must be at most {LSH_BITS_MAX}.")
    return parameters


def building(parameters: IndexParameters) -> IndexParameters:
    """Those that shape the structure."""
    return {name: value for name, value in parameters.items() if name not in SEARCH_PARAMETERS}


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
