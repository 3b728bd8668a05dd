"""Appenders and followers of a replicated log while its servers come and go, and what must be true of them afterwards."""

from __future__ import annotations

import threading

import numpy as np

from jadevectordb.adapters.jetstream_follow import Following
from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.log.entry import encode
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.operations import Entry, Write
from jadevectordb.ports.log import Delivered


def write(tag: str, *, rows: int = 2, width: int = 16, request: str = "", part: int = 0, parts: int = 1) -> Entry:
    vectors = np.full((rows, width), len(tag), np.float32)
    ids = [f"{tag}#{row}" for row in range(rows)]
    return Entry(Write(ids, vectors, [b"{}"] * rows), 1, request_id=request, part=part, parts=parts)


class Follower:
    """Everything one `follow` delivered."""

    def __init__(self, log: JetStreamLog, shard: int, from_sequence: int = 1) -> None:
        self.delivered: list[Delivered] = []
        self.errors: list[JadeError] = []
        self._grown = threading.Condition()
        self.following: Following = log.follow(shard, from_sequence, self._take, self._end)

    def _take(self, delivered: Delivered) -> None:
        with self._grown:
            self.delivered.append(delivered)
            self._grown.notify_all()

    def _end(self, error: JadeError) -> None:
        with self._grown:
            self.errors.append(error)
            self._grown.notify_all()

    def wait_for(self, sequence: int, seconds: float = 90.0) -> None:
        with self._grown:
            assert self._grown.wait_for(
                lambda: self.errors or (self.delivered and self.delivered[-1].sequence >= sequence), seconds
            ), (len(self.delivered), sequence, self.following.trouble)

    def wait_for_error(self, seconds: float = 90.0) -> JadeError:
        with self._grown:
            assert self._grown.wait_for(lambda: self.errors, seconds)
        return self.errors[0]

    @property
    def sequences(self) -> list[int]:
        return [one.sequence for one in self.delivered]

    def contents(self) -> dict[int, bytes]:
        return {one.sequence: encode(one.entry) for one in self.delivered}


class Appenders:
    """Threads that append without pause until told to stop; undecided requests are sent again under the same request id."""

    def __init__(self, log: JetStreamLog, shard: int, threads: int = 3, parts: int = 1) -> None:
        self._log = log
        self._shard = shard
        self._parts = parts
        self._stop = threading.Event()
        self._lock = threading.Condition()
        self.acknowledged: dict[int, bytes] = {}
        self.unavailable = 0
        self.failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self, name: int) -> None:
        try:
            for n in range(10**9):
                if self._stop.is_set():
                    return
                self._append(f"{name}.{n}")
        except BaseException as error:
            self.failures.append(error)

    def _append(self, tag: str) -> None:
        entries = [write(f"{tag}/{part}", request=tag, part=part, parts=self._parts) for part in range(self._parts)]
        while True:
            try:
                sequences = self._log.append([(self._shard, entry) for entry in entries])
                break
            except JadeError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise
                self.unavailable += 1
        assert sequences == list(range(sequences[0], sequences[0] + self._parts))
        with self._lock:
            for sequence, entry in zip(sequences, entries, strict=True):
                assert sequence not in self.acknowledged, "one place for two entries"
                self.acknowledged[sequence] = encode(entry)
            self._lock.notify_all()

    def wait_for_more(self, count: int, seconds: float = 120.0) -> None:
        """So many more acknowledged than now."""
        with self._lock:
            wanted = len(self.acknowledged) + count
            assert self._lock.wait_for(lambda: len(self.acknowledged) >= wanted or self.failures, seconds)

    def stop(self) -> dict[int, bytes]:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        assert self.failures == []
        return self.acknowledged


def check_history(acknowledged: dict[int, bytes], follower: Follower, log: JetStreamLog, shard: int) -> None:
    """No gap, no duplicate, nothing acknowledged missing, and the log read anew says the same as the follower."""
    last = log.last(shard)
    follower.wait_for(last)
    assert follower.errors == []
    assert follower.sequences == list(range(1, last + 1))
    contents = follower.contents()
    assert len(set(contents.values())) == len(contents), "an entry was stored twice"
    assert acknowledged.items() <= contents.items()
    assert {one.sequence: encode(one.entry) for frame in log.read({shard: 1}) for one in frame} == contents
