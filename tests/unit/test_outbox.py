"""Writes at EVENTUAL: kept through a kill, published in order and as they were taken, bounded, forgotten when they are published."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Sequence as Seq
from pathlib import Path

import numpy as np
import pytest

from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.operations import Entry, Write
from jadevectordb.query.barriers import Barriers
from jadevectordb.query.outbox import Outbox

WAIT_S = 60.0


class Published:
    """The other end: takes everything while it is `open`, else refuses with `error`. tried: what came, taken or not."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.frames: list[list[str]] = []
        self.tried: list[list[str]] = []
        self.never = ""  # takes nothing that has this in it
        self.error: JadeError | None = None if is_open else JadeError(ErrorCode.UNAVAILABLE, "no majority")

    def __call__(self, entries: Seq[tuple[int, Entry]]) -> None:
        names = [entry.request_id for _, entry in entries]
        self.tried.append(names)
        if self.error is not None:
            raise self.error
        if self.never in names:
            raise JadeError(ErrorCode.REQUEST_TOO_LARGE, "this one is too large")
        self.frames.append(names)


def entry(name: str, size: int = 4) -> Entry:
    return Entry(Write([name], np.zeros((1, size), np.float32), [b"{}"]), 1 << 16, request_id=name)


def opened(folder: Path, publish: Published, **options: int) -> Outbox:
    return Outbox(LocalLog(folder, rotate_bytes_min=1), 2, publish, SystemClock(), **options)


def test_frames_are_published_whole_and_in_order(tmp_path: Path) -> None:
    published = Published()
    outbox = opened(tmp_path / "o", published)
    for n in range(100):
        outbox.append([(0, entry(f"a{n}")), (1, entry(f"b{n}"))])
    assert outbox.wait_published(WAIT_S)
    assert [name for frame in published.frames for name in frame] == [f"{s}{n}" for n in range(100) for s in "ab"]
    assert all(frame[0][0] == "a" and frame[-1][0] == "b" for frame in published.frames)
    figures = outbox.figures()
    assert (figures.entries, figures.bytes, figures.lag_s, figures.published) == (0, 0, 0.0, 200)
    outbox.close()


def test_small_frames_that_wait_are_published_together_and_again_as_they_were(tmp_path: Path) -> None:
    published = Published(is_open=False)
    outbox = opened(tmp_path / "o", published)
    outbox.append([(0, entry("first"))])
    while not published.tried:
        pass
    names = [f"a{n}" for n in range(300)]
    for name in names:
        outbox.append([(0, entry(name))])
    published.error = None
    assert outbox.wait_published(WAIT_S)
    assert published.frames == [["first"], names[:256], names[256:]]
    assert all(tried == ["first"] for tried in published.tried[:-2])
    outbox.close()


def test_large_frames_go_alone(tmp_path: Path) -> None:
    published = Published(is_open=False)
    outbox = opened(tmp_path / "o", published)
    for n in range(6):
        outbox.append([(0, entry(f"a{n}", 100_000))])
    published.error = None
    assert outbox.wait_published(WAIT_S)
    assert [name for frame in published.frames for name in frame] == [f"a{n}" for n in range(6)]
    assert len(max(published.frames, key=len)) == 2
    outbox.close()


def test_one_that_is_never_taken_takes_no_other_with_it(tmp_path: Path) -> None:
    published = Published(is_open=False)
    published.never = "a5"
    outbox = opened(tmp_path / "o", published)
    outbox.append([(0, entry("first"))])
    while not published.tried:
        pass
    for n in range(10):
        outbox.append([(n % 2, entry(f"a{n}"))])
    published.error = None
    assert outbox.wait_published(WAIT_S)
    assert published.frames == [["first"], *([f"a{n}"] for n in range(10) if n != 5)]
    assert (outbox.figures().refused, outbox.figures().published) == (1, 10)
    outbox.close()


