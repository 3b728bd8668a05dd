"""Answers to recent filters, kept because the same filters come back: a tenant, a language, a date range.

Rows of a block never change, so an answer stays right as long as the block lives. Bounded in entries and in bytes, counted at the most
an answer can come to hold; the oldest used goes first.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from jadevectordb.index.selection import Selection
from jadevectordb.model import limits
from jadevectordb.model.filters import Filter, In, LooseIn, NotIn, walk


class SelectionCache:
    """Least recently used first out. Safe for threads; a hit costs less than a microsecond."""

    def __init__(self, bytes_max: int, entries_max: int) -> None:
        self._bytes_max = bytes_max
        self._entries_max = entries_max
        self._lock = Lock()
        self._answers: OrderedDict[Filter, Selection] = OrderedDict()
        self.bytes_used = 0  # <= bytes_max

    def get(self, node: Filter) -> Selection | None:
        with self._lock:
            answer = self._answers.get(node)
            if answer is not None:
                self._answers.move_to_end(node)
            return answer

    def put(self, node: Filter, answer: Selection) -> None:
        """Remember an answer, unless it or the filter is too large to be worth it."""
        size = answer.bytes_max
        if size * 4 > self._bytes_max or not _is_small(node):
            return
        with self._lock:
            if node in self._answers:
                return
            self._answers[node] = answer
            self.bytes_used += size
            while self.bytes_used > self._bytes_max or len(self._answers) > self._entries_max:
                _, oldest = self._answers.popitem(last=False)
                self.bytes_used -= oldest.bytes_max

    def __len__(self) -> int:
        return len(self._answers)


def _is_small(node: Filter) -> bool:
    size = 0
    for part, _ in walk(node):
        size += 1
        if isinstance(part, In | NotIn):
            size += len(part.strings) + len(part.numbers) + len(part.instants)
        elif isinstance(part, LooseIn):
            size += len(part.strings) + len(part.numbers) + len(part.numeric_texts)
        if size > limits.COLUMN_CACHE_NODES_MAX:
            return False
    return True
