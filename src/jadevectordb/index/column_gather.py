"""From a stream of JSON objects to values by path: the first half of building columns.

Rows come in blocks. A block is decoded at once and taken apart column by column: all values of one key, then their types, then each type
in a few calls that run in C; that is several times faster than walking each object. Objects inside objects are blocks again.
Where keys contain dots, the rule of `filter_eval.resolve` (the longest key that fits) decides what a path means; such rows, when they
also nest, are taken apart one by one with that very function.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from jadevectordb.index.bitmap import Bitmap, size_bytes
from jadevectordb.index.column_runs import Terms
from jadevectordb.model import limits
from jadevectordb.model.filter_eval import resolve
from jadevectordb.model.schema import Schema

Rows = npt.NDArray[np.uint32]

_MISSING: Final = object()
_DENSE_KEYS: Final = 32  # up to this many keys a block is read key by key, however few rows have each
_FLOAT_EXACT: Final = 1 << 53  # integers up to this are float64 exactly
_CUT_MARK: Final = (
    b"\xff"  # ends a cut string: no UTF-8 has this byte, so it equals nothing and stands after every way to go on
)
_decode: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode


class RowSet:
    """A growing set of rows, as bits."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, rows: Rows) -> None:
        """rows: not empty, in any order; cheap when they lie close together."""
        start = int(rows.min()) & ~7
        mask = np.zeros(int(rows.max()) + 1 - start, np.bool_)
        mask[rows - np.uint32(start)] = True
        packed = np.packbits(mask, bitorder="little")
        at = start // 8
        if len(self._bits) < at + len(packed):
            self._bits.extend(bytes(at + len(packed) - len(self._bits)))
        np.bitwise_or(packed, np.frombuffer(self._bits, np.uint8, len(packed), at), out=packed)
        self._bits[at : at + len(packed)] = packed.tobytes()

    def __bool__(self) -> bool:
        return bool(self._bits)

    def bits(self, row_count: int) -> Bitmap:
        size = size_bytes(row_count)
        data = self._bits[:size]
        return np.frombuffer(bytes(data) + bytes(size - len(data)), np.uint8)


class Gathered:
    """All values of one path so far. Lists grow by one array a block."""

    def __init__(self, is_text: bool) -> None:
        self.is_text = is_text  # declared for full text: its strings are not indexed
        self.present = RowSet()
        self.null = RowSet()
        self.true = RowSet()
        self.false = RowSet()
        self.arrays = RowSet()
        self.loose = RowSet()  # rows with a value that is not inside an array
        self.long_strings = RowSet()
        self.unsure_numbers = RowSet()
        self.unsure_strings = RowSet()
        self.integers: list[tuple[npt.NDArray[np.int64], Rows]] = []
        self.floats: list[tuple[npt.NDArray[np.float64], Rows]] = []
        self.strings = Terms()  # a cut string is kept as bytes with its mark

    def add_strings(self, values: list[str], rows: Rows) -> None:
        if self.is_text:
            self.unsure_strings.add(rows)
            return
        keys: list[str] | list[str | bytes] = values
        longest = max(map(len, values))
        bound = limits.COLUMN_STRING_BYTES_MAX
        if longest * 4 > bound and not (longest <= bound and "".join(values).isascii()):
            keys = list(map(_cut, values))
            cut = np.fromiter((type(key) is bytes for key in keys), np.bool_, len(keys))
            if cut.any():
                self.long_strings.add(rows[cut])
        self.strings.add(keys, rows)

    def add_integers(self, values: list[int], rows: Rows) -> None:
        try:
            self.integers.append((np.array(values, np.int64), rows))
        except OverflowError:
            fits = np.fromiter((-(1 << 63) <= value < 1 << 63 for value in values), np.bool_, len(values))
            self.unsure_numbers.add(rows[~fits])
            if fits.any():
                kept = [value for value, keep in zip(values, fits, strict=True) if keep]
                self.integers.append((np.array(kept, np.int64), rows[fits]))

    def all_numbers(self) -> tuple[npt.NDArray[np.int64] | npt.NDArray[np.float64], Rows]:
        """Values and their rows: int64 when all are integers, else float64 without the integers that it cannot hold (`unsure_numbers`)."""
        if not self.floats:
            if not self.integers:
                return np.empty(0, np.int64), np.empty(0, np.uint32)
            return np.concatenate([v for v, _ in self.integers]), np.concatenate([r for _, r in self.integers])
        values = [value for value, _ in self.floats]
        rows = [row for _, row in self.floats]
        for integers, where in self.integers:
            exact = (integers >= -_FLOAT_EXACT) & (integers <= _FLOAT_EXACT)
            if not exact.all():
                self.unsure_numbers.add(where[~exact])
            values.append(integers[exact].astype(np.float64))
            rows.append(where[exact])
        return np.concatenate(values), np.concatenate(rows)


