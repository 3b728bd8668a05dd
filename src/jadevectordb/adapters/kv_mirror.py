"""The replicated metadata store as this process knows it: all records in memory, kept in step by one consumer of the bucket.

A server's copy of the bucket may be behind, and a cursor on it vanishes with the server. So the mirror knows up to which
revision it is complete, and who lists records first asks the bucket's leader for its newest revision and waits for the
mirror to have it. After every interruption the mirror goes through the newest message of every record again: what is new
is told, what it knows already is not, and a record that is gone although the mirror knew it (its deletion was forgotten meanwhile)
is told as deleted.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable
from dataclasses import dataclass

from nats.aio.msg import Msg

from jadevectordb.adapters.jetstream_api import ApiError, Deadline
from jadevectordb.adapters.jetstream_consume import Consumption, EndedError
from jadevectordb.adapters.kv_record import Stored, decode_record
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.store_keys import key_of
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import Record

_SET_UP_S = 10.0
_PAUSE_S = 0.05
_PAUSE_S_MAX = 0.5
_WINDOW_BYTES = 4 << 20


@dataclass(slots=True)
class _Pass:
    """One consumer's way through the bucket. known: the mirror was complete up to here when it began."""

    known: int
    seen: set[str]
    settled: bool = False  # every record that there is has been seen


class KvMirror:
    """Written by the loop's thread, read by any."""

    def __init__(
        self, connection: NatsConnection, stream: str, subject_prefix: str, tell: Callable[[str, Record | None], None]
    ) -> None:
        """tell: called for each change beyond the first pass, in order, with the lock held."""
        self._connection = connection
        self._stream = stream
        self._subject_prefix = subject_prefix
        self._tell = tell
        self.lock = threading.Condition()  # guards the fields below
        self._records: dict[str, Stored | JadeError] = {}  # deleted ones too; an error: the record is damaged
        self._revisions: dict[str, int] = {}
        self._position = 0
        self._trouble = "it has not been read yet"
        self._failure: JadeError | None = None
        self._pass = _Pass(0, set())  # the loop's thread only
        self._future: concurrent.futures.Future[None] = connection.begin(self._run())

    def wait_for(self, revision: int, seconds: float) -> None:
        """Return when the mirror is complete up to this revision. Raises UNAVAILABLE, CLOSED."""
        with self.lock:
            self.lock.wait_for(lambda: self._position >= revision or self._failure, seconds)
            if self._position >= revision:
                return
            if self._failure is not None:
                raise self._failure
            raise JadeError(
                ErrorCode.UNAVAILABLE,
                f"the metadata store could not be read up to its newest change within {seconds:g} s "
                f"({self._trouble or 'this node is behind'}); retry",
                details={"undecided": False},
            )

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
        self._pass = _Pass(self._position, set())
        consumption = Consumption(self._connection, self._stream, self._receive, window_bytes=_WINDOW_BYTES)
        config = {"deliver_policy": "last_per_subject", "filter_subject": f"{self._subject_prefix}>"}
        await consumption.run(config, Deadline(self._connection, _SET_UP_S), lambda: True)

    def _receive(self, revision: int, pending: int, message: Msg) -> None:
        self._trouble = ""
        try:
            key = key_of(message.subject.removeprefix(self._subject_prefix))
        except ValueError:
            return  # somebody else's message in our bucket
        found = decode_record(key, message.data)
        with self.lock:
            if not self._pass.settled:
                self._pass.seen.add(key)
            if revision > self._revisions.get(key, 0):
                self._apply(key, revision, found)
            self._position = max(self._position, revision)
            if not self._pass.settled and pending == 0 and revision >= self._pass.known:
                self._settle()
            self.lock.notify_all()

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

    def _settle(self) -> None:
        """What the mirror knew before this pass, and the pass did not see, was deleted, and the deletion forgotten."""
        gone = [key for key, at in self._revisions.items() if at <= self._pass.known and key not in self._pass.seen]
        for key in gone:
            record = self._records.pop(key)
            del self._revisions[key]
            if isinstance(record, JadeError) or record.value is not None:
                self._tell(key, None)
        self._pass.settled = True
        self._pass.seen.clear()
