"""One path's column as a filter sees it: from values to keys, from keys to parts of an answer.

Everything here is read from mapped arrays when it is first needed. Bounds are found by binary search with Python's own comparisons, which
are exact between integers and floats of any size, where numpy would round.
"""

from __future__ import annotations

import mmap
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import cached_property
from itertools import pairwise, product
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from jadevectordb.index.column_file import ArrayReader, ColumnRef, NumbersRef, RowSetRef, StringsRef
from jadevectordb.index.column_gather import cut_term, is_cut
from jadevectordb.index.column_numeric import NumericTexts
from jadevectordb.index.column_parts import KeyRange, KeySet, Part
from jadevectordb.index.postings import KeyArray, Postings
from jadevectordb.index.selection import Selection
from jadevectordb.model import limits
from jadevectordb.model.filter_nodes import Order

_SAMPLE_STEP: Final = 256  # every so many terms one is kept in memory, so that a search for a term touches few pages


class Interval(NamedTuple):
    """Values from low to high; None is an open end."""

    low: Any = None
    high: Any = None
    low_included: bool = False
    high_included: bool = False

    def map(self, change: Callable[[Any], Any]) -> Interval:
        """The same interval of changed bounds; open ends stay open."""
        low = None if self.low is None else change(self.low)
        high = None if self.high is None else change(self.high)
        return Interval(low, high, self.low_included, self.high_included)


class Column:
    """The column of one path in a block of `row_count` rows."""

    def __init__(self, ref: ColumnRef, row_count: int, reader: ArrayReader) -> None:
        self.row_count = row_count
        self._ref = ref
        self._reader = reader

    @cached_property
    def present(self) -> Selection:
        return self._rows(self._ref.present)

    @cached_property
    def null(self) -> Selection:
        return self._rows(self._ref.null)

    @cached_property
    def true(self) -> Selection:
        return self._rows(self._ref.true)

    @cached_property
    def false(self) -> Selection:
        return self._rows(self._ref.false)

    @cached_property
    def arrays(self) -> Selection:
        return self._rows(self._ref.arrays)

    @cached_property
    def mixed(self) -> Selection:
        return self._rows(self._ref.mixed)

    @cached_property
    def long_strings(self) -> Selection:
        return self._rows(self._ref.long_strings)

    @cached_property
    def unsure_numbers(self) -> Selection:
        return self._rows(self._ref.unsure_numbers)

    @cached_property
    def unsure_strings(self) -> Selection:
        return self._rows(self._ref.unsure_strings)

    @cached_property
    def numbers(self) -> Numbers | None:
        return None if self._ref.numbers is None else Numbers(self._ref.numbers, self.row_count, self._reader)

    @cached_property
    def strings(self) -> Strings | None:
        return None if self._ref.strings is None else Strings(self._ref.strings, self.row_count, self._reader)

    def _rows(self, ref: RowSetRef) -> Selection:
        return read_rows(ref, self.row_count, self._reader)


def read_rows(ref: RowSetRef, row_count: int, reader: ArrayReader) -> Selection:
    if ref.rows is not None:
        return Selection.of_rows(reader.get(ref.rows), row_count)
    if ref.bits is not None:
        return Selection.of_bits(reader.get(ref.bits), row_count, ref.count)
    return Selection.everything(row_count) if ref.count else Selection.nothing(row_count)


class Numbers:
    """Distinct numbers, ascending, and the rows of each."""

    def __init__(self, ref: NumbersRef, row_count: int, reader: ArrayReader) -> None:
        self._values = reader.get(ref.values)
        self.postings = Postings(ref.postings, row_count, reader)

    def between(self, interval: Interval) -> KeyRange:
        """Rows with a number in the interval."""
        return KeyRange(self.postings, *_key_range(self._values, interval))

    def equal_to(self, values: Iterable[int | float]) -> KeySet:
        """Rows with one of the numbers."""
        integral = self._values.dtype.kind == "i"
        exact = [as_held for value in values if (as_held := _as_held(value, integral)) is not None]
        wanted = np.unique(np.array(exact, self._values.dtype))
        at = np.searchsorted(self._values, wanted)
        at = at[self._values[np.minimum(at, len(self._values) - 1)] == wanted] if len(wanted) else at
        return KeySet(self.postings, at.astype(np.int64))


def _as_held(value: int | float, integral: bool) -> int | float | None:
    """The value in the column's type, or None when that type has no equal."""
    if integral:
        if value != (whole := int(value)) or not -(1 << 63) <= whole < 1 << 63:
            return None
        return whole
    try:
        held = float(value)
    except OverflowError:
        return None
    return held if held == value else None


