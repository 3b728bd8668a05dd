"""The page that processes share: another process sees each number at once, and a text whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from jadevectordb.adapters.shared_page import SharedPage

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")
_CHILD = """
import sys
from jadevectordb.adapters.shared_page import SharedPage
page = SharedPage.attach(int(sys.argv[1]), int(sys.argv[2]))
for line in sys.stdin:
    print(page.get(int(line)), page.text()[1].decode(), flush=True)
"""


def test_another_process_sees_what_was_set() -> None:
    page = SharedPage.create(100)
    page.set_text(b"nothing")
    fds = tuple(map(os.dup, page.fds))
    child = subprocess.Popen(
        [sys.executable, "-P", "-c", _CHILD, *map(str, fds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=fds,
    )
    for fd in fds:
        os.close(fd)
    assert child.stdin is not None and child.stdout is not None
    for value in range(1, 200):
        page.set(value % 100, value << 40)
        page.set_text(b"x" * value)
        child.stdin.write(f"{value % 100}\n")
        child.stdin.flush()
        assert child.stdout.readline().split() == [str(value << 40), "x" * value]
    page.set(7, 5)
    page.add(7, 3)
    assert page.get(7) == 8 and page.get(8) == 108 << 40
    child.stdin.close()
    assert child.wait() == 0
    child.stdout.close()
    page.close()


def test_a_text_is_seen_whole_or_not_at_all() -> None:
    page = SharedPage.create(1)
    seen = SharedPage.attach(*map(os.dup, page.fds))
    page.set_text(b"a" * 10)
    done = threading.Event()
    first = threading.Event()
    found: set[int] = set()

    def look() -> None:
        while not done.is_set():
            text = seen.text()
            if text is not None:
                number, value = text
                assert number % 2 == 0
                assert len(set(value)) == 1 and len(value) % 10 == 0
                found.add(number)
                first.set()

    thread = threading.Thread(target=look)
    thread.start()
    assert first.wait(60)
    for n in range(3000):
        page.set_text(bytes([97 + n % 26]) * (10 * (1 + n * 7919 % 4000)))
    done.set()
    thread.join()
    assert found
    text = seen.text()
    assert text is not None and text[0] == page.text_number
    seen.close()
    page.close()
