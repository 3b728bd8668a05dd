"""Writers and watchers of a replicated metadata store while its servers come and go, and what must be true of them afterwards."""

from __future__ import annotations

import threading

from jadevectordb.adapters.kv_store import KvStore
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import Record


class Watched:
    """What a watch told, as a store of its own."""

    def __init__(self, store: KvStore, known: dict[str, Record] | None = None, prefix: str = "") -> None:
        self._records = dict(known or {})
        self.revisions: list[int] = []
        self._changed = threading.Condition()
        store.watch(prefix, self._take)

    def _take(self, key: str, record: Record | None) -> None:
        with self._changed:
            if record is None:
                self._records.pop(key)
            else:
                self.revisions.append(record.revision)
                self._records[key] = record
            self._changed.notify_all()

    def wait_for(self, expected: dict[str, Record]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._records == expected, 90), (self._records, expected)


class Counter:
    """A thread that counts one record up by compare-and-set."""

    def __init__(self, store: KvStore) -> None:
        self._store = store
        self.won: list[int] = []  # revisions
        self.undecided = 0
        self._stop = threading.Event()
        self._grown = threading.Condition()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._count()
        except BaseException as error:
            self._failure = error

    def _count(self) -> None:
        try:
            record = self._store.get("n")
            assert record is not None
            revision = self._store.compare_and_set("n", b"%d" % (int(record.value) + 1), record.revision)
        except JadeError as error:
            assert error.code is ErrorCode.UNAVAILABLE
            self.undecided += 1
            return
        if revision is not None:
            with self._grown:
                self.won.append(revision)
                self._grown.notify_all()

    def wait_for_more(self, count: int) -> None:
        with self._grown:
            wanted = len(self.won) + count
            assert self._grown.wait_for(lambda: len(self.won) >= wanted or self._failure, 120)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        assert self._failure is None


def check_counts(counters: list[Counter], store: KvStore) -> Record:
    """The record in the end: as many changes as were told to have been made."""
    for counter in counters:
        counter.stop()
    record = store.get("n")
    assert record is not None
    won = [revision for counter in counters for revision in counter.won]
    assert len(set(won)) == len(won), "one revision was won twice"
    open_ends = sum(counter.undecided for counter in counters)
    assert len(won) <= int(record.value) <= len(won) + open_ends, (
        "a change was lost, or made after it was told not to be"
    )
    return record
