"""Copies a snapshot of a shard from another node into a folder: several reads on their way, each file checked and durable.

What an earlier attempt left in the folder and is as it should be is not copied again. A file whose bytes differ from the
checksum that the other node announced is damaged there or was on its way: the copy is refused, never installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence
from jadevectordb.model.limits import SNAPSHOT_FILES_MAX, SNAPSHOT_READ_BYTES, SNAPSHOT_READS
from jadevectordb.ports.node_calls import SnapshotBegin, SnapshotEnd, SnapshotOffer, SnapshotRead
from jadevectordb.ports.transport import Transport
from jadevectordb.segment.builder import sync_folder
from jadevectordb.segment.manifest import FileEntry, checksum_of

_BEGIN_S = 20.0
_READ_S = 15.0
_END_S = 5.0


def copy_snapshot(
    transport: Transport,
    address: str,
    database: str,
    shard: int,
    target: Path,
    *,
    applied_min: int,
    check_wanted: Callable[[], None],
) -> Sequence:
    """Make `target`, an existing folder, a copy of the shard as the node at `address` holds it; the entry it is the state after.

    applied_min: an older one is of no use. check_wanted: called between reads; what it raises ends the copy.
    Raises UNAVAILABLE, TIMEOUT, STALE_MAP (the node does not hold the shard), CORRUPT (a file arrived damaged), DISK_FULL and its like.
    """
    offer = transport.call(address, SnapshotBegin(database=database, shard=shard), _BEGIN_S)
    assert isinstance(offer, SnapshotOffer)
    try:
        if offer.applied < applied_min:
            raise not_far_enough(address, offer, applied_min)
        _Copy(transport, address, offer, target, check_wanted).run()
    except OSError as error:
        raise disk_error(error, "copy a snapshot", target) from error
    finally:
        with suppress(JadeError):  # the other node removes it by itself after a while
            transport.call(address, SnapshotEnd(snapshot=offer.snapshot), _END_S)
    return Sequence(offer.applied)


def not_far_enough(address: str, offer: SnapshotOffer, applied_min: int) -> JadeError:
    """details["in_memory"]: the other node has applied what is needed, and would offer it once it has written it to files."""
    return JadeError(
        ErrorCode.UNAVAILABLE,
        f"The snapshot of {address} reaches entry {offer.applied}, {applied_min} is needed; retry when it has written more.",
        details={"in_memory": offer.watermark >= applied_min},
    )


class _Copy:
    def __init__(
        self, transport: Transport, address: str, offer: SnapshotOffer, target: Path, check_wanted: Callable[[], None]
    ) -> None:
        self._transport = transport
        self._address = address
        self._offer = offer
        self._target = target
        self._check_wanted = check_wanted
        _check_paths(offer)

    def run(self) -> None:
        _remove_others(self._target, {path for path, _, _ in self._offer.files})
        with ThreadPoolExecutor(SNAPSHOT_READS, "jade-snapshot") as readers:
            for path, size, xxh3 in self._offer.files:
                wanted = FileEntry(size, xxh3)
                file = self._target / path
                if file.is_file() and file.stat().st_size == size and checksum_of(file) == wanted:
                    continue
                file.parent.mkdir(parents=True, exist_ok=True)
                self._copy_file(readers, path, wanted)
        for folder, _, _ in os.walk(self._target, topdown=False):
            sync_folder(Path(folder))

    def _copy_file(self, readers: ThreadPoolExecutor, path: str, wanted: FileEntry) -> None:
        file = self._target / path
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            waiting: list[Future[None]] = []
            try:
                for offset in range(0, wanted.size, SNAPSHOT_READ_BYTES):
                    length = min(SNAPSHOT_READ_BYTES, wanted.size - offset)
                    waiting.append(readers.submit(self._copy_piece, descriptor, path, offset, length))
                    if len(waiting) > SNAPSHOT_READS:
                        waiting.pop(0).result()
                while waiting:
                    waiting.pop(0).result()
            finally:  # the descriptor must outlive what still writes to it
                for future in waiting:
                    if not future.cancel():
                        future.exception()
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if checksum_of(file) != wanted:
            file.unlink()
            raise JadeError(
                ErrorCode.CORRUPT,
                f"{path} of the snapshot from {self._address} does not match its checksum: it is damaged there, or was on its way.",
                details={"path": path, "peer": self._address},
            )

    def _copy_piece(self, descriptor: int, path: str, offset: int, length: int) -> None:
        self._check_wanted()
        call = SnapshotRead(snapshot=self._offer.snapshot, path=path, offset=offset, length=length)
        data = self._transport.call(self._address, call, _READ_S)
        if len(data) != length:
            raise JadeError(
                ErrorCode.CORRUPT,
                f"{path} of the snapshot from {self._address} ends after {offset + len(data)} bytes.",
                details={"path": path, "peer": self._address},
            )
        if os.pwrite(descriptor, data, offset) != length:
            raise OSError(28, "the disk took part of what was written")


def _check_paths(offer: SnapshotOffer) -> None:
    """What another node names as a file must stay inside the folder."""
    if len(offer.files) > SNAPSHOT_FILES_MAX:
        raise JadeError(ErrorCode.CORRUPT, f"A snapshot of {len(offer.files)} files was offered, which none can have.")
    for path, size, _ in offer.files:
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path or size < 0:
            raise JadeError(ErrorCode.CORRUPT, f"The snapshot that was offered names a file {path!r:.200}.")


def _remove_others(target: Path, wanted: set[str]) -> None:
    """What an earlier attempt copied from another snapshot."""
    for folder, names, files in os.walk(target, topdown=False):
        for name in files:
            path = Path(folder) / name
            if path.relative_to(target).as_posix() not in wanted:
                path.unlink()
        for name in names:
            path = Path(folder) / name
            if path.is_symlink():
                path.unlink()
            elif not any(path.iterdir()):
                shutil.rmtree(path)
