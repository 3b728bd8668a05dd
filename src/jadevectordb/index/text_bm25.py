"""BM25 over postings, exact for a whole database however its rows are spread over segments and shards.

A score needs two things no block of rows knows alone: in how many rows a term occurs, and how long the average text is. So a
query runs in two steps. `stats` counts both for one block; the counts are added over all blocks; `search` scores with the sum.
A row's score is computed from the sum, its own term frequencies and its own length, with the same operations in the same
order wherever the row lies, so splitting or merging segments does not change one bit of it.

Score of a row for a query (Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework: BM25 and Beyond"), over fields
f with a boost each and distinct query terms t occurring q times in the query:

    sum over f, t of  boost_f * q * ln(1 + (N_f - df + 0.5) / (df + 0.5)) * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / average_f))

N_f: rows with at least one term in f; df: those of them with t; average_f: their mean length in terms. The 1 inside the
logarithm keeps very frequent terms from counting against a row. Deleted rows are in none of these numbers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import xxhash

from jadevectordb.index import bitmap
from jadevectordb.index.bitmap import Bitmap, RowArray
from jadevectordb.model.errors import ErrorCode, JadeError

K1 = 1.2  # how soon more occurrences of a term stop mattering
B = 0.75  # how much long texts are held back: 0 not at all, 1 fully

BOOST_MAX = 1000.0  # and its inverse: within it no score of float32 can vanish or overflow

Frequencies: TypeAlias = npt.NDArray[Any]  # uint8, uint16 or uint32
Scores: TypeAlias = npt.NDArray[np.float32]
_Weights: TypeAlias = npt.NDArray[np.float64]

_FEW = 16  # a set this many times smaller than a posting is looked up in it, instead of testing each row of the posting
_BLOCK = 64  # scores
_DENSE = 8  # postings longer together than 1/8 of the rows are summed in an array over all rows


@dataclass(frozen=True, slots=True)
class TermStats:
    """What one block, or the sum of many, knows about the terms of a query. Plain integers: they add exactly and travel well."""

    terms: tuple[str, ...]  # distinct, ascending
    document_frequency: tuple[tuple[int, ...], ...]  # [field][term]: live rows with the term in the field
    document_count: tuple[int, ...]  # [field]: live rows with any term in the field
    total_length: tuple[int, ...]  # [field]: terms of all live rows in the field

    @classmethod
    def of_nothing(cls, terms: Sequence[str], fields: int) -> TermStats:
        """What no rows at all add. terms: repeats allowed."""
        distinct, none = tuple(sorted(set(terms))), (0,) * fields
        return cls(distinct, ((0,) * len(distinct),) * fields, none, none)

    def __add__(self, other: TermStats) -> TermStats:
        assert self.terms == other.terms, "statistics of different queries"
        assert len(self.document_count) == len(other.document_count), "statistics of different fields"
        return TermStats(
            self.terms,
            tuple(
                tuple(a + b for a, b in zip(mine, theirs, strict=True))
                for mine, theirs in zip(self.document_frequency, other.document_frequency, strict=True)
            ),
            tuple(a + b for a, b in zip(self.document_count, other.document_count, strict=True)),
            tuple(a + b for a, b in zip(self.total_length, other.total_length, strict=True)),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Posting:
    """Where one term occurs in one field. rows: uint32 (m,) ascending; frequencies: (m,), each >= 1."""

    rows: npt.NDArray[np.uint32]
    frequencies: Frequencies


@dataclass(frozen=True, slots=True, eq=False)
class _Live:
    """A block's counts under one set of live rows."""

    digest: int  # of the set's bits
    deleted: RowArray | None  # ascending; None when they are many, and testing the bits is cheaper
    document_count: tuple[int, ...]
    total_length: tuple[int, ...]


