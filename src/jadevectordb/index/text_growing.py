"""Text search over the newest rows, which still grow in number: visible at once, and free for the writer.

Nothing is indexed when rows are written. The first search after it analyses the rows added since the last one (about
5 microseconds each) and appends them to postings in memory. A growing block holds some ten thousand rows at most, so even a
first search over all of them stays at a fraction of a second; after that, searches pay only for what is new.
"""

from __future__ import annotations

import threading
from array import array
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from jadevectordb.index.text_analysis import Analyzer, FieldReader, TextConfig
from jadevectordb.index.text_bm25 import Posting, TextReader
from jadevectordb.index.text_file import hash_of, key_of


class GrowingText:
    """Postings that only grow. Any number of threads may search while a writer appends rows elsewhere."""

    def __init__(self, config: TextConfig) -> None:
        self._fields = config.fields
        self._analyzer = Analyzer(config)
        self._reader = FieldReader(config)
        self._lock = threading.Lock()  # held while rows are indexed, and while a posting is copied out
        # By field and term: row << 32 | frequency, rows ascending.
        self._postings: list[dict[str, array[int]]] = [{} for _ in config.fields]
        self._lengths = [array("I") for _ in config.fields]

    def reader(self, metadata: Sequence[bytes], count: int) -> TextReader:
        """A view of exactly the first `count` rows, whatever is appended later. Costs nothing until it is searched.

        metadata: by row, one JSON object as UTF-8; it may grow meanwhile, rows below count are there and stay as they are.
        """
        return _GrowingView(self, self._fields, metadata, count)

    def extend(self, metadata: Sequence[bytes], count: int) -> None:
        """Index what is missing of the first `count` rows. Raises INVALID_METADATA naming the row; it stays missing then."""
        with self._lock:
            for row in range(len(self._lengths[-1]), count):
                texts = self._reader.texts(metadata[row], row)
                for postings, lengths, text in zip(self._postings, self._lengths, texts, strict=True):
                    terms = self._analyzer.terms(text) if text else []
                    for term, frequency in Counter(terms).items():
                        posting = postings.get(term)
                        if posting is None:
                            posting = postings[term] = array("Q")
                        posting.append(row << 32 | frequency)
                    lengths.append(len(terms))

    def copy_posting(self, field: int, term: str, row_count: int) -> Posting | None:
        """The posting below row_count. A copy: arrays that grow move in memory."""
        with self._lock:
            grown = self._postings[field].get(term)
            if grown is None:
                return None
            pairs = np.frombuffer(grown.tobytes(), np.uint64)
        pairs = pairs[: np.searchsorted(pairs, np.uint64(row_count << 32))]
        if len(pairs) == 0:
            return None
        return Posting((pairs >> np.uint64(32)).astype(np.uint32), pairs.astype(np.uint32))

    def copy_lengths(self, field: int, row_count: int) -> npt.NDArray[np.uint32]:
        with self._lock:
            return np.frombuffer(self._lengths[field][:row_count].tobytes(), np.uint32)

    def copy_term_hashes(self) -> npt.NDArray[np.uint64]:
        with self._lock:
            keys = [key_of(field, term) for field, postings in enumerate(self._postings) for term in postings]
        return np.fromiter(map(hash_of, keys), np.uint64, len(keys))


class _GrowingView(TextReader):
    """The first row_count rows of a growing block."""

    def __init__(
        self, growing: GrowingText, fields: tuple[str, ...], metadata: Sequence[bytes], row_count: int
    ) -> None:
        super().__init__(fields, row_count)
        self._growing = growing
        self._metadata = metadata
        self._copied: dict[int, npt.NDArray[np.uint32]] = {}  # lengths by field

    def posting(self, field: int, term: str) -> Posting | None:
        self._growing.extend(self._metadata, self.row_count)
        return self._growing.copy_posting(field, term, self.row_count)

    def lengths(self, field: int) -> npt.NDArray[np.uint32]:
        lengths = self._copied.get(field)
        if lengths is None:
            self._growing.extend(self._metadata, self.row_count)
            lengths = self._copied[field] = self._growing.copy_lengths(field, self.row_count)
        return lengths

    def term_hashes(self) -> npt.NDArray[np.uint64]:
        self._growing.extend(self._metadata, self.row_count)
        return self._growing.copy_term_hashes()
