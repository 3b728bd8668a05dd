"""What nodes keep their data on, and how it goes bad: it stands still, is slow, is full.

Where root may mount a file as a disk, each node has a small file system of its own. Freezing it makes every write and sync wait,
as a disk does whose controller hangs; freezing it again and again for moments makes a slow one; filling it makes writes fail.
Elsewhere nodes have folders on the machine's disk, which stays as it is: the report says so.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import Protocol

SIZE_MB = 768
_BALLAST = "ballast"
_SLOW_FROZEN_S, _SLOW_THAWED_S = 0.12, 0.08


class Disk(Protocol):
    folder: Path

    def freeze(self) -> None: ...

    def thaw(self) -> None: ...

    def fill(self) -> None:
        """Leave no space."""
        ...

    def empty(self) -> None: ...

    def close(self) -> None: ...


class Folder:
    """On the machine's disk; can't go bad."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def freeze(self) -> None:
        raise AssertionError("this disk can't be frozen")

    thaw = fill = empty = freeze

    def close(self) -> None:
        pass


class Mounted:
    """A file system in a file."""

    def __init__(self, folder: Path, size_mb: int = SIZE_MB) -> None:
        """Raises OSError, CalledProcessError."""
        self.folder = folder
        self._image = folder.with_suffix(".disk")
        folder.mkdir(parents=True)
        with self._image.open("wb") as image:
            image.truncate(size_mb << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        _run("mount", "-o", "loop", str(self._image), str(folder))
        self._frozen = 0
        self._lock = threading.Lock()

    def freeze(self) -> None:
        with self._lock:
            self._frozen += 1
            if self._frozen == 1:
                _run("fsfreeze", "--freeze", str(self.folder))

    def thaw(self) -> None:
        with self._lock:
            self._frozen -= 1
            if self._frozen == 0:
                _run("fsfreeze", "--unfreeze", str(self.folder))

    def fill(self) -> None:
        ballast = self.folder / _BALLAST
        left = os.statvfs(self.folder)
        with contextlib.suppress(OSError), ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, left.f_bavail * left.f_frsize - (1 << 16))
        with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    def empty(self) -> None:
        (self.folder / _BALLAST).unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            if self._frozen:
                self._frozen = 0
                _run("fsfreeze", "--unfreeze", str(self.folder))
        subprocess.run(["umount", "--lazy", str(self.folder)], capture_output=True, timeout=30, check=False)


class Slow:
    """Makes a disk slow until it is closed."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow-disk")
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            self._disk.freeze()
            try:
                self._over.wait(_SLOW_FROZEN_S)
            finally:
                self._disk.thaw()
            self._over.wait(_SLOW_THAWED_S)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


def make_disks(folders: list[Path]) -> tuple[list[Disk], str]:
    """A disk for each, and why they can't go bad ("" = they can)."""
    why = _why_not()
    if why:
        return [Folder(folder) for folder in folders], why
    made: list[Disk] = []
    try:
        for folder in folders:
            made.append(Mounted(folder))
    except (OSError, subprocess.CalledProcessError) as error:
        for disk in made:
            disk.close()
        said = getattr(error, "stderr", "") or str(error)
        return [Folder(folder) for folder in folders], f"no file system can be mounted here: {said.strip()}"
    return made, ""


def _why_not() -> str:
    if os.geteuid() != 0:
        return "mounting file systems needs root"
    missing = [tool for tool in ("mkfs.ext4", "mount", "umount", "fsfreeze") if shutil.which(tool) is None]
    return f"there is no {', '.join(missing)} here" if missing else ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
