"""Which strings of a column are decimal numbers, found out when a filter first asks.

Only filters of version 1 of the REST interface ask (`LooseIn`, `LooseOrder`), so nothing is prepared for them on disk. The first one goes
once through the distinct strings that begin and end like a number; what it finds is kept at 12 bytes a numeric string.
Values are kept as the nearest float64. Rounding never changes an order, it can only make two numbers equal: so everything beyond the float
next to a bound is decided by it, and the few strings exactly there are read again and compared exactly.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Iterator
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from jadevectordb.index.column_gather import is_cut
from jadevectordb.index.postings import KeyArray
from jadevectordb.model.filter_nodes import Order
from jadevectordb.model.numeric_text import numeric_value

_COMPARISONS: Final[dict[Order, Callable[[Any, Any], bool]]] = {
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
}
_SPACES: Final = frozenset((*range(0x09, 0x0E), *range(0x1C, 0x21)))
_DIGITS: Final = frozenset(b"0123456789")
_WIDE_SPACES: Final = frozenset(b"\xc2\xe1\xe2\xe3")  # first bytes of the white space that has several
_FIRST: Final = np.isin(np.arange(256), list(_DIGITS | set(b"+-.") | _SPACES | _WIDE_SPACES))
_LAST: Final = np.isin(np.arange(256), list(_DIGITS | set(b".\xff") | _SPACES | set(range(0x80, 0xC0))))
_NUMBER_CHARACTERS: Final = "+-.eE0123456789"


class Terms(Protocol):
    """Distinct strings of a column in UTF-8, ascending; a cut one ends in its mark."""

    def __getitem__(self, term: int) -> bytes: ...
    def of_keys(self, keys: KeyArray) -> Iterator[bytes]: ...
    def first_and_last_bytes(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]: ...


class NumericTexts:
    """The keys of the strings that are decimal numbers, by value. doubtful: keys of cut strings that may be one in full, ascending."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        first, last = terms.first_and_last_bytes()
        values: list[float] = []
        keys: list[int] = []
        doubtful: list[int] = []
        candidates = np.flatnonzero(_FIRST[first] & _LAST[last])
        for key, term in zip(candidates.tolist(), terms.of_keys(candidates), strict=True):
            if is_cut(term):
                if _may_go_on(term[:-1].decode()):
                    doubtful.append(key)
            elif (value := numeric_value(term.decode())) is not None:
                values.append(_nearest(value))
                keys.append(key)
        order = np.argsort(np.array(values, np.float64), kind="stable")
        self._values = np.array(values, np.float64)[order]
        self._keys = np.array(keys, np.uint32)[order]
        self.doubtful: KeyArray = np.array(doubtful, np.int64)

    @property
    def memory_bytes(self) -> int:
        return self._values.nbytes + self._keys.nbytes + self.doubtful.nbytes

    def equal_to(self, numbers: Collection[int | float]) -> KeyArray:
        """Keys of strings that are one of the numbers, ascending."""
        near = np.unique(np.array([_nearest(number) for number in numbers], np.float64))
        bounds = zip(np.searchsorted(self._values, near), np.searchsorted(self._values, near, "right"), strict=True)
        found = [key for low, high in bounds if low < high for key in self._keys[low:high].tolist()]
        return np.array(sorted(key for key in found if self._exact(key) in numbers), np.int64)

    def in_order(self, op: Order, number: int | float) -> KeyArray:
        """Keys of strings that are numbers in this order with the one given, ascending."""
        near = _nearest(number)
        low, high = (int(np.searchsorted(self._values, near, side)) for side in ("left", "right"))
        compare = _COMPARISONS[op]
        ties = [key for key in self._keys[low:high].tolist() if compare(self._exact(key), number)]
        beyond = self._keys[high:] if op in ("gt", "ge") else self._keys[:low]
        return np.sort(np.concatenate([beyond.astype(np.int64), np.array(ties, np.int64)]))

    def among(self, low: int, high: int) -> KeyArray:
        """Those of the keys low..high-1 that are numbers, in any order."""
        return self._keys[(self._keys >= low) & (self._keys < high)].astype(np.int64)

    def _exact(self, key: int) -> int | float:
        value = numeric_value(self._terms[key].decode())
        assert value is not None
        return value


def _nearest(number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")


def _may_go_on(start: str) -> bool:
    """Whether a string of a number's characters and white space begins like this."""
    return not start.strip().strip(_NUMBER_CHARACTERS)
