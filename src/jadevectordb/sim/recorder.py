"""Writes a history down while it happens, so that whoever records may be killed at any moment and nothing told is lost.

Each event is one line of JSON, handed to the operating system in one write before the call that records it returns: an
invocation is on file before its request is sent. A process that is killed leaves at most half a last line, which readers pass
over; the answers it never wrote down are operations with an unknown outcome, which is what they are.
(The file is not flushed to the disk each time: it survives the death of the process, not of the machine.)

Several processes record to a file each; `read_history` merges them by time, which works where all clocks are one, as the
monotonic clock of one machine is.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Seq
from pathlib import Path

import msgspec

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import HISTORY_EVENTS_MAX
from jadevectordb.sim.history import (
    Answer,
    Conflict,
    Event,
    Fate,
    FaultBegan,
    FaultEnded,
    History,
    Invocation,
    Kind,
    Level,
    Refused,
    ReplicaReport,
    Seen,
    Settled,
)

CERTAIN_FAILURES = frozenset(
    {
        ErrorCode.INVALID_ARGUMENT,
        ErrorCode.DIMENSION_MISMATCH,
        ErrorCode.INVALID_VECTOR,
        ErrorCode.INVALID_ID,
        ErrorCode.DUPLICATE_ID,
        ErrorCode.INVALID_METADATA,
        ErrorCode.SCHEMA_VIOLATION,
        ErrorCode.UNKNOWN_DATABASE,
        ErrorCode.VERSION_CONFLICT,
        ErrorCode.REQUEST_TOO_LARGE,
        ErrorCode.DISK_FULL,
        ErrorCode.READ_ONLY,
        ErrorCode.UNAUTHORIZED,
        ErrorCode.FORBIDDEN,
        ErrorCode.RATE_LIMITED,
        ErrorCode.NOT_IMPLEMENTED,
    }
)  # a write that ended so has left nothing, by the contract of the log; everything else may have


def fate_of_error(error: JadeError) -> Fate:
    """What became of a write that raised this. A server that says of an error whether it is undecided is believed."""
    undecided = error.details.get("undecided")
    if isinstance(undecided, bool):
        return Fate.UNKNOWN if undecided else Fate.FAILED
    return Fate.FAILED if error.code in CERTAIN_FAILURES else Fate.UNKNOWN


class Recorder:
    """Append-only; any thread may record. now_s: one monotonic clock for everything that will be merged into one history.

    path: a new file, or one that a recorder before this one was killed over; None = the events are kept in memory only.
    name: tells the operations of recorders apart whose files are merged; an operation is `name:number`.
    """

    def __init__(self, now_s: Callable[[], float], path: Path | None = None, *, name: str = "h") -> None:
        self._now_s = now_s
        self._name = name
        self._path = path
        self._lock = threading.Lock()  # guards all below, and makes the order of events that of their times
        self._events: list[Event] = []
        self._count = 0
        self._file: int | None = None
        if path is not None:
            self._count = _mend(path)
            try:
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            except OSError as error:
                raise disk_error(error, "open a history", path) from error

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                os.close(self._file)
                self._file = None

    def history(self) -> History:
        """All that was recorded until now."""
        if self._path is not None:
            return read_history(self._path)
        with self._lock:
            return History(self._events)

    # What clients do. Each returns the operation's name; call it right before the request is sent.

    def write(
        self,
        process: str,
        level: Level,
        ids: Seq[str],
        values: Seq[str],
        *,
        if_version: Seq[int] | None = None,
        shards: Seq[int] | None = None,
        one_entry: bool = True,
        session: str = "",
        token: Mapping[int, int] | None = None,
        request: str = "",
    ) -> str:
        return self._record(
            lambda op, time_s: Invocation(
                op=op,
                time_s=time_s,
                process=process,
                kind=Kind.WRITE,
                level=level,
                ids=tuple(ids),
                values=tuple(values),
                if_version=_some(if_version),
                shards=_some(shards),
                one_entry=one_entry,
                session=session,
                token=dict(token or {}),
                request=request,
            )
        )

    def delete(
        self,
        process: str,
        level: Level,
        ids: Seq[str],
        *,
        if_version: Seq[int] | None = None,
        shards: Seq[int] | None = None,
        session: str = "",
        token: Mapping[int, int] | None = None,
        request: str = "",
    ) -> str:
        return self._record(
            lambda op, time_s: Invocation(
                op=op,
                time_s=time_s,
                process=process,
                kind=Kind.DELETE,
                level=level,
                ids=tuple(ids),
                if_version=_some(if_version),
                shards=_some(shards),
                session=session,
                token=dict(token or {}),
                request=request,
            )
        )

    def read(
        self,
        process: str,
        level: Level,
        ids: Seq[str],
        *,
        shards: Seq[int] | None = None,
        session: str = "",
        token: Mapping[int, int] | None = None,
    ) -> str:
        return self._record(
            lambda op, time_s: Invocation(
                op=op,
                time_s=time_s,
                process=process,
                kind=Kind.READ,
                level=level,
                ids=tuple(ids),
                shards=_some(shards),
                session=session,
                token=dict(token or {}),
            )
        )

    def search(
        self,
        process: str,
        level: Level,
        query: Seq[float],
        k: int,
        *,
        session: str = "",
        token: Mapping[int, int] | None = None,
    ) -> str:
        return self._record(
            lambda op, time_s: Invocation(
                op=op,
                time_s=time_s,
                process=process,
                kind=Kind.SEARCH,
                level=level,
                query=tuple(float(x) for x in query),
                k=k,
                session=session,
                token=dict(token or {}),
            )
        )

    # What they are told. Call it right after the answer arrived.

    def ok(
        self,
        op: str,
        *,
        sequences: Mapping[int, int] | None = None,
        seen: Iterable[Seen] = (),
        fates: Mapping[str, Fate] | None = None,
    ) -> None:
        self._answer(op, Fate.OK, sequences=dict(sequences or {}), seen=tuple(seen), fates=dict(fates or {}))

    def failed(self, op: str, error: str = "", *, refusal: Refused | None = None) -> None:
        """It did nothing, for certain."""
        self._answer(op, Fate.FAILED, error=error, refusal=refusal)

    def unknown(self, op: str, error: str = "") -> None:
        self._answer(op, Fate.UNKNOWN, error=error)

    def raised(self, op: str, error: JadeError) -> None:
        """The call raised this: what that means for a write follows from the code and what the server said about it."""
        refusal = None
        details = error.details
        if error.code is ErrorCode.VERSION_CONFLICT and "id" in details and "expected" in details:
            refusal = Refused(details["id"], details["expected"], details.get("actual"))
        self._answer(op, fate_of_error(error), error=str(error.code), refusal=refusal)

    # What happens around them.

    def fault_began(self, kind: str, target: str) -> str:
        """Its name, for `fault_ended`."""
        return self._record(lambda op, time_s: FaultBegan(fault=op, time_s=time_s, kind=kind, target=target))

    def fault_ended(self, fault: str) -> None:
        self._record(lambda _, time_s: FaultEnded(fault=fault, time_s=time_s))

    def settled(self) -> None:
        """Say it only when it is true: no call is under way, every outbox is empty, no dead node's message is in flight."""
        self._record(lambda _, time_s: Settled(time_s=time_s))

    def conflict(self, vector_id: str, value: str = "", *, request: str = "") -> None:
        """The cluster lists this write, named by what it wrote or by its request id, as having changed nothing."""
        self._record(lambda _, time_s: Conflict(time_s=time_s, id=vector_id, value=value, request=request))

    def replica(self, shard: int, node: str, watermark: int, digest: str, vectors: int) -> None:
        self._record(
            lambda _, time_s: ReplicaReport(
                time_s=time_s, shard=shard, node=node, watermark=watermark, digest=digest, vectors=vectors
            )
        )

    def _answer(
        self,
        op: str,
        fate: Fate,
        *,
        sequences: dict[int, int] | None = None,
        seen: tuple[Seen, ...] = (),
        fates: dict[str, Fate] | None = None,
        refusal: Refused | None = None,
        error: str = "",
    ) -> None:
        self._record(
            lambda _, time_s: Answer(
                op=op,
                time_s=time_s,
                fate=fate,
                fates=fates or {},
                sequences=sequences or {},
                seen=seen,
                refusal=refusal,
                error=error,
            )
        )

    def _record(self, make: Callable[[str, float], Event]) -> str:
        with self._lock:
            if self._count >= HISTORY_EVENTS_MAX:
                raise JadeError(
                    ErrorCode.REQUEST_TOO_LARGE,
                    f"This history has {self._count} events and takes no more: check it and begin a new one.",
                    details={"max": HISTORY_EVENTS_MAX},
                )
            op = f"{self._name}:{self._count}"
            event = make(op, self._now_s())
            self._count += 1
            if self._path is None:
                self._events.append(event)
            else:
                self._write_line(_ENCODER.encode(event) + b"\n", self._path)
            return op

    def _write_line(self, line: bytes, path: Path) -> None:
        if self._file is None:
            raise JadeError(ErrorCode.CLOSED, f"The recorder of {path} is closed; open another to go on.")
        try:
            written = os.write(self._file, line)
            while written < len(line):  # a full disk takes a part before it refuses
                written += os.write(self._file, line[written:])
        except OSError as error:
            raise disk_error(error, "append to a history", path) from error


_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def read_history(*paths: Path) -> History:
    """The history that these files tell together, also while they are being written. Raises CORRUPT naming file and line."""
    # At equal times a call goes before an answer: two operations that touch are told as overlapping, which claims less.
    return History(heapq.merge(*map(_events_of, paths), key=lambda e: (e.time_s, not isinstance(e, Invocation))))


def _events_of(path: Path) -> Iterator[Event]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # being written, or its writer died over it
            try:
                yield _DECODER.decode(line)
            except msgspec.DecodeError as error:
                raise JadeError(
                    ErrorCode.CORRUPT,
                    f"Line {number} of the history {path} is damaged: {error}.",
                    details={"path": str(path), "line": number},
                ) from error


def _mend(path: Path) -> int:
    """Cut off half a last line; how many events the file has. A file that is not there has none."""
    if not path.exists():
        return 0
    kept, count = 0, 0
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                kept += len(line)
                count += 1
    os.truncate(path, kept)
    return count


def _some(numbers: Seq[int] | None) -> tuple[int, ...] | None:
    return None if numbers is None else tuple(int(n) for n in numbers)
