"""The folders of one replica on one node, through loading, replacing and restarts.

    NNNN-CCCCCC       shard NNNN, the C-th time it was loaded here. The one with the highest number is the replica.
    NNNN-CCCCCC.part  being loaded: not a replica until it is renamed

An older folder is kept until the newer one has proved itself (`drop_older`); so a replica that is being replaced never leaves the
node without the best that it had.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from pathlib import Path

from jadevectordb.model.disk_errors import disk_error
from jadevectordb.segment.builder import sync_folder

_NAME = re.compile(r"(\d{4})-(\d{6})(\.part)?")


class ReplicaFolders:
    """base: of the database, made when missing."""

    def __init__(self, base: Path, shard: int) -> None:
        self._base = base
        self._shard = shard

    def _found(self) -> dict[int, Path]:
        """Complete folders by number."""
        return {number: path for number, path, part in _replicas(self._base, self._shard) if not part}

    @property
    def current(self) -> Path | None:
        found = self._found()
        return found[max(found)] if found else None

    @property
    def older(self) -> list[Path]:
        return [path for _, path in sorted(self._found().items())[:-1]]

    def part(self) -> Path:
        """Where the next one is to be loaded: begun anew, or what an earlier attempt left. Raises DISK_FULL and its like."""
        found = _replicas(self._base, self._shard)
        number = max((number for number, _, part in found if not part), default=0) + 1
        path = self._base / f"{self._shard:04}-{number:06}.part"
        for _, other, part in found:
            if part and other != path:
                shutil.rmtree(other, ignore_errors=True)
        try:
            path.mkdir(parents=True, exist_ok=True)
            sync_folder(self._base.parent)
        except OSError as error:
            raise disk_error(error, "load a replica", path) from error
        return path

    def install(self, part: Path) -> Path:
        """Make the loaded folder the replica. Durable on return.

        Of the folders before it the oldest is kept: those between were replaced before they were complete.
        """
        path = part.with_suffix("")
        older = [path for _, path in sorted(self._found().items())]
        try:
            sync_folder(part)
            part.rename(path)
            sync_folder(self._base)
        except OSError as error:
            raise disk_error(error, "install a replica", path) from error
        for between in older[1:]:
            shutil.rmtree(between, ignore_errors=True)
        return path

    def drop_older(self) -> None:
        """The current folder has everything: what was kept beside it goes."""
        current = self.current
        for _, path, _part in _replicas(self._base, self._shard):
            if path != current:
                shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of it, and the database's folder with its last replica."""
        for _, path, _part in _replicas(self._base, self._shard):
            shutil.rmtree(path, ignore_errors=True)
        with contextlib.suppress(OSError):  # replicas of other shards are in it
            self._base.rmdir()


def replicas_in(folder: Path) -> set[tuple[str, int]]:
    """(database id, shard) of every replica that has left a folder here, complete or not."""
    if not folder.is_dir():
        return set()
    found = set()
    for base in folder.iterdir():
        if base.is_dir():
            found |= {(base.name, int(match[1])) for name in os.listdir(base) if (match := _NAME.fullmatch(name))}
    return found


def _replicas(base: Path, shard: int) -> list[tuple[int, Path, bool]]:
    """(number, folder, whether it is being loaded)"""
    if not base.is_dir():
        return []
    matches = [(match, base / name) for name in os.listdir(base) if (match := _NAME.fullmatch(name))]
    return [(int(match[2]), path, bool(match[3])) for match, path in matches if int(match[1]) == shard]