def cut_term(encoded: bytes) -> bytes:
    """The start of a long string, at a character's end, with the mark of a cut."""
    end = limits.COLUMN_LONG_TERM_BYTES
    while encoded[end] & 0xC0 == 0x80:  # inside a character
        end -= 1
    return encoded[:end] + _CUT_MARK


def is_cut(term: bytes) -> bool:
    return term.endswith(_CUT_MARK)


def _cut(value: str) -> str | bytes:
    if len(value) * 4 <= limits.COLUMN_STRING_BYTES_MAX:
        return value
    encoded = value.encode()
    return value if len(encoded) <= limits.COLUMN_STRING_BYTES_MAX else cut_term(encoded)


class Gatherer:
    """Takes JSON objects in row order and gathers their values by path."""

    def __init__(self, schema: Schema, folder: Path | None = None) -> None:
        """folder: where strings go that are too many for memory; None when there are only few rows."""
        self.row_count = 0
        self._folder = folder
        self.overflow = RowSet()
        self._texts = frozenset(schema.texts)
        self.paths: dict[str, Gathered] = {
            path: Gathered(path in self._texts) for path in list(schema.fields)[: limits.COLUMNS_MAX]
        }
        self._found: list[tuple[str, Rows, list[Any]]] = []
        self._found_dots = False
        self._found_nesting = False

    def add_block(self, metadata: Sequence[bytes]) -> None:
        documents = _decode(b"[" + b",".join(metadata) + b"]")
        assert len(documents) == len(metadata)
        rows = np.arange(self.row_count, self.row_count + len(documents), dtype=np.uint32)
        self.row_count += len(documents)
        self._find(documents, rows)
        if self._found_dots and self._found_nesting:
            dotted = np.fromiter(map(_nests_with_dots, documents), np.bool_, len(documents))
            if dotted.any():
                plain = [document for document, is_dotted in zip(documents, dotted, strict=True) if not is_dotted]
                self._find(plain, rows[~dotted])
                self._find_one_by_one([documents[i] for i in np.flatnonzero(dotted)], rows[dotted])
        for path, where, values in self._found:
            self._keep(path, where, values)
        self._found = []
        if self._folder is not None:
            self._make_room(self._folder)

    def _make_room(self, folder: Path) -> None:
        columns = [column.strings for column in self.paths.values()]
        if sum(terms.memory_bytes for terms in columns) > limits.COLUMN_BUILD_TERM_BYTES_MAX:
            max(columns, key=lambda terms: terms.memory_bytes).spill(folder)

    def _find(self, documents: list[dict[str, Any]], rows: Rows) -> None:
        self._found = []
        self._found_dots = self._found_nesting = False
        if documents:
            self._find_below("", documents, rows)

    def _find_below(self, prefix: str, documents: list[dict[str, Any]], rows: Rows) -> None:
        """Collect the values of every path below a block of objects."""
        for key, where, values in _by_key(documents, rows):
            path = prefix + key
            self._found_dots |= "." in key
            if path.count(".") >= limits.FIELD_PATH_DEPTH_MAX:
                continue  # no filter can name it
            self._found.append((path, where, values))
            types = set(map(type, values))
            if dict in types:
                self._found_nesting = True
                inner = [i for i, value in enumerate(values) if type(value) is dict]
                self._find_below(path + ".", [values[i] for i in inner], where[inner])
            if list in types:
                pairs = [
                    (i, e) for i, value in enumerate(values) if type(value) is list for e in value if type(e) is dict
                ]
                if pairs:
                    self._found_nesting = True
                    self._find_below(path + ".", [e for _, e in pairs], where[[i for i, _ in pairs]])

    def _find_one_by_one(self, documents: list[dict[str, Any]], rows: Rows) -> None:
        for document, row in zip(documents, rows, strict=True):
            for path in _paths(document):
                found = resolve(document, path) if path.count(".") < limits.FIELD_PATH_DEPTH_MAX else []
                if found:
                    self._found.append((path, np.full(len(found), row, np.uint32), found))

    def _keep(self, path: str, rows: Rows, values: list[Any]) -> None:
        column = self.paths.get(path)
        if column is None:
            if len(self.paths) >= limits.COLUMNS_MAX or len(path) > limits.FIELD_PATH_LENGTH_MAX:
                self.overflow.add(rows)
                return
            column = self.paths[path] = Gathered(path in self._texts)
        column.present.add(rows)
        types = set(map(type, values))
        if list in types:
            inside = [(i, e) for i, value in enumerate(values) if type(value) is list for e in value]
            lists = [i for i, value in enumerate(values) if type(value) is list]
            column.arrays.add(rows[lists])
            if inside:
                elements = [e for _, e in inside]
                _keep_scalars(column, elements, rows[[i for i, _ in inside]], set(map(type, elements)))
            loose = [i for i, value in enumerate(values) if type(value) is not list]
            if loose:
                column.loose.add(rows[loose])
        else:
            column.loose.add(rows)
        _keep_scalars(column, values, rows, types)


