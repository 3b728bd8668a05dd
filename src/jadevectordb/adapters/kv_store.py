"""The metadata store of a cluster: a JetStream key-value bucket, changed by compare-and-set on each record's revision.

The servers decide who was first: a message is stored only if the newest one of its subject has the sequence that the writer
expects. What they leave open is decided here:
- No answer: the message may be stored or not, or be on its way. Its id is looked for, and it is sent again under the same id,
  until the servers either name its place (it is there, now or since the first try, even if others have changed the record
  since) or refuse it (it is not, and the record has changed).
- "Another write is in flight" (10164) is no refusal: asked again.
- A record that was deleted is there for the servers, as a tombstone with a sequence; for callers it does not exist, and is
  created by expecting 0.

Reading one record asks the bucket's leader; listing waits for the mirror to have what the leader has. A leader that was cut off
and does not know it yet may answer both with what was true a moment ago; a change based on that is refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import threading
from collections.abc import Coroutine
from collections.abc import Sequence as Seq
from typing import Any, TypeVar

from jadevectordb.adapters.jetstream_api import (
    MESSAGE_ID_IN_FLIGHT,
    WRITE_IN_FLIGHT,
    WRONG_LAST_SEQUENCE,
    ApiError,
    Deadline,
    Retry,
    StreamState,
    ensure_stream,
    get_message,
    purge_below,
    stream_refused,
    stream_state,
)
from jadevectordb.adapters.jetstream_publish import ANSWER_S, EXPECTED_LAST_OF_SUBJECT, MESSAGE_ID, look, place_of
from jadevectordb.adapters.kv_mirror import KvMirror
from jadevectordb.adapters.kv_record import WRITE_ID_BYTES, Stored, decode_record, encode_record
from jadevectordb.adapters.nats_connection import DisconnectedError, NatsConnection, NoRespondersError
from jadevectordb.adapters.store_keys import check_key, subject_of
from jadevectordb.adapters.store_watches import KeyWatch, StoreWatches
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import (
    LOG_DUPLICATES_S,
    NATS_PAYLOAD_BYTES_MAX,
    STORE_ANSWER_S_MAX,
    STORE_TOMBSTONES_MAX,
)
from jadevectordb.ports.metadata_store import OnChange, Record

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OPEN_S = 60.0
_OVERHEAD_BYTES = 8192  # subject, headers and our own header beside a value

T = TypeVar("T")


class KvStore:
    """The metadata store port over one bucket. Every method may be called from any thread but the connection's."""

    def __init__(
        self,
        connection: NatsConnection,
        bucket: str,
        *,
        replicas: int = 3,
        answer_s: float = STORE_ANSWER_S_MAX,
        tombstones_max: int = STORE_TOMBSTONES_MAX,
        open_s: float = _OPEN_S,
    ) -> None:
        """The bucket is created if it is not there, within `open_s`. Raises CONFLICT (other settings), UNAVAILABLE, INVALID_ARGUMENT."""
        if not _NAME.fullmatch(bucket):
            raise JadeError(
                ErrorCode.INVALID_ARGUMENT, f"{bucket!r} cannot name a bucket: use letters, digits, '-' and '_'"
            )
        assert replicas in (1, 3, 5)
        self._connection = connection
        self._stream = f"KV_{bucket}"
        self._prefix = f"$KV.{bucket}."
        self._replicated = replicas > 1
        self._answer_s = answer_s
        self._tombstones_max = tombstones_max
        self._lock = threading.Lock()
        self._closed = False
        self._pruning = False
        connection.call(ensure_stream(connection, self._config(replicas), Deadline(connection, open_s)), open_s)
        self._watches = StoreWatches()
        self._mirror = KvMirror(connection, self._stream, self._prefix, self._watches.tell)

    def _config(self, replicas: int) -> dict[str, Any]:
        return {
            "name": self._stream,
            "subjects": [f"{self._prefix}>"],
            "storage": "file",
            "discard": "new",
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "duplicate_window": int(LOG_DUPLICATES_S * 10**9),
            "deny_delete": True,
            "deny_purge": False,
            "allow_rollup_hdrs": True,
        }

    def get(self, key: str) -> Record | None:
        """As `MetadataStore.get`, by the word of the bucket's leader. Raises CORRUPT, UNAVAILABLE, CLOSED."""
        subject = self._prefix + subject_of(key)

        async def read() -> Record | None:
            revision, found = await self._newest(key, subject, Deadline(self._connection, self._answer_s))
            return None if found is None or found.value is None else Record(found.value, revision)

        return self._call(read())

    async def _newest(self, key: str, subject: str, deadline: Deadline) -> tuple[int, Stored | None]:
        """Revision and record as the leader has it, a deleted one included; 0 and None when there is none. Raises CORRUPT."""
        stored = await get_message(self._connection, self._stream, deadline, subject=subject)
        if stored is None:
            return 0, None
        found = decode_record(key, stored.data or b"")
        if isinstance(found, JadeError):
            raise found
        return stored.sequence, found

    def list(self, prefix: str) -> dict[str, Record]:
        """As `MetadataStore.list`: at least as new as what the leader knew when this was called. Raises CORRUPT, UNAVAILABLE."""
        check_key(prefix)
        self._catch_up()
        return self._mirror.records(prefix)

    def known(self, prefix: str) -> dict[str, Record]:
        """As `list`, but what this process has heard of so far, without asking anybody: works without a majority."""
        self._refuse_closed()
        return self._mirror.records(prefix)

    def _catch_up(self) -> None:
        async def ask() -> StreamState:
            return await stream_state(self._connection, self._stream, Deadline(self._connection, self._answer_s))

        state = self._call(ask())
        self._mirror.await_leader(state.last, state.messages, self._answer_s)

    def watch(self, prefix: str, handler: OnChange) -> KeyWatch:
        """As `MetadataStore.watch`. Raises UNAVAILABLE, CLOSED."""
        check_key(prefix)
        self._catch_up()
        with self._mirror.lock:  # nothing is told meanwhile
            return self._watches.add(prefix, handler)

    def compare_and_set(self, key: str, value: bytes | None, expected: int) -> int | None:
        """As `MetadataStore.compare_and_set`. Raises UNAVAILABLE, REQUEST_TOO_LARGE, DISK_FULL, CORRUPT, CLOSED."""
        subject = self._prefix + subject_of(key)
        if value is not None and len(value) > NATS_PAYLOAD_BYTES_MAX - _OVERHEAD_BYTES:
            raise JadeError(
                ErrorCode.REQUEST_TOO_LARGE,
                f"the record {key!r} has {len(value)} bytes, but at most {NATS_PAYLOAD_BYTES_MAX - _OVERHEAD_BYTES} "
                "go into a replicated metadata store",
            )
        revision = self._call(self._change(key, subject, value, expected))
        if value is None and revision is not None:
            self._prune()
        return revision

    async def _change(self, key: str, subject: str, value: bytes | None, expected: int) -> int | None:
        deadline = Deadline(self._connection, self._answer_s)
        expect = await self._sequence_to_expect(key, subject, expected, deadline)
        if expect is None:
            return None
        write_id = secrets.token_bytes(WRITE_ID_BYTES)
        payload = encode_record(key, value, write_id)
        retry = Retry(self._connection, deadline, f"changing the record {key!r}")
        sent = False
        answer_s = ANSWER_S
        while not deadline.over:
            try:
                connected = await asyncio.wait_for(self._connection.connected(), deadline.left_s(1e6))
                if sent:
                    place = await look(
                        connected, subject, write_id.hex(), deadline.left_s(answer_s), replicated=self._replicated
                    )
                    if place is not None:
                        return place
                sent = True
                headers = {MESSAGE_ID: write_id.hex(), EXPECTED_LAST_OF_SUBJECT: str(expect)}
                return place_of(await connected.ask(subject, payload, headers, deadline.left_s(answer_s)))[0]
            except ApiError as error:
                if error.number == WRONG_LAST_SEQUENCE:
                    revision, found = await self._newest(key, subject, deadline)
                    if found is not None and found.write_id == write_id:
                        return revision
                    exists = found is not None and found.value is not None
                    if expected == 0 and not exists and revision != expect:
                        expect = revision  # deleted by somebody, or the tombstone was forgotten: it may be created
                        continue
                    if revision != expect:
                        return None
                elif not (error.not_now or error.number in (WRITE_IN_FLIGHT, MESSAGE_ID_IN_FLIGHT)):
                    raise stream_refused(self._stream, error) from error
                await retry.pause(str(error))
            except NoRespondersError:
                await retry.pause("no server leads it at the moment")
            except DisconnectedError:
                await retry.pause("the connection ended")
            except TimeoutError:
                answer_s *= 2
                await retry.pause("no answer")
        undecided = "; whether it was changed is not known: read it before changing it again" if sent else ""
        raise retry.unavailable(undecided, undecided=sent, key=key)

    async def _sequence_to_expect(self, key: str, subject: str, expected: int, deadline: Deadline) -> int | None:
        """What the newest message of the subject must be; None when the record is known to be another by now."""
        position, revision, deleted = self._mirror.newest(key)
        if position < expected or (expected == 0 and not deleted):  # the mirror may not have heard of it yet
            revision, found = await self._newest(key, subject, deadline)
            deleted = found is None or found.value is None
        if expected == 0:
            return revision if deleted else None
        return None if deleted or revision != expected else expected

    def _prune(self) -> None:
        """Forget old tombstones when there are too many; one pass at a time, in the background."""
        with self._lock:
            if self._pruning or self._closed:
                return
            old = self._mirror.tombstones()
            if len(old) <= self._tombstones_max:
                return
            with contextlib.suppress(JadeError):  # the connection was closed: the change has happened all the same
                self._connection.begin(self._forget(old[: len(old) - self._tombstones_max // 2]))
                self._pruning = True

    async def _forget(self, tombstones: Seq[tuple[int, str]]) -> None:
        try:
            for revision, key in tombstones:
                deadline = Deadline(self._connection, self._answer_s)
                subject = self._prefix + subject_of(key)
                await purge_below(self._connection, self._stream, revision + 1, deadline, subject=subject)
                self._mirror.forget(key, revision)
        except (ApiError, JadeError):
            return  # the next deletion tries again
        finally:
            with self._lock:
                self._pruning = False

    def close(self) -> None:
        """Watches end. The connection is the caller's to close. Again is fine; later calls raise CLOSED."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._mirror.close()
        self._watches.close()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        with self._lock:
            closed = self._closed
        if closed:
            work.close()
            self._refuse_closed()
        try:
            return self._connection.call(work, self._answer_s)
        except ApiError as error:
            raise stream_refused(self._stream, error) from error

    def _refuse_closed(self) -> None:
        with self._lock:
            if self._closed:
                raise JadeError(ErrorCode.CLOSED, "the metadata store is closed; open it again")