class TextReader(ABC):
    """A block of rows whose postings can be asked for: sealed (`text_file`) or growing (`text_growing`). Immutable."""

    fields: tuple[str, ...]
    row_count: int

    def __init__(self, fields: tuple[str, ...], row_count: int) -> None:
        self.fields = fields
        self.row_count = row_count
        self._live_seen: _Live | None = None  # of the last query: live rows change far less often than queries come

    @abstractmethod
    def posting(self, field: int, term: str) -> Posting | None:
        """None when no row has the term. Owned by the block; not to be written to."""

    @abstractmethod
    def lengths(self, field: int) -> npt.NDArray[np.uint32]:
        """uint32 (row_count,): terms of each row in the field."""

    @abstractmethod
    def term_hashes(self) -> npt.NDArray[np.uint64]:
        """One hash for each different term of each field, terms of deleted rows included: to count terms over many blocks."""

    def stats(self, terms: Sequence[str], live: Bitmap | None = None) -> TermStats:
        """First step of a query: this block's part of the global statistics.

        terms: of the analyzer, repeats allowed. live: rows not deleted; None = all. Deleted rows count nowhere, at once:
        that costs one bit test a row of each posting, less when few rows are deleted.
        """
        distinct = tuple(sorted(set(terms)))
        counts = self._live_counts(live)
        return TermStats(
            distinct,
            tuple(
                tuple(self._frequency(self.posting(field, term), live, counts) for term in distinct)
                for field in range(len(self.fields))
            ),
            counts.document_count,
            counts.total_length,
        )

    def search(
        self,
        terms: Sequence[str],
        k: int,
        global_stats: TermStats,
        allow: Bitmap | None = None,
        boosts: Mapping[str, float] | None = None,
    ) -> tuple[Scores, RowArray]:
        """Second step: the k best rows with at least one of the terms, best first, equal scores by row, ties of the k-th included.

        terms: as given to `stats`; a term named twice counts twice. global_stats: summed over all blocks of the database.
        allow: rows that may be found (live and matching the filter); None = all.
        boosts: weight by field name, 1 for those not named, 0 leaves a field out.
        Returns scores float32 (m,) and rows int64 (m,), owned by the caller; m > k only where rows score exactly as the k-th
        does: which of them stay is decided by their ids, so that it does not depend on how rows are spread over blocks.
        """
        assert k >= 1
        found: list[tuple[int, float, Posting]] = []  # field, weight, where
        for field, boost in enumerate(_boosts(self.fields, boosts)):
            if boost == 0 or global_stats.document_count[field] == 0:
                continue
            for term, repeats in sorted(Counter(terms).items()):
                posting = self.posting(field, term)
                if posting is not None:
                    found.append((field, boost * repeats * _rarity(global_stats, field, term), posting))
        scores, rows = self._score(found, global_stats, allow)
        return _best(scores, rows, k)

    def _score(
        self, found: list[tuple[int, float, Posting]], stats: TermStats, allow: Bitmap | None
    ) -> tuple[Scores, RowArray | None]:
        """All rows of the postings that are allowed, ascending, with their scores; rows None: scores of all rows, 0 for the rest.

        The three ways add the same numbers in the same order, so they agree to the bit.
        """
        postings_length = sum(len(posting.rows) for _, _, posting in found)
        few: RowArray | None = None
        if allow is not None and bitmap.count(allow) * _FEW * len(found) <= postings_length:
            few = bitmap.to_rows(allow)
        elif postings_length * _DENSE > self.row_count and (len(found) > 1 or allow is not None):
            dense = np.zeros(self.row_count, np.float64)
            for field, weight, posting in found:
                rows = posting.rows.astype(np.int64)
                dense[rows] += self._weigh(
                    field, rows, posting.frequencies, weight, stats
                )  # a posting names a row once
            if allow is not None:
                dense *= np.unpackbits(allow, count=self.row_count, bitorder="little")
            return dense.astype(np.float32), None
        parts: list[tuple[RowArray, _Weights]] = []
        for field, weight, posting in found:
            rows, frequencies = _among(posting, allow, few)
            parts.append((rows, self._weigh(field, rows, frequencies, weight, stats)))
        rows, sums = _sum_by_row(parts)
        return sums.astype(np.float32), rows

    def _weigh(self, field: int, rows: RowArray, frequencies: Frequencies, weight: float, stats: TermStats) -> _Weights:
        """The addend of one field and term for each row. Element by element in float64: the same for a row in any block."""
        average = stats.total_length[field] / stats.document_count[field]
        occurrences = frequencies.astype(np.float64)
        held_back = self.lengths(field)[rows] * (K1 * B / average)
        held_back += K1 * (1 - B)
        held_back += occurrences
        occurrences *= weight * (K1 + 1)
        occurrences /= held_back
        return occurrences

    def _frequency(self, posting: Posting | None, live: Bitmap | None, counts: _Live) -> int:
        if posting is None:
            return 0
        if live is None:
            return len(posting.rows)
        if counts.deleted is not None and len(counts.deleted) * _FEW <= len(posting.rows):
            return len(posting.rows) - int(np.count_nonzero(_found(posting.rows, counts.deleted)[1]))
        if len(posting.rows) * _DENSE > self.row_count:
            return int(np.unpackbits(live, count=self.row_count, bitorder="little")[posting.rows].sum(dtype=np.int64))
        return int(np.count_nonzero(bitmap.contains(live, posting.rows.astype(np.int64))))

    def _live_counts(self, live: Bitmap | None) -> _Live:
        # Known again by content, not by identity: 1 million rows are 125 KB and take some microseconds to hash.
        digest = 0 if live is None else xxhash.xxh3_64_intdigest(live.data, seed=1)
        seen = self._live_seen
        if seen is None or seen.digest != digest:
            seen = self._live_seen = self._count_live(live, digest)
        return seen

    def _count_live(self, live: Bitmap | None, digest: int) -> _Live:
        mask = None if live is None else np.unpackbits(live, count=self.row_count, bitorder="little").view(np.bool_)
        documents, totals = [], []
        for field in range(len(self.fields)):
            lengths = self.lengths(field) if mask is None else self.lengths(field)[mask]
            documents.append(int(np.count_nonzero(lengths)))
            totals.append(int(lengths.sum(dtype=np.int64)))
        deleted = np.flatnonzero(~mask) if mask is not None else None
        if deleted is not None and len(deleted) * _FEW > self.row_count:
            deleted = None
        return _Live(digest, deleted, tuple(documents), tuple(totals))