def _keep_scalars(column: Gathered, values: list[Any], rows: Rows, types: set[type]) -> None:
    """File the values by type; objects and arrays among them are nothing to compare with."""
    for kind in sorted(types, key=lambda one: one.__name__):
        if kind is dict or kind is list:
            continue
        if len(types) == 1:
            chosen, where = values, rows
        else:
            at = [i for i, value in enumerate(values) if type(value) is kind]
            chosen, where = [values[i] for i in at], rows[at]
        if kind is str:
            column.add_strings(chosen, where)
        elif kind is int:
            column.add_integers(chosen, where)
        elif kind is float:
            column.floats.append((np.array(chosen, np.float64), where))
        elif kind is bool:
            truth = np.array(chosen, np.bool_)
            if truth.any():
                column.true.add(where[truth])
            if not truth.all():
                column.false.add(where[~truth])
        else:
            assert kind is type(None)
            column.null.add(where)


def _by_key(documents: list[dict[str, Any]], rows: Rows) -> Iterable[tuple[str, Rows, list[Any]]]:
    """For each key of a block of objects, the rows that have it and their values."""
    keys = dict.fromkeys(chain.from_iterable(documents))
    if len(keys) > _DENSE_KEYS and sum(map(len, documents)) * 4 < len(keys) * len(documents):
        # Many keys, each in few rows: one pass over what is there, instead of asking every row for every key.
        there: dict[str, tuple[list[int], list[Any]]] = {key: ([], []) for key in keys}
        for i, document in enumerate(documents):
            for key, value in document.items():
                at, values = there[key]
                at.append(i)
                values.append(value)
        for key, (at, values) in there.items():
            yield key, rows[at], values
        return
    for key in keys:
        try:
            yield key, rows, list(map(itemgetter(key), documents))
        except KeyError:
            values = [document.get(key, _MISSING) for document in documents]
            at = [i for i, value in enumerate(values) if value is not _MISSING]
            yield key, rows[at], [values[i] for i in at]


def _nests_with_dots(document: dict[str, Any]) -> bool:
    """Whether the object has both objects inside and, anywhere, a key with a dot."""
    dots = nesting = False
    pending: list[dict[str, Any]] = [document]
    while pending:
        for key, value in pending.pop().items():
            dots |= "." in key
            inner = (
                [value] if type(value) is dict else [e for e in value if type(e) is dict] if type(value) is list else []
            )
            nesting |= bool(inner)
            pending.extend(inner)
    return dots and nesting


def _paths(document: dict[str, Any]) -> dict[str, None]:
    """Every path by which something in the object might be named, in order."""
    found: dict[str, None] = {}
    pending: list[tuple[str, Any]] = list(document.items())
    while pending:
        path, value = pending.pop(0)
        found[path] = None
        for inner in value if type(value) is list else [value]:
            if type(inner) is dict:
                pending.extend((f"{path}.{key}", below) for key, below in inner.items())
    return found
