"""The replicated metadata store as this process knows it: all records in memory, kept in step by one consumer of the bucket.

A server's copy of the bucket may be behind or damaged, and a cursor on it vanishes with the server. So the mirror knows up to
which revision it is complete, and who lists records first asks the bucket's leader for its newest revision and its
number of records, and waits for the mirror to have both. After every interruption the mirror goes through the newest message of
every record again: what is new is told, what it knows already is not. A record that the mirror knew and this pass did not
see is asked of the leader: its deletion was forgotten meanwhile, which is told, or the copy has lost it. That can only be seen on
a copy that has come to where the leader was: one that is behind still shows what was deleted, and never tells of a deletion that
was forgotten before it caught up. So a pass over such a copy counts for nothing, and another begins.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from nats.aio.msg import Msg

from jadevectordb.adapters.jetstream_api import ApiError, Deadline, get_message, stream_state
from jadevectordb.adapters.jetstream_consume import Consumption, EndedError
from jadevectordb.adapters.kv_record import Stored, decode_record
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.store_keys import key_of, subject_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import Record

_SET_UP_S = 10.0
_PAUSE_S = 0.05
_PAUSE_S_MAX = 0.5
_WINDOW_BYTES = 4 << 20
_PATIENCE_S = 2.0  # for a copy that is behind; then another is read
_COPIES_TRIED = 4
_BEHIND_PASSES_MAX = 20  # up to half a second apart


@dataclass(slots=True)
class _Pass:
    """One consumer's way through the bucket. When it began the mirror was complete up to `known`, and the leader had come to `newest`."""

    known: int
    newest: int = 0
    seen: set[str] = field(default_factory=set)
    reached: int = 0  # the revision it has come to
    left: int | None = None  # of the records that there were when it began
    settled: bool = False  # all of them have been seen,
    finished: bool = False  # and what this copy lacks has been asked of the leader