class Strings:
    """Distinct strings in UTF-8, ascending, the rows of each, and the instants of those that are dates."""

    def __init__(self, ref: StringsRef, row_count: int, reader: ArrayReader) -> None:
        self._buffer = reader.buffer
        reader.get(ref.blob)  # compared with its checksum once
        self._start = ref.blob.offset
        self._offsets = reader.get(ref.offsets)
        self._ref = ref
        self._reader = reader
        self.postings = Postings(ref.postings, row_count, reader)
        self._sample: list[bytes] | None = None

    def __len__(self) -> int:
        return self.postings.key_count

    def __getitem__(self, term: int) -> bytes:
        low, high = self._offsets[term : term + 2].tolist()
        return self._buffer[self._start + low : self._start + high]

    def of_keys(self, keys: KeyArray) -> Iterator[bytes]:
        """The strings of many keys, in their order."""
        for low, high in zip(self._offsets[keys].tolist(), self._offsets[keys + 1].tolist(), strict=True):
            yield self._buffer[self._start + low : self._start + high]

    @property
    def memory_bytes(self) -> int:
        numeric = self.numeric.memory_bytes if "numeric" in self.__dict__ else 0
        return numeric + (0 if self._sample is None else len(self._sample) * 80)

    @cached_property
    def numeric(self) -> NumericTexts:
        """Those of the strings that are decimal numbers."""
        return NumericTexts(self)

    def equal_to(self, values: Iterable[str]) -> tuple[Part, list[Selection]]:
        """Rows with one of the strings, and rows that may have one in full beyond where they were cut."""
        encoded = [value.encode() for value in values]
        unsure = [self._cut_rows(value) for value in encoded if len(value) > limits.COLUMN_STRING_BYTES_MAX]
        keys = self._keys_of(encoded)
        if len(keys) == 1:
            return KeyRange(self.postings, keys[0], keys[0] + 1), unsure
        return KeySet(self.postings, np.array(sorted(keys), np.int64)), unsure

    def between(self, interval: Interval) -> tuple[Part, list[Selection]]:
        bounds = interval.map(str.encode)
        first, last = 0, len(self)
        if bounds.low is not None:
            first = self._first_from(bounds.low)
            if not bounds.low_included and first < len(self) and self[first] == bounds.low:
                first += 1
        if bounds.high is not None:
            last = self._first_from(bounds.high)
            if bounds.high_included and last < len(self) and self[last] == bounds.high:
                last += 1
        unsure = [self._cut_rows(bound) for bound in (bounds.low, bounds.high) if bound is not None]
        return KeyRange(self.postings, first, last), unsure

    def starting_with(self, prefix: str) -> tuple[Part, list[Selection]]:
        start = prefix.encode()
        # The bytes after every string with the prefix: UTF-8 has no byte 255, so the last one can always be raised.
        stop = start[:-1] + bytes([start[-1] + 1]) if start else None
        high = len(self) if stop is None else self._first_from(stop)
        return KeyRange(self.postings, self._first_from(start), high), [self._cut_rows(start)]

    def containing(self, text: str) -> KeySet:
        """Rows with a string that holds the text; cut strings count for what is left of them."""
        return KeySet(self.postings, np.fromiter(self._terms_containing(text.encode()), np.int64))

    def passing(self, program: Any) -> KeySet:
        """Rows with a string in which a regular expression is found; cut strings are left out."""
        found = [key for key, term in enumerate(self._terms()) if not is_cut(term) and program.search(term) is not None]
        return KeySet(self.postings, np.array(found, np.int64))

    def instants_between(self, interval: Interval) -> Part:
        if self._ref.instants is None:
            return KeyRange(self.postings, 0, 0)
        return self._of_instants(*_key_range(self._reader.get(self._ref.instants), interval))

    def instants_equal_to(self, instants: Iterable[int]) -> Part:
        if self._ref.instants is None:
            return KeyRange(self.postings, 0, 0)
        held = self._reader.get(self._ref.instants)
        fits = [instant for instant in instants if -(1 << 63) <= instant < 1 << 63]
        wanted = np.unique(np.array(fits, np.int64))
        at = [
            np.arange(*pair)
            for pair in zip(np.searchsorted(held, wanted), np.searchsorted(held, wanted, "right"), strict=True)
        ]
        assert self._ref.instant_terms is not None
        terms = self._reader.get(self._ref.instant_terms)
        keys = terms[np.concatenate(at)] if at else np.empty(0, np.uint32)
        return KeySet(self.postings, np.sort(keys).astype(np.int64))

    def saying(self, truth: bool) -> KeySet:
        """Rows with the string `true`, or `false`, in any case."""
        return KeySet(self.postings, self._truths[truth])

    @cached_property
    def _truths(self) -> dict[bool, KeyArray]:
        return {truth: np.array(sorted(self._keys_of(_spellings(truth))), np.int64) for truth in (True, False)}

    def _keys_of(self, terms: Iterable[bytes]) -> list[int]:
        return [key for term in terms if (key := self._find(term)) is not None]

    def numerically_equal_to(self, numbers: Collection[int | float]) -> tuple[KeySet, list[Selection]]:
        """Rows with a string that is one of the numbers, and rows with a cut string that may be."""
        return KeySet(self.postings, self.numeric.equal_to(numbers)), self._doubtful_rows()

    def numerically_in_order(self, op: Order, number: int | float) -> tuple[KeySet, list[Selection]]:
        """Rows with a string that is a number in this order with the one given, and rows with a cut string that may be."""
        return KeySet(self.postings, self.numeric.in_order(op, number)), self._doubtful_rows()

    def plainly_between(self, interval: Interval) -> tuple[Part, list[Selection]]:
        """Like `between`, of strings that are not numbers."""
        part, unsure = self.between(interval)
        assert isinstance(part, KeyRange)
        numeric = self.numeric.among(part.low, part.high)
        if len(numeric):
            plain = np.ones(part.high - part.low, np.bool_)
            plain[numeric - part.low] = False
            part = KeySet(self.postings, np.flatnonzero(plain) + part.low)
        return part, [*unsure, *self._doubtful_rows()]

    def _doubtful_rows(self) -> list[Selection]:
        doubtful = self.numeric.doubtful
        return [self.postings.select_keys(doubtful)] if len(doubtful) else []

    def _of_instants(self, first: int, last: int) -> Part:
        if first >= last:
            return KeyRange(self.postings, 0, 0)
        assert self._ref.instant_terms is not None
        terms = self._reader.get(self._ref.instant_terms)
        if self._dates_in_order:  # all dates written alike: an interval of time is an interval of strings
            return KeyRange(self.postings, int(terms[first]), int(terms[last - 1]) + 1)
        return KeySet(self.postings, np.sort(terms[first:last]).astype(np.int64))

    @cached_property
    def _dates_in_order(self) -> bool:
        assert self._ref.instant_terms is not None
        return bool((np.diff(self._reader.get(self._ref.instant_terms).astype(np.int64)) == 1).all())

    def _find(self, term: bytes) -> int | None:
        key = self._first_from(term)
        return key if key < len(self) and self[key] == term else None

    def _first_from(self, term: bytes) -> int:
        """The first key whose string is not below the term."""
        if self._sample is None:
            self._sample = [self[key] for key in range(0, len(self), _SAMPLE_STEP)]
        block = bisect_left(self._sample, term)
        return bisect_left(self, term, max(block - 1, 0) * _SAMPLE_STEP, min(block * _SAMPLE_STEP, len(self)))

    def _cut_rows(self, bound: bytes) -> Selection:
        """Rows with a string that was cut where the bound goes on, so that its column cannot say how the two compare."""
        key = self._find(cut_term(bound)) if len(bound) > limits.COLUMN_LONG_TERM_BYTES else None
        if key is None:
            return Selection.nothing(self.postings.row_count)
        return self.postings.select(key, key + 1)

    def first_and_last_bytes(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Of every term; 0 for the empty string."""
        blob = self._reader.get(self._ref.blob)
        filled = np.diff(self._offsets) > 0
        ends = np.zeros((2, len(self)), np.uint8)
        ends[0, filled] = blob[self._offsets[:-1][filled]]
        ends[1, filled] = blob[self._offsets[1:][filled] - 1]
        return ends[0], ends[1]

    def _terms(self) -> Iterator[bytes]:
        """All terms in order."""
        offsets = self._offsets.tolist()
        for low, high in pairwise(offsets):
            yield self._buffer[self._start + low : self._start + high]

    def _terms_containing(self, text: bytes) -> Iterator[int]:
        if not text:
            yield from range(len(self))
            return
        buffer: mmap.mmap | bytes = self._buffer
        end = self._start + int(self._offsets[-1])
        at = buffer.find(text, self._start, end)
        while at >= 0:
            key = int(np.searchsorted(self._offsets, at - self._start, "right")) - 1
            term_end = self._start + int(self._offsets[key + 1])
            if at + len(text) <= term_end:
                yield key
                at = buffer.find(text, term_end, end)
            else:  # it runs from one string into the next
                at = buffer.find(text, at + 1, end)


def _key_range(values: npt.NDArray[Any], interval: Interval) -> tuple[int, int]:
    """The keys whose values lie in the interval: first, and one behind the last."""
    first, last = 0, len(values)
    if interval.low is not None:
        first = (bisect_left if interval.low_included else bisect_right)(values, interval.low, key=_plain)
    if interval.high is not None:
        last = (bisect_right if interval.high_included else bisect_left)(values, interval.high, key=_plain)
    return first, last


def _spellings(truth: bool) -> list[bytes]:
    letters = "true" if truth else "false"
    return ["".join(chosen).encode() for chosen in product(*((letter, letter.upper()) for letter in letters))]


def _plain(value: np.generic) -> Any:
    return value.item()
