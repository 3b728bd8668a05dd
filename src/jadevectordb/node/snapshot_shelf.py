"""Snapshots of replicas that this node holds ready for other nodes to copy: hard links, made in milliseconds.

A snapshot takes no space of its own at first, but keeps files that the replica has replaced meanwhile. So there are few at once, and
one that nobody reads any more is removed.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import SNAPSHOT_IDLE_S_MAX, SNAPSHOT_READ_BYTES, SNAPSHOTS_OFFERED_MAX
from jadevectordb.node.open_database import OpenDatabase
from jadevectordb.node.snapshot import copy_database
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.node_calls import SnapshotOffer
from jadevectordb.segment import manifest as manifests
from jadevectordb.segment.manifest import MANIFEST_NAME, Manifest
from jadevectordb.shard.checkpoint import CHECKPOINT_NAME, read_checkpoint


@dataclass(slots=True)
class _Kept:
    folder: Path
    files: frozenset[str]
    read_s: float  # when it was last read, by the clock


class SnapshotShelf:
    """folder: its own; what an earlier process left there is removed. Every method may be called from any thread."""

    def __init__(self, folder: Path, clock: Clock, unique: Callable[[], str]) -> None:
        self._folder = folder
        self._clock = clock
        self._unique = unique
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        shutil.rmtree(folder, ignore_errors=True)

    def begin(self, database: OpenDatabase) -> SnapshotOffer:
        """Make one of a replica. Raises UNAVAILABLE when there are too many, DISK_FULL and its like, CORRUPT."""
        self.sweep()
        name = self._unique()
        folder = self._folder / name
        with self._lock:
            if len(self._kept) >= SNAPSHOTS_OFFERED_MAX:
                raise JadeError(
                    ErrorCode.UNAVAILABLE,
                    f"{len(self._kept)} snapshots are being copied from this node already; retry later, or ask another one.",
                )
            self._kept[name] = _Kept(folder, frozenset(), self._clock.monotonic_s())
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            copy_database(database, folder)
            files = _files_of(folder)
            applied = read_checkpoint(folder / database.replicas[0].directory.name).applied
        except BaseException as error:
            self.end(name)
            if isinstance(error, OSError):
                raise disk_error(error, "make a snapshot", folder) from error
            raise
        with self._lock:
            self._kept[name] = _Kept(folder, frozenset(path for path, _, _ in files), self._clock.monotonic_s())
        return SnapshotOffer(snapshot=name, applied=applied, files=files)

    def read(self, snapshot: str, path: str, offset: int, length: int) -> bytes:
        """Raises NOT_FOUND for one that was removed, or a file that is not in it."""
        with self._lock:
            kept = self._kept.get(snapshot)
            if kept is None or path not in kept.files or offset < 0:
                raise _gone(snapshot)
            kept.read_s = self._clock.monotonic_s()
        try:
            with (kept.folder / path).open("rb", buffering=0) as file:
                return os.pread(file.fileno(), max(0, min(length, SNAPSHOT_READ_BYTES)), offset)
        except FileNotFoundError:
            raise _gone(snapshot) from None
        except OSError as error:
            raise disk_error(error, "read a snapshot", kept.folder / path) from error

    def end(self, snapshot: str) -> None:
        """Again is fine."""
        with self._lock:
            kept = self._kept.pop(snapshot, None)
        if kept is not None:
            shutil.rmtree(kept.folder, ignore_errors=True)

    def sweep(self) -> None:
        """Remove those that nobody reads any more."""
        now_s = self._clock.monotonic_s()
        with self._lock:
            idle = [name for name, kept in self._kept.items() if now_s - kept.read_s > SNAPSHOT_IDLE_S_MAX]
        for name in idle:
            self.end(name)

    def close(self) -> None:
        with self._lock:
            names = list(self._kept)
        for name in names:
            self.end(name)


def _files_of(folder: Path) -> list[tuple[str, int, str]]:
    """(path, bytes, xxh3-64) of every file of a copied database.

    Of a segment's files the manifest says them, so that damage on this node's disk is found by who copies.
    """
    files: list[tuple[str, int, str]] = []
    for shard in sorted(path for path in folder.iterdir() if path.is_dir()):
        checkpoint = shard / CHECKPOINT_NAME
        if checkpoint.exists():
            files.append(_measured(folder, checkpoint))
        for segment in sorted(path for path in shard.iterdir() if path.is_dir()):
            manifest = manifests.read_sealed_bytes(segment / MANIFEST_NAME, Manifest)
            files.append(_measured(folder, segment / MANIFEST_NAME))
            files += [
                (str((segment / name).relative_to(folder)), entry.size, entry.xxh3)
                for name, entry in manifest.files.items()
            ]
    return files


def _measured(folder: Path, path: Path) -> tuple[str, int, str]:
    entry = manifests.checksum_of(path)
    return str(path.relative_to(folder)), entry.size, entry.xxh3


def _gone(snapshot: str) -> JadeError:
    return JadeError(
        ErrorCode.NOT_FOUND, f"There is no snapshot {snapshot!r} here, or no such file in it: begin a new one."
    )
