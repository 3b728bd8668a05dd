"""The log on one machine: a folder of files, synced before anyone is told, shared by all shards of a database.

What a failure leaves behind: a disk that is full or read-only costs nothing but the call, because what was written is
taken back durably and no sequence is used up. A sync that fails leaves unknown what is on the disk, and syncing again
would report success without having written (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020);
the log then refuses everything until it is opened anew and has looked.

The parts: `local_log_group` lets callers share a sync, `local_log_active` writes, `local_log_file` reads and recovers,
`local_log_open` puts a folder in order, `local_log_copy` copies it. One log object at a time may have a folder open: the
database's folder lock sees to that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Seq
from itertools import pairwise
from pathlib import Path

from jadevectordb.adapters.local_log_active import ActiveFile
from jadevectordb.adapters.local_log_copy import copy_log
from jadevectordb.adapters.local_log_file import Part, corrupt, file_name, read_frames, read_tables
from jadevectordb.adapters.local_log_group import GroupCommit, PendingFrame
from jadevectordb.adapters.local_log_open import open_folder
from jadevectordb.adapters.os_disk import disk_error, fsync_directory
from jadevectordb.adapters.os_signals import Uninterrupted
from jadevectordb.log.entry import Buffer
from jadevectordb.log.frame import Committed, encode_entry, frame_pieces
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, Sequence, ShardId
from jadevectordb.model.limits import LOG_FILE_BYTES, LOG_GROUP_BYTES_MAX, LOG_ROTATE_BYTES_MIN
from jadevectordb.model.operations import Entry
from jadevectordb.ports.log import Delivered, Frame


class LocalLog:
    """The log port over files in one folder. Every method may be called from any thread.

    Locks, in the order in which they may be taken: `_upkeep` (truncate, copy, close: one at a time), `_writing` (the
    active file), `_state` (the list of files and ends; never held while the disk works).
    """

    def __init__(
        self, directory: Path, *, file_bytes: int = LOG_FILE_BYTES, rotate_bytes_min: int = LOG_ROTATE_BYTES_MIN
    ) -> None:
        """directory: the log's own folder, created if missing. file_bytes: a file is closed at about this size.

        Raises CORRUPT naming file and offset, FORMAT_TOO_NEW, READ_ONLY, DISK_FULL, IO_ERROR.
        """
        self.directory = directory
        self._file_bytes = file_bytes
        self._rotate_bytes_min = min(rotate_bytes_min, file_bytes)
        folder = open_folder(directory)
        self._committed_file = folder.committed
        self.recovered_bytes = (
            folder.last.torn_bytes
        )  # cut off: a write that a crash left unfinished; for a caller's report
        self._next = folder.last.next_sequences
        self._next_number = folder.last.next_number
        self._closed_parts = folder.closed
        try:
            self._active = ActiveFile.open(folder.last.part, file_bytes)
            self._first_file = (*folder.closed, folder.last.part)[0].header.first_frame
            self._write_record_durably()
        except BaseException:
            folder.committed.close()
            raise

        self._upkeep = threading.Lock()
        self._writing = threading.Lock()
        self._state = threading.Lock()
        self._group = GroupCommit(self._commit, self._deliver, min(LOG_GROUP_BYTES_MAX, file_bytes))
        self._handlers: tuple[Callable[[Frame], None], ...] = ()
        self._tail_dirty = False  # bytes beyond the active file's end are to be taken back before the next write
        self._is_closing = False
        self._refusal: JadeError | None = None  # why nothing can be appended any more
        self._apply_failure: JadeError | None = None  # a subscriber has raised: it is no longer in step with the log
        self.sync_count = 0

    # --- appending ----------------------------------------------------------------------------------------------------

    def append(self, entries: Seq[tuple[ShardId, Entry]]) -> list[Sequence]:
        """As `Log.append`. Raises DISK_FULL, READ_ONLY, IO_ERROR, CLOSED.

        After IO_ERROR from a failed sync the log refuses further appends until it is opened anew.
        """
        if not entries:
            return []
        pending = PendingFrame([encode_entry(shard, entry) for shard, entry in entries])
        with Uninterrupted():
            self._group.run(pending)
        return pending.sequences

    def _commit(self, group: list[PendingFrame]) -> None:
        """Write and sync the group's frames. On any error but a failed sync, durably none of them is in the log."""
        group = [pending for pending in group if pending.encoded]  # one without entries only waits for those before it
        if not group:
            return
        size = sum(pending.size for pending in group)
        with self._writing:
            self._refuse_if_unusable()
            self._clean_tail()
            active = self._active
            if not active.is_empty and active.end + size > self._file_bytes:
                active = self._rotate()
            pieces, following = self._place(group, active)
            self._tail_dirty = True
            try:
                active.write(pieces, size)
            except OSError as error:
                self._clean_tail()
                raise disk_error(error, "append to the log", active.path) from error
            try:
                active.sync()
                self._committed_file.write(self._record(active.end + size))
            except OSError as error:
                self._refuse_from_now_on(error, active.path)
            self.sync_count += 1
            with self._state:
                active.commit()
                self._next.update(following)
                self._next_number += len(group)
            self._tail_dirty = False

    def _place(self, group: list[PendingFrame], active: ActiveFile) -> tuple[list[Buffer], dict[ShardId, Sequence]]:
        """Give every entry its sequence and every frame its place: the bytes, and each shard's next sequence after them."""
        following: dict[ShardId, Sequence] = {}
        pieces: list[Buffer] = []
        offset = active.end
        for number, pending in enumerate(group, self._next_number):
            pending.sequences = []
            for one in pending.encoded:
                sequence = following.get(one.shard) or self._next.get(one.shard, Sequence(1))
                following[one.shard] = Sequence(sequence + 1)
                pending.sequences.append(sequence)
            pieces += frame_pieces(
                pending.encoded,
                pending.sequences,
                salt=active.header.salt,
                number=number,
                offset=offset,
                committed=active.end,
            )
            offset += pending.size
        return pieces, following

    def _deliver(self, pending: PendingFrame) -> None:
        if not self._handlers or not pending.encoded:
            return
        if self._apply_failure is not None:
            raise self._apply_failure
        frame = [
            Delivered(one.shard, sequence, one.entry)
            for one, sequence in zip(pending.encoded, pending.sequences, strict=True)
        ]
        try:
            for handler in self._handlers:
                handler(frame)
        except BaseException as error:
            self._apply_failure = self._refusal = JadeError(
                ErrorCode.IO_ERROR,
                f"a change is durable, but applying it failed ({error!r}); open the database anew to apply it",
            )
            raise

    def subscribe(self, handler: Callable[[Frame], None]) -> None:
        """As `Log.subscribe`. The entries delivered are the objects given to `append`, arrays included, not copies."""
        with self._group.delivering:
            self._handlers = (*self._handlers, handler)

    # --- when the disk fails ------------------------------------------------------------------------------------------

    def _refuse_if_unusable(self) -> None:
        if self._refusal is not None:
            raise JadeError(self._refusal.code, self._refusal.message, details=self._refusal.details)

    def _clean_tail(self) -> None:
        """Take back what an append that failed, or was interrupted, left beyond the end."""
        if not self._tail_dirty:
            return
        try:
            self._active.undo()
        except OSError as error:
            self._refuse_from_now_on(error, self._active.path)
        self._tail_dirty = False

    def _refuse_from_now_on(self, error: OSError, path: Path) -> None:
        self._refusal = JadeError(
            ErrorCode.IO_ERROR,
            f"the disk failed while the log at {path} was made durable ({error.strerror}), so it is not known what of the "
            "last write is on it. Check the disk, then open the database anew",
            details={"path": str(path), "errno": error.errno},
        )
        raise JadeError(self._refusal.code, self._refusal.message, details=self._refusal.details) from error

    # --- files --------------------------------------------------------------------------------------------------------

    def _record(self, end: int) -> Committed:
        return Committed(self._first_file, self._active.header.first_frame, end)

    def _write_record_durably(self) -> None:
        try:
            self._committed_file.write(self._record(self._active.end))
            self._committed_file.sync()
        except OSError as error:
            raise disk_error(error, "write the log's committed record", self._committed_file.path) from error

    def _rotate(self) -> ActiveFile:
        """Close the active file and begin the next. On an error the active file stays what it was, or the log refuses."""
        old = self._active
        try:
            old.undo()  # gives back what was reserved: a closed file is as long as its successor says
        except OSError as error:
            self._refuse_from_now_on(error, old.path)
        try:
            new = ActiveFile.create(self.directory, self._next_number, self._next, old.part, self._file_bytes)
        except OSError as error:
            if (self.directory / file_name(self._next_number)).exists():
                self._refuse_from_now_on(error, self.directory)  # the old file must not grow once it has a successor
            raise disk_error(error, "begin a new log file", self.directory) from error
        with self._state:
            self._closed_parts = [*self._closed_parts, old.part]
            self._active = new
        os.close(old.fd)
        return new

    def _parts(self) -> list[Part]:
        """All files as far as they are durable at this moment."""
        with self._state:
            return self._parts_locked()

    def _parts_locked(self) -> list[Part]:
        return [*self._closed_parts, self._active.part]

    def truncate(self, up_to: dict[ShardId, Sequence]) -> None:
        """As `Log.truncate`: removes whole files, oldest first, in which every entry is at or below `up_to`.

        The active file is replaced by an empty one first when nothing in it is needed and it has grown beyond a small size.
        """
        with self._upkeep, Uninterrupted():
            with self._writing:
                self._refuse_if_unusable()
                self._clean_tail()
                if self._active.end >= self._rotate_bytes_min and _all_at_or_below(self._next, up_to):
                    self._rotate()
                parts = self._parts()
                count = _files_not_needed(parts, up_to)
                if count == 0:
                    return
                self._first_file = parts[count].header.first_frame
                self._write_record_durably()
                with self._state:
                    self._closed_parts = self._closed_parts[count:]
            try:
                for part in parts[:count]:
                    part.path.unlink(missing_ok=True)
                fsync_directory(self.directory)
            except OSError as error:
                raise disk_error(error, "remove old log files", self.directory) from error

    def copy_to(self, directory: Path) -> None:
        """A durable copy of the log up to its present end, in a folder that is empty or missing, ready to be opened.

        Closed files are hard links where the file system can. Appends go on meanwhile; truncation waits.
        Raises ALREADY_EXISTS when the folder holds something, DISK_FULL, READ_ONLY, IO_ERROR.
        """
        with self._upkeep:
            with self._writing:
                self._refuse_if_unusable()
                parts = self._parts()
            copy_log(parts, directory)

    def close(self) -> None:
        """Wait for appends under way, give back reserved space, make all durable. Again is fine; later calls raise CLOSED."""
        with Uninterrupted():
            with self._writing:
                if self._is_closing:
                    return
                self._is_closing = True
                failed = self._refusal
                self._refusal = JadeError(ErrorCode.CLOSED, "the log is closed; open the database again")
            self._wait_for_deliveries()
            with self._upkeep, self._writing:
                try:
                    if failed is None:
                        self._active.close()
                        self._committed_file.sync()
                    else:  # the disk failed before: leave the files for recovery to look at
                        os.close(self._active.fd)
                except OSError as error:
                    raise disk_error(error, "close the log", self._active.path) from error
                finally:
                    self._committed_file.close()

    def _wait_for_deliveries(self) -> None:
        """Return when every frame that was committed has been delivered; the log refuses new ones by now."""
        try:
            self._group.run(PendingFrame([]))
        except JadeError as error:  # it shared a group with frames that came too late and were refused
            if error.code is not ErrorCode.CLOSED:
                raise
        with self._group.delivering:  # a group committed before may still be on its way
            pass

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, from_frame_of: dict[ShardId, Sequence]) -> Iterator[Frame]:
        """As `Log.read`: the frames that are durable now; those appended later are not seen. One frame in memory at a time.

        A decoded entry's vectors are a view of the bytes read. Raises at once CLOSED, LOG_TRUNCATED, and CORRUPT when a
        sequence asked for lies beyond the log's end: whoever asks has seen entries that the log no longer has.
        """
        self._refuse_if_closed()
        with self._state:
            parts = self._parts_locked()
            following = dict(self._next)
        for shard, sequence in from_frame_of.items():
            first, end = parts[0].header.next_sequences.get(shard, 1), following.get(shard, 1)
            if sequence < first:
                raise JadeError(
                    ErrorCode.LOG_TRUNCATED,
                    f"entry {sequence} of shard {shard} was asked for, but the log begins at {first}; load a snapshot",
                    details={"shard": shard, "asked": sequence, "first": first},
                )
            if sequence > end:
                corrupt(
                    parts[-1].path,
                    parts[-1].end,
                    f"the log ends here with entry {end - 1} of shard {shard}, but entry {sequence - 1} was acknowledged",
                )
        return _read(parts, following, dict(from_frame_of))

    def _refuse_if_closed(self) -> None:
        if self._refusal is not None and self._refusal.code is ErrorCode.CLOSED:
            self._refuse_if_unusable()

    def first(self, shard: ShardId) -> Sequence:
        """As `Log.first`."""
        return self._parts()[0].header.next_sequences.get(shard, Sequence(1))

    def last(self, shard: ShardId) -> Sequence:
        """As `Log.last`."""
        return Sequence(self._next.get(shard, 1) - 1)

    def sequence_at(self, shard: ShardId, time: HybridTime) -> Sequence:
        """As `Log.sequence_at`; times need not ascend. Reads tables only, from the newest file back to the first with a hit."""
        self._refuse_if_closed()
        parts = self._parts()
        for part in reversed(parts):
            hits = [
                row.sequence for rows in read_tables(part) for row in rows if row.shard == shard and row.time <= time
            ]
            if hits:
                return hits[-1]
        return Sequence(parts[0].header.next_sequences.get(shard, 1) - 1)

    def bytes_on_disk(self) -> int:
        """Bytes the log's files take on the disk, space reserved ahead included."""
        total = 0
        for part in self._parts():
            try:
                total += part.path.stat().st_blocks * 512
            except FileNotFoundError:  # removed by a truncation since
                continue
        return total


def _read(parts: list[Part], following: dict[ShardId, Sequence], wanted: dict[ShardId, Sequence]) -> Iterator[Frame]:
    start = 0
    oldest = parts[0].header.next_sequences
    for index, part in enumerate(parts):
        begins = part.header.next_sequences
        if all(begins.get(s, 1) <= wanted.get(s, oldest.get(s, 1)) for s in following):
            start = index
    for part in parts[start:]:
        for found in read_frames(part, wanted):
            yield [Delivered(*one) for one in found]


def _all_at_or_below(following: dict[ShardId, Sequence], up_to: dict[ShardId, Sequence]) -> bool:
    return all(up_to.get(shard, 0) >= sequence - 1 for shard, sequence in following.items())


def _files_not_needed(parts: list[Part], up_to: dict[ShardId, Sequence]) -> int:
    """How many files, from the oldest on, hold nothing above `up_to`; never the last."""
    count = 0
    for part, after in pairwise(parts):
        begins, ends = part.header.next_sequences, after.header.next_sequences
        if any(up_to.get(shard, 0) < end - 1 for shard, end in ends.items() if end > begins.get(shard, 1)):
            break
        count += 1
    return count
