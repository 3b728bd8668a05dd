"""A few numbers and one text that a process shows to others on the same machine: memory they share, without a file on any disk.

Two anonymous files in memory, handed to a child by their descriptors; they are gone with the last process that has them. One
holds numbers of 64 bits, each written and read in one piece. The other holds the text: its number is odd while it is replaced, and
length and hash stand beside, so that a reader takes the whole old or the whole new one, or sees that it can't.

One process writes (`SharedPage.create`), the others read (`SharedPage.attach`). Linux.
"""

from __future__ import annotations

import mmap
import os
import threading

import xxhash

_MAGIC = 0x4A61646550616765
_TEXT_NUMBER, _TEXT_LENGTH, _TEXT_HASH = 1, 2, 3
_FIRST = 8  # number of the caller


class SharedPage:
    """numbers: how many the caller has, all 0 at first."""

    def __init__(self, numbers_fd: int, text_fd: int, *, writable: bool) -> None:
        """The descriptors are owned from now on."""
        self.fds = (numbers_fd, text_fd)
        size = os.fstat(numbers_fd).st_size
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        self._map = mmap.mmap(numbers_fd, size, access=access)
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        self._lock = threading.Lock()

    @classmethod
    def create(cls, numbers: int) -> SharedPage:
        fds = [os.memfd_create(name, os.MFD_CLOEXEC) for name in ("jade-numbers", "jade-text")]
        os.ftruncate(fds[0], (_FIRST + numbers) * 8)
        page = cls(*fds, writable=True)
        page._words[0] = _MAGIC
        return page

    @classmethod
    def attach(cls, numbers_fd: int, text_fd: int) -> SharedPage:
        """Of another process, to read."""
        page = cls(numbers_fd, text_fd, writable=False)
        assert page._words[0] == _MAGIC, "not a shared page"
        return page

    # Numbers

    def get(self, place: int) -> int:
        return self._words[_FIRST + place]

    def set(self, place: int, value: int) -> None:
        self._words[_FIRST + place] = value

    def add(self, place: int, value: int = 1) -> None:
        """Add to a number that only this process changes."""
        with self._lock:
            self._words[_FIRST + place] += value

    # The text

    @property
    def text_number(self) -> int:
        """Changes whenever the text does."""
        return self._words[_TEXT_NUMBER]

    def set_text(self, text: bytes) -> None:
        with self._lock:
            words = self._words
            words[_TEXT_NUMBER] += 1
            done = 0
            while done < len(text):
                done += os.pwrite(self.fds[1], text[done:] if done else text, done)
            words[_TEXT_LENGTH], words[_TEXT_HASH] = len(text), xxhash.xxh3_64_intdigest(text)
            words[_TEXT_NUMBER] += 1

    def text(self) -> tuple[int, bytes] | None:
        """The text and its number; None while it is being replaced."""
        words = self._words
        number = words[_TEXT_NUMBER]
        if number % 2:
            return None
        length, hash_ = words[_TEXT_LENGTH], words[_TEXT_HASH]
        text = os.pread(self.fds[1], length, 0)
        if words[_TEXT_NUMBER] != number or xxhash.xxh3_64_intdigest(text) != hash_:
            return None
        return number, text

    def close(self) -> None:
        self._words.release()
        self._bytes.release()
        self._map.close()
        for fd in self.fds:
            os.close(fd)