class KvMirror:
    """Written by the loop's thread, read by any."""

    def __init__(
        self, connection: NatsConnection, stream: str, subject_prefix: str, tell: Callable[[str, Record | None], None]
    ) -> None:
        """tell: called for each change beyond the first pass, in order, with the lock held."""
        self._connection = connection
        self._clock = connection.clock
        self._stream = stream
        self._subject_prefix = subject_prefix
        self._tell = tell
        self.lock = threading.Condition()  # guards the fields below
        self._records: dict[str, Stored | JadeError] = {}  # deleted ones too; an error: the record is damaged
        self._revisions: dict[str, int] = {}
        self._position = 0
        self._trouble = "it has not been read yet"
        self._failure: JadeError | None = None
        self._foreign: set[str] = set()  # subjects that are not ours
        self._passes = 0  # settled so far
        self._pass = _Pass(0)  # the loop's thread only
        self._behind_at = 0  # where the last passes over copies that are behind ended,
        self._behind_passes = 0  # and how many did, one after the other
        self._asking: asyncio.Task[None] | None = None
        self._consumption: Consumption | None = None
        self._future: concurrent.futures.Future[None] = connection.begin(self._run())

    def await_leader(self, revision: int, count: int, seconds: float) -> None:
        """Return when the mirror is complete up to the leader's newest revision and has as many records as the leader counts.

        A server skips what its copy has lost, so a mirror that lacks something reads the bucket anew, with luck from
        another server. One that was started lately may only be behind, so that is repeated for as long as the caller waits.
        Raises CORRUPT when it does not help, UNAVAILABLE, CLOSED.
        """
        until_s, tries = self._clock.monotonic_s() + seconds, 0
        while tries < _COPIES_TRIED or self._clock.monotonic_s() < until_s:
            tries += 1
            with self.lock:
                passes = self._passes
                self._wait(lambda: self._position >= revision, min(seconds, _PATIENCE_S))
                if self._position > revision or (self._position == revision and self._count() == count):
                    return
            self._read_anew()
            with self.lock:
                if not self._wait(lambda: self._passes > passes, seconds):  # noqa: B023  called at once
                    raise JadeError(
                        ErrorCode.UNAVAILABLE,
                        f"the metadata store could not be read within {seconds:g} s ({self._trouble or 'no answer'}); retry",
                        details={"undecided": False},
                    )
        raise JadeError(
            ErrorCode.CORRUPT,
            f"{self._stream} holds {count} records up to revision {revision}, but the servers deliver {self._count()} up to "
            f"{self._position}: what they have stored is damaged. Restore the metadata store from a backup",
            details={"stream": self._stream, "revision": revision},
        )

    def _wait(self, done: Callable[[], bool], seconds: float) -> bool:
        if self._failure is None:
            self.lock.wait_for(lambda: done() or self._failure is not None, seconds)
        if self._failure is not None:
            raise self._failure
        return done()

    def _count(self) -> int:
        return len(self._revisions) + len(self._foreign)

    def _read_anew(self) -> None:
        consumption = self._consumption
        if consumption is not None:
            self._connection.loop.call_soon_threadsafe(consumption.abandon)

    def records(self, prefix: str) -> dict[str, Record]:
        """What is not deleted. Raises CORRUPT."""
        found = {}
        with self.lock:
            for key in sorted(key for key in self._records if key.startswith(prefix)):
                record = self._records[key]
                if isinstance(record, JadeError):
                    raise record
                if record.value is not None:
                    found[key] = Record(record.value, self._revisions[key])
        return found

    def newest(self, key: str) -> tuple[int, int, bool]:
        """Up to which revision the mirror is complete, this key's revision (0: none known), and whether it is deleted."""
        with self.lock:
            record = self._records.get(key)
            deleted = not isinstance(record, JadeError) and (record is None or record.value is None)
            return self._position, self._revisions.get(key, 0), deleted

    def tombstones(self) -> list[tuple[int, str]]:
        """Revisions and keys of deleted records, oldest first; never the newest change of all."""
        with self.lock:
            return sorted(
                (self._revisions[key], key)
                for key, record in self._records.items()
                if not isinstance(record, JadeError) and record.value is None and self._revisions[key] < self._position
            )

    def forget(self, key: str, revision: int) -> None:
        """The tombstone with this revision was removed from the bucket."""
        with self.lock:
            if self._revisions.get(key) == revision:
                del self._records[key], self._revisions[key]

    def close(self) -> None:
        self._future.cancel()
        with self.lock:
            self._failure = JadeError(ErrorCode.CLOSED, "the metadata store is closed; open it again")
            self.lock.notify_all()

    # --- the loop's thread --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        pause_s = _PAUSE_S
        while True:
            before = self._position
            try:
                await self._consume()
            except (EndedError, TimeoutError, ApiError) as error:
                self._trouble = str(error) or "no server answers"
            except JadeError as error:
                if error.code is not ErrorCode.UNAVAILABLE:
                    raise
                self._trouble = error.message
            pause_s = _PAUSE_S if self._position > before else min(2 * pause_s, _PAUSE_S_MAX)
            await asyncio.sleep(pause_s)

    async def _consume(self) -> None:
        deadline = Deadline(self._connection, _SET_UP_S)
        newest = (await stream_state(self._connection, self._stream, deadline)).last
        self._pass = _Pass(self._position, newest)
        consumption = Consumption(self._connection, self._stream, self._receive, window_bytes=_WINDOW_BYTES)
        config = {"deliver_policy": "last_per_subject", "filter_subject": f"{self._subject_prefix}>"}
        self._consumption = consumption
        try:
            await consumption.run(config, deadline, lambda: True)
        finally:
            self._consumption = None

    def _receive(self, revision: int, pending: int, message: Msg) -> None:
        self._trouble = ""
        now = self._pass
        now.left = pending if now.left is None else now.left - 1
        now.reached = revision
        try:
            key = key_of(message.subject.removeprefix(self._subject_prefix))
        except ValueError:
            self._foreign.add(message.subject)
            key = None
        with self.lock:
            if key is not None:
                if not now.settled:
                    now.seen.add(key)
                if revision > self._revisions.get(key, 0):
                    self._apply(key, revision, decode_record(key, message.data))
            if now.finished:
                self._position = max(self._position, revision)
                self.lock.notify_all()
        if not now.settled and (now.left <= 0 or pending == 0):
            if revision < max(now.known, now.newest) and not self._stands_still(revision):
                raise EndedError("the copy that was read is behind")
            self._behind_at, self._behind_passes = 0, 0
            self._settle(now)

    def _stands_still(self, revision: int) -> bool:
        """Copies end here pass after pass: what is missing is not on its way, it was lost."""
        self._behind_passes = self._behind_passes + 1 if revision == self._behind_at else 1
        self._behind_at = revision
        return self._behind_passes >= _BEHIND_PASSES_MAX

    def _apply(self, key: str, revision: int, found: Stored | JadeError) -> None:
        before = self._records.get(key)
        self._records[key] = found
        self._revisions[key] = revision
        if isinstance(found, JadeError):
            return
        if found.value is not None:
            self._tell(key, Record(found.value, revision))
        elif isinstance(before, JadeError) or before is None or before.value is not None:
            self._tell(key, None)

    def _settle(self, now: _Pass) -> None:
        """All that this copy has was seen. What the mirror knew before and did not see now is asked of the leader first."""
        now.settled = True
        lacking = [key for key, at in self._revisions.items() if at <= now.known and key not in now.seen]
        now.seen = set()
        if lacking:
            self._asking = asyncio.get_running_loop().create_task(self._ask_leader(now, lacking))
        else:
            self._finish(now)

    async def _ask_leader(self, now: _Pass, keys: list[str]) -> None:
        """Whether these records were deleted, and the deletion forgotten, or the copy that was read has lost them."""
        try:
            for key in keys:
                deadline = Deadline(self._connection, _SET_UP_S)
                subject = self._subject_prefix + subject_of(key)
                stored = await get_message(self._connection, self._stream, deadline, subject=subject)
                with self.lock:
                    if stored is None:
                        self._drop(key)
                    elif stored.sequence > self._revisions.get(key, 0):
                        self._apply(key, stored.sequence, decode_record(key, stored.data or b""))
        except (ApiError, JadeError) as error:
            self._trouble = str(error)
            if now is self._pass and self._consumption is not None:
                self._consumption.abandon()
            return
        self._finish(now)

    def _drop(self, key: str) -> None:
        record = self._records.pop(key, None)
        self._revisions.pop(key, None)
        if isinstance(record, JadeError) or (record is not None and record.value is not None):
            self._tell(key, None)

    def _finish(self, now: _Pass) -> None:
        if now is not self._pass:
            return
        with self.lock:
            now.finished = True
            self._position = max(self._position, now.reached)
            self._passes += 1
            self.lock.notify_all()