def _among(posting: Posting, allow: Bitmap | None, few: RowArray | None) -> tuple[RowArray, Frequencies]:
    """The posting's rows in `allow`, ascending, and their frequencies. few: the rows of `allow`, when looking them up is cheaper."""
    if few is not None:
        at, found = _found(posting.rows, few)
        return few[found], posting.frequencies[at[found]]
    rows = posting.rows.astype(np.int64)
    if allow is None:
        return rows, posting.frequencies
    inside = bitmap.contains(allow, rows)
    return rows[inside], posting.frequencies[inside]


def _found(rows: npt.NDArray[np.uint32], few: RowArray) -> tuple[RowArray, bitmap.Mask]:
    """Where each of `few` would stand in the ascending `rows`, and whether it does stand there."""
    at = np.searchsorted(rows, few.astype(np.uint32))
    at[at == len(rows)] = 0  # rows is never empty; the comparison below then fails for these
    return at, rows[at] == few


def _rarity(stats: TermStats, field: int, term: str) -> float:
    count = stats.document_count[field]
    frequency = stats.document_frequency[field][stats.terms.index(term)]
    assert 0 <= frequency <= count
    return math.log(1 + (count - frequency + 0.5) / (frequency + 0.5))


def _boosts(fields: tuple[str, ...], boosts: Mapping[str, float] | None) -> list[float]:
    for field, boost in (boosts or {}).items():
        if field not in fields:
            raise JadeError(
                ErrorCode.UNKNOWN_FIELD,
                f"'{field}' is not a text field of this database: its text fields are {', '.join(fields)}.",
                details={"field": field, "text_fields": list(fields)},
            )
        if boost != 0 and not 1 / BOOST_MAX <= boost <= BOOST_MAX:
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT,
                f"The boost of text field '{field}' is {boost}: use 0, or {1 / BOOST_MAX} to {BOOST_MAX}.",
                details={"field": field},
            )
    return [float((boosts or {}).get(field, 1.0)) for field in fields]


def _sum_by_row(parts: list[tuple[RowArray, _Weights]]) -> tuple[RowArray, _Weights]:
    """Rows ascending and their sums, each added up from 0 in the order of the parts."""
    if not parts:
        return np.empty(0, np.int64), np.empty(0, np.float64)
    if len(parts) == 1:
        return parts[0]
    rows, inverse = np.unique(np.concatenate([rows for rows, _ in parts]), return_inverse=True)
    sums: _Weights = np.bincount(inverse, np.concatenate([weights for _, weights in parts]), len(rows)).astype(
        np.float64
    )
    return rows, sums


def _best(scores: Scores, rows: RowArray | None, k: int) -> tuple[Scores, RowArray]:
    """The k greatest of those above 0 and all that equal the k-th, best first, equal ones by row.

    rows: ascending, of each score; None: the scores are those of rows 0, 1, 2, ...
    """
    last = _kth_greatest(scores, k) if len(scores) > k else np.float32(0)
    above = np.flatnonzero(scores > last)
    equal = np.flatnonzero(scores == last) if last > 0 else above[:0]
    kept = np.concatenate((above, equal))
    order = kept[np.lexsort((kept, -scores[kept]))]
    return scores[order], order if rows is None else rows[order]


def _kth_greatest(scores: Scores, k: int) -> np.float32:
    """The value of rank k, 1 <= k <= len(scores).

    Short texts give few different scores, and numpy's selection takes milliseconds on 100,000 values with many ties. The k-th
    greatest of the maxima of blocks is a lower bound, found in a fraction of that; what is above it is a small rest.
    """
    blocks = len(scores) // _BLOCK
    if blocks < 2 * k:
        return np.float32(-np.partition(-scores, k - 1)[k - 1])
    maxima = scores[: blocks * _BLOCK].reshape(blocks, _BLOCK).max(axis=1)
    bound = _kth_greatest(maxima, k)
    above = scores[scores > bound]
    return bound if len(above) < k else _kth_greatest(above, k)