def test_what_a_kill_left_is_published_by_the_next_start_once(tmp_path: Path) -> None:
    folder = tmp_path / "o"
    program = Path(__file__).parents[1] / "outbox_process.py"
    child = subprocess.Popen([sys.executable, str(program), str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    acknowledged = [int(child.stdout.readline()) for _ in range(60)]
    child.kill()
    acknowledged += [int(line) for line in child.stdout.read().split()]
    child.wait()
    child.stdout.close()
    published = Published()
    outbox = opened(folder, published)
    assert outbox.wait_published(WAIT_S)
    assert all(len(frame) == 1 for frame in published.frames)  # as the one that was killed may have published them
    names = [name for frame in published.frames for name in frame]
    assert names[: len(acknowledged)] == [f"r{n}" for n in acknowledged] and len(names) <= len(acknowledged) + 1
    outbox.close()


def test_published_writes_are_forgotten(tmp_path: Path) -> None:
    published = Published()
    outbox = opened(tmp_path / "o", published)
    for n in range(64 * 3):
        outbox.append([(n % 2, entry(f"a{n}"))])
    assert outbox.wait_published(WAIT_S)
    outbox.close()
    again = Published()
    outbox = opened(tmp_path / "o", again)
    assert outbox.wait_published(WAIT_S)
    assert len(again.frames) < 64  # what was published after the log was cut last
    outbox.close()


def test_too_much_waiting_is_refused_and_said(tmp_path: Path) -> None:
    published = Published(is_open=False)
    outbox = opened(tmp_path / "o", published, bytes_max=10_000)
    with pytest.raises(JadeError) as full:
        for n in range(100):
            outbox.append([(0, entry(f"a{n}", 256))])
    assert full.value.code is ErrorCode.UNAVAILABLE and full.value.retryable
    figures = outbox.figures()
    assert 0 < figures.bytes <= 10_000 and figures.lag_s > 0
    published.error = None
    assert outbox.wait_published(WAIT_S)
    outbox.append([(0, entry("more", 256))])
    assert outbox.wait_published(WAIT_S) and published.frames[-1] == ["more"]
    outbox.close()


def test_what_will_never_be_taken_is_dropped_and_counted(tmp_path: Path) -> None:
    published = Published(is_open=False)
    published.error = JadeError(ErrorCode.NOT_FOUND, "the database was dropped")
    outbox = opened(tmp_path / "o", published)
    outbox.append([(0, entry("a")), (1, entry("b"))])
    assert outbox.wait_published(WAIT_S)
    assert outbox.figures().refused == 2
    outbox.close()


def test_a_closed_outbox_takes_nothing(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o", Published())
    outbox.close()
    outbox.close()
    with pytest.raises(JadeError) as closed:
        outbox.append([(0, entry("a"))])
    assert closed.value.code is ErrorCode.CLOSED


def test_a_barrier_is_shared_by_those_who_wait_and_never_older_than_the_read() -> None:
    appended: list[list[int]] = []
    under_way, go_on = threading.Semaphore(0), threading.Semaphore(0)

    def append(shards: Seq[int]) -> dict[int, int]:
        appended.append(list(shards))
        number = len(appended)
        under_way.release()
        assert go_on.acquire(timeout=WAIT_S)
        return dict.fromkeys(shards, number)

    barriers = Barriers(append)
    results: dict[int, dict[int, int]] = {}

    def read(reader: int, shards: list[int]) -> None:
        results[reader] = barriers.sequences(shards, WAIT_S)

    first = threading.Thread(target=read, args=(0, [0]))
    first.start()
    assert under_way.acquire(timeout=WAIT_S)
    later = [threading.Thread(target=read, args=(n, [n % 3])) for n in range(1, 20)]
    for thread in later:
        thread.start()
    go_on.release(1000)
    for thread in (first, *later):
        thread.join()
    assert results[0] == {0: 1} and all(min(found.values()) >= 2 for n, found in results.items() if n)
    assert len(appended) < 20


def test_a_barrier_that_fails_fails_for_all_who_share_it() -> None:
    def append(shards: Seq[int]) -> dict[int, int]:
        raise JadeError(ErrorCode.UNAVAILABLE, "no majority", details={"undecided": True})

    barriers = Barriers(append)
    for _ in range(2):
        with pytest.raises(JadeError) as failed:
            barriers.sequences([0, 1], WAIT_S)
        assert failed.value.code is ErrorCode.UNAVAILABLE
