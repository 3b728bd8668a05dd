"""Reading a log that somebody else writes: only what is committed, in order, over the ends of files, and never a change to the folder."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest

from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.local_log_active import COMMITTED_NAME
from jadevectordb.adapters.local_log_follow import LogFollower
from jadevectordb.log.entry import encode
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.operations import Barrier, Entry, Write

FIRST = {ShardId(0): Sequence(1), ShardId(1): Sequence(1)}


def write(n: int) -> tuple[ShardId, Entry]:
    vectors = np.full((3, 8), n, np.float32)
    return ShardId(n % 2), Entry(Write([f"{n}-{i}" for i in range(3)], vectors, [b"{}"] * 3), n)


def taken(follower: LogFollower) -> list[bytes]:
    return [encode(one.entry) for frame in follower.read() for one in frame]


def files(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


@pytest.mark.parametrize("file_bytes", [1024, 64 << 20])
def test_every_entry_comes_once_as_soon_as_it_is_acknowledged(tmp_path: Path, file_bytes: int) -> None:
    log = LocalLog(tmp_path, file_bytes=file_bytes)
    follower = LogFollower(tmp_path, FIRST)
    assert taken(follower) == []
    for n in range(60):
        log.append([write(n), (ShardId(1), Entry(Barrier(), n))])
        assert follower.unread_bytes > 0
        assert len(taken(follower)) == 2
        assert taken(follower) == []
    before = files(tmp_path)
    late = LogFollower(tmp_path, FIRST)
    assert len(taken(late)) == 120
    assert files(tmp_path) == before
    follower.close()
    late.close()
    log.close()


def test_it_begins_where_it_is_told_and_goes_on_where_it_was_left(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1024)
    for n in range(40):
        log.append([write(n)])
    follower = LogFollower(tmp_path, {ShardId(0): Sequence(15), ShardId(1): Sequence(18)})
    seen = []
    while True:
        frame = next(iter(follower.read()), None)  # left after one frame
        if frame is None:
            break
        seen += [(one.shard, one.sequence) for one in frame]
    assert [s for shard, s in seen if shard == 0] == list(range(15, 21))
    assert [s for shard, s in seen if shard == 1] == list(range(18, 21))
    follower.close()
    log.close()


def test_what_was_removed_in_between_is_said(tmp_path: Path) -> None:
    log = LocalLog(tmp_path, file_bytes=1024, rotate_bytes_min=256)
    log.append([write(0)])
    follower, idle = LogFollower(tmp_path, FIRST), LogFollower(tmp_path, FIRST)
    for n in range(1, 40):
        log.append([write(n)])
    assert len(taken(follower)) == 40
    log.truncate({ShardId(0): Sequence(20), ShardId(1): Sequence(20)})
    assert taken(follower) == []
    log.append([write(40)])
    assert len(taken(follower)) == 1  # it had read all that was removed
    with pytest.raises(JadeError) as refused:
        taken(idle)
    assert refused.value.code is ErrorCode.LOG_TRUNCATED
    with pytest.raises(JadeError) as refused:
        LogFollower(tmp_path, FIRST)
    assert refused.value.code is ErrorCode.LOG_TRUNCATED
    again = LogFollower(tmp_path, {ShardId(0): Sequence(21), ShardId(1): Sequence(21)})
    assert len(taken(again)) == 1
    for one in (follower, idle, again):
        one.close()
    log.close()


def test_bytes_beyond_the_committed_end_are_not_seen(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    log.append([write(0)])
    record = (tmp_path / COMMITTED_NAME).read_bytes()
    log.append([write(1)])
    log.close()
    (tmp_path / COMMITTED_NAME).write_bytes(record)  # as it is while the second write is under way
    follower = LogFollower(tmp_path, FIRST)
    assert len(taken(follower)) == 1
    assert taken(follower) == []
    follower.close()


def test_a_damaged_frame_is_named(tmp_path: Path) -> None:
    log = LocalLog(tmp_path)
    log.append([write(0)])
    log.close()
    (path,) = tmp_path.glob("*.log")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    follower = LogFollower(tmp_path, FIRST)
    with pytest.raises(JadeError) as refused:
        taken(follower)
    assert refused.value.code is ErrorCode.CORRUPT and str(path) in refused.value.message
    follower.close()


def test_while_many_write(tmp_path: Path) -> None:
    """Frames are whole and in order whatever is being written at the moment of a look."""
    log = LocalLog(tmp_path, file_bytes=8192)
    done = threading.Event()

    def append() -> None:
        for n in range(150):
            log.append([write(0), write(1), (ShardId(1), Entry(Barrier(), n))])

    writers = [threading.Thread(target=append) for _ in range(4)]
    seen: dict[int, int] = {0: 0, 1: 0}

    def look() -> None:
        follower = LogFollower(tmp_path, FIRST)
        while True:
            last = done.is_set()
            for frame in follower.read():
                assert len(frame) == 3
                for one in frame:
                    assert one.sequence == seen[one.shard] + 1
                    seen[one.shard] = one.sequence
            if last:
                break
        follower.close()

    reader = threading.Thread(target=look)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert seen == {0: 600, 1: 1200}
    log.close()
