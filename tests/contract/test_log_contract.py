"""What every adapter of the log port must do, as one suite. A new adapter adds a line to `ADAPTERS` and passes it.

`local_log` marks what the log of one node promises beyond the others: a frame over several shards.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.nats_cluster import NatsCluster
from tests.sim_adapters import Driver, driver, open_log

from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.local_log import LocalLog
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.log.entry import encode
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.operations import Barrier, Delete, Entry, Seal, Write
from jadevectordb.ports.log import Frame, Log

Opener = Callable[[Path], Log]

LOCAL: dict[str, Opener] = {
    "local": LocalLog,
    "local, a file for every few frames": lambda path: LocalLog(path, file_bytes=2000, rotate_bytes_min=1),
}
ADAPTERS = [*LOCAL, "jetstream", "sim"]
SHARDS = range(10)


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsConnection]:
    with NatsCluster(tmp_path_factory.mktemp("nats")) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        yield connection
        connection.close()


@pytest.fixture
def sim() -> Iterator[Driver]:
    with driver() as made:
        yield made


@pytest.fixture(params=ADAPTERS)
def opener(request: pytest.FixtureRequest) -> Opener:
    if request.param in LOCAL:
        return LOCAL[request.param]
    if request.param == "sim":
        made: Driver = request.getfixturevalue("sim")
        return lambda path: open_log(made, path, SHARDS)
    connection: NatsConnection = request.getfixturevalue("connection")

    def open_streams(path: Path) -> Log:
        log = JetStreamLog(connection, "tests", hashlib.md5(str(path).encode()).hexdigest(), replicas=1)
        log.ensure_streams(SHARDS)
        return log

    return open_streams


@pytest.fixture
def log(opener: Opener, tmp_path: Path) -> Iterator[Log]:
    log = opener(tmp_path / "log")
    yield log
    log.close()


@pytest.fixture(params=LOCAL)
def local_log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    log = LOCAL[request.param](tmp_path / "log")
    yield log
    log.close()


def write(*ids: str, time: int = 1) -> Entry:
    vectors = np.frombuffer(repr(ids).encode().ljust(400, b".")[: 32 * len(ids)], "<f4").reshape(len(ids), 8)
    return Entry(Write(list(ids), vectors, [b'{"n":1}'] * len(ids)), time)


def barrier(time: int) -> Entry:
    return Entry(Barrier(), time)


def plain(frames: Iterator[Frame] | list[Frame]) -> list[list[tuple[int, int, bytes]]]:
    """Frames by value."""
    return [[(one.shard, one.sequence, encode(one.entry)) for one in frame] for frame in frames]


def shards(frames: Iterator[Frame] | list[Frame]) -> dict[int, list[tuple[int, bytes]]]:
    """Entries by value, shard by shard."""
    found: dict[int, list[tuple[int, bytes]]] = {}
    for frame in frames:
        for one in frame:
            found.setdefault(one.shard, []).append((one.sequence, encode(one.entry)))
    return found


def test_sequences_of_a_shard_run_from_one_without_gaps(log: Log) -> None:
    assert log.append([(0, write("a"))]) == [1]
    assert log.append([(0, write("b")), (3, write("c")), (0, write("d"))]) == [2, 1, 3]
    assert log.append([(3, write("e"))]) == [2]
    assert (log.first(0), log.last(0), log.first(3), log.last(3)) == (1, 3, 1, 2)


def test_a_shard_without_entries(log: Log) -> None:
    assert (log.first(7), log.last(7)) == (1, 0)
    assert list(log.read({7: 1})) == []
    assert log.sequence_at(7, 10**15) == 0
    log.truncate({7: 0})
    assert (log.first(7), log.last(7)) == (1, 0)


def test_appending_nothing_does_nothing(log: Log) -> None:
    frames: list[Frame] = []
    log.subscribe(frames.append)
    assert log.append([]) == []
    assert frames == [] and list(log.read({})) == []


def test_read_returns_entries_as_they_were_appended(log: Log) -> None:
    written = [[(0, write("a")), (1, write("b", "c"))], [(1, Entry(Delete(["b"]), 5))], [(0, Entry(Seal(True), 6))]]
    for entries in written:
        log.append(entries)
    expected = {
        0: [(1, encode(written[0][0][1])), (2, encode(written[2][0][1]))],
        1: [(1, encode(written[0][1][1])), (2, encode(written[1][0][1]))],
    }
    assert shards(log.read({})) == expected
    assert shards(log.read({0: 1, 1: 1})) == expected


def test_read_returns_frames_as_they_were_appended(local_log: Log) -> None:
    log = local_log
    written = [[(0, write("a")), (1, write("b", "c"))], [(1, Entry(Delete(["b"]), 5))], [(0, Entry(Seal(True), 6))]]
    for entries in written:
        log.append(entries)
    expected = [
        [(0, 1, encode(written[0][0][1])), (1, 1, encode(written[0][1][1]))],
        [(1, 2, encode(written[1][0][1]))],
        [(0, 2, encode(written[2][0][1]))],
    ]
    assert plain(log.read({})) == expected
    assert plain(log.read({0: 1, 1: 1})) == expected


def test_read_leaves_out_what_was_seen(log: Log) -> None:
    for n in range(10):
        log.append([(0, write(f"a{n}")), (1, write(f"b{n}"))])
        log.append([(2, write(f"c{n}"))])
    seen = [(d.shard, d.sequence) for frame in log.read({0: 9, 1: 11, 2: 10}) for d in frame]
    assert sorted(seen) == [(0, 9), (0, 10), (2, 10)]
    assert [len(frame) for frame in log.read({0: 11, 1: 11, 2: 11})] == []
    assert len([d for frame in log.read({0: 11, 2: 11}) for d in frame]) == 10  # shard 1 was not named


def test_read_sees_what_was_durable_when_it_was_called(log: Log) -> None:
    log.append([(0, write("a"))])
    frames = log.read({})
    log.append([(0, write("b"))])
    assert len(list(frames)) == 1
    assert len(list(log.read({}))) == 2


def test_subscribers_see_each_later_entry_once_in_order_before_append_returns(log: Log) -> None:
    log.append([(0, write("before"))])
    one: list[Frame] = []
    other: list[Frame] = []
    log.subscribe(one.append)
    log.append([(0, write("a")), (1, write("b")), (0, write("a2"))])
    seen = {shard: [sequence for sequence, _ in entries] for shard, entries in shards(one).items()}
    assert seen == {0: [2, 3], 1: [1]}
    log.subscribe(other.append)
    log.append([(1, write("c"))])
    assert [[(d.shard, d.sequence) for d in frame] for frame in other] == [[(1, 2)]]
    assert shards(one) == shards(log.read({0: 2}))


def test_subscribers_see_whole_frames(local_log: Log) -> None:
    log = local_log
    log.append([(0, write("before"))])
    one: list[Frame] = []
    other: list[Frame] = []
    log.subscribe(one.append)
    log.append([(0, write("a")), (1, write("b"))])
    assert [(d.shard, d.sequence) for d in one[0]] == [(0, 2), (1, 1)]
    log.subscribe(other.append)
    log.append([(1, write("c"))])
    assert [[(d.shard, d.sequence) for d in frame] for frame in one] == [[(0, 2), (1, 1)], [(1, 2)]]
    assert [[(d.shard, d.sequence) for d in frame] for frame in other] == [[(1, 2)]]
    assert plain(one) == plain(log.read({}))[1:]


def test_a_handler_sees_its_frame_as_durable(log: Log) -> None:
    """Whichever subscriber is called first: only the frames of one have an order in every adapter."""
    lasts: list[int] = []
    readable: list[int] = []
    log.subscribe(lambda frame: lasts.append(log.last(frame[0].shard)))
    log.subscribe(lambda frame: readable.append(sum(1 for _ in log.read({0: frame[0].sequence}))))
    log.append([(0, write("a"))])
    log.append([(0, write("b"))])
    assert (lasts, readable) == ([1, 2], [1, 1])


def test_reopening_finds_everything(opener: Opener, tmp_path: Path) -> None:
    log = opener(tmp_path / "log")
    for n in range(25):
        log.append([(n % 3, write(f"a{n}")), (9, barrier(n))])
    before = shards(log.read({}))
    log.close()
    log = opener(tmp_path / "log")
    assert shards(log.read({})) == before
    assert [log.last(s) for s in (0, 1, 2, 9)] == [9, 8, 8, 25]
    assert log.append([(9, barrier(99)), (4, barrier(99))]) == [26, 1]
    log.close()


def test_truncation_keeps_what_is_needed_and_numbering(opener: Opener, tmp_path: Path) -> None:
    log = opener(tmp_path / "log")
    for n in range(60):
        log.append([(n % 2, write(f"a{n}"))])
    log.truncate({0: 10})  # shard 1 keeps all
    assert log.first(1) == 1 and list(log.read({1: 1, 0: 11}))
    log.truncate({0: 10, 1: 20})
    assert log.first(0) <= 11 and log.first(1) <= 21
    expected = {0: list(range(11, 31)), 1: list(range(21, 31))}
    assert by_shard(log.read({0: 11, 1: 21})) == expected
    log.truncate({0: 30, 1: 30})
    for shard in (0, 1):
        assert log.first(shard) <= 31 and log.last(shard) == 30
    log.close()
    log = opener(tmp_path / "log")
    assert log.append([(0, write("z"))]) == [31]
    assert by_shard(log.read({0: 31, 1: 31})) == {0: [31]}
    log.close()


def by_shard(frames: Iterator[Frame]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for frame in frames:
        for one in frame:
            found.setdefault(one.shard, []).append(one.sequence)
    return found


@pytest.mark.parametrize("opener", ["local, a file for every few frames", "jetstream", "sim"], indirect=True)
def test_truncation_frees_space_and_what_is_gone_is_an_error(opener: Opener, tmp_path: Path) -> None:
    log = opener(tmp_path / "log")
    for n in range(60):
        log.append([(0, write(f"a{n}"))])
    before = log.bytes_on_disk()
    log.truncate({0: 60})
    assert (log.first(0), log.last(0)) == (61, 60)
    assert log.bytes_on_disk() < before / 4
    with pytest.raises(JadeError, match="begins at 61; load a snapshot") as caught:
        log.read({0: 60})
    assert caught.value.code is ErrorCode.LOG_TRUNCATED
    assert list(log.read({0: 61})) == []
    log.close()


def test_asking_beyond_the_end_is_an_error(log: Log) -> None:
    log.append([(0, write("a"))])
    assert list(log.read({0: 2})) == []
    with pytest.raises(JadeError, match="entry 2 was acknowledged") as caught:
        log.read({0: 3})
    assert caught.value.code is ErrorCode.CORRUPT


def test_sequence_at_finds_the_newest_entry_not_after_a_time(log: Log) -> None:
    times = [10, 10, 20, 15, 40]  # one went back: its node's clock was behind
    for time in times:
        log.append([(0, barrier(time)), (1, barrier(time + 1))])
    answers = {time: log.sequence_at(0, time) for time in (9, 10, 14, 15, 20, 39, 40, 10**15)}
    assert answers == {9: 0, 10: 2, 14: 2, 15: 4, 20: 4, 39: 4, 40: 5, 10**15: 5}
    assert log.sequence_at(1, 10) == 0


def test_after_close_nothing_but_closing_again(opener: Opener, tmp_path: Path) -> None:
    log = opener(tmp_path / "log")
    log.append([(0, write("a"))])
    log.close()
    log.close()
    for call in (lambda: log.append([(0, write("b"))]), lambda: log.read({}), lambda: log.truncate({0: 1})):
        with pytest.raises(JadeError) as caught:
            call()
        assert caught.value.code is ErrorCode.CLOSED
    log = opener(tmp_path / "log")
    assert log.last(0) == 1
    log.close()


def test_many_threads(log: Log) -> None:
    """Dense sequences, one order of a shard for the log and its subscribers, and each caller told its own sequences."""
    delivered: list[Frame] = []
    log.subscribe(delivered.append)
    answers: dict[tuple[int, int], bytes] = {}

    def appender(name: int) -> None:
        for n in range(12):
            entry = write(f"{name}.{n}")
            own, first, second = log.append([(name % 5, entry), (5, entry), (5, barrier(n))])
            assert second == first + 1  # one after the other, whatever others append
            answers[name % 5, own] = answers[5, first] = encode(entry)
            answers[5, second] = encode(barrier(n))
            if n % 4 == 0:
                assert sum(1 for _ in log.read({})) >= 1  # reading goes on meanwhile

    threads = [threading.Thread(target=appender, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = shards(log.read({}))
    assert shards(delivered) == found
    assert {shard: len(entries) for shard, entries in found.items()} == {
        **Counter(name % 5 for name in range(16) for _ in range(12)),
        5: 2 * 16 * 12,
    }
    for shard, entries in found.items():
        assert [sequence for sequence, _ in entries] == list(range(1, len(entries) + 1))
        assert all(answers[shard, sequence] == entry for sequence, entry in entries)


def test_many_threads_and_whole_frames(local_log: Log) -> None:
    """Dense sequences, one order for disk and subscribers, every frame whole, and each caller told its own sequences."""
    log = local_log
    delivered: list[Frame] = []
    log.subscribe(delivered.append)
    answers: dict[str, tuple[int, int]] = {}

    def appender(name: int) -> None:
        for n in range(12):
            tag = f"{name}.{n}"
            own, shared = log.append([(name % 5, write(tag)), (5, write(tag))])
            answers[tag] = (own, shared)
            if n % 4 == 0:
                assert sum(1 for _ in log.read({})) >= 1  # reading goes on meanwhile

    threads = [threading.Thread(target=appender, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert plain(delivered) == plain(log.read({}))
    assert [frame[1].sequence for frame in delivered] == list(range(1, 16 * 12 + 1))
    for frame in delivered:
        assert len(frame) == 2
        operation = frame[0].entry.operation
        assert isinstance(operation, Write)
        assert answers[operation.ids[0]] == (frame[0].sequence, frame[1].sequence)
    counts = Counter(frame[0].shard for frame in delivered)
    for shard, count in counts.items():
        assert [f[0].sequence for f in delivered if f[0].shard == shard] == list(range(1, count + 1))


def test_reading_and_truncating_while_others_append(log: Log) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []

    def reader() -> None:
        while not stop.is_set():
            try:
                first = log.first(0)
                found = [d.sequence for frame in log.read({0: first}) for d in frame]
                assert found == list(range(first, first + len(found)))
            except JadeError as error:
                if error.code is not ErrorCode.LOG_TRUNCATED:  # overtaken by the truncation
                    failures.append(error)
            except BaseException as error:
                failures.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    for n in range(1, 200):
        log.append([(0, write(f"a{n}"))])
        if n % 20 == 0:
            log.truncate({0: n - 5})
    stop.set()
    thread.join()
    assert failures == []
    assert log.last(0) == 199


def test_a_copy_is_a_folder_that_the_local_log_opens(log: Log, tmp_path: Path) -> None:
    for n in range(40):
        log.append([(n % 2, write(f"a{n}")), (2, barrier(n))])
    log.truncate({0: 5, 1: 3, 2: 4})
    log.copy_to(tmp_path / "copy")
    log.append([(0, write("later"))])
    copy = LocalLog(tmp_path / "copy")
    assert shards(copy.read({0: 6, 1: 4, 2: 5})) == {
        shard: entries[: [20, 20, 40][shard] - [5, 3, 4][shard]]
        for shard, entries in shards(log.read({0: 6, 1: 4, 2: 5})).items()
    }
    assert [copy.last(shard) for shard in range(4)] == [20, 20, 40, 0]
    assert copy.append([(1, write("next"))]) == [21]
    copy.close()
    with pytest.raises(JadeError) as caught:
        log.copy_to(tmp_path / "copy")
    assert caught.value.code is ErrorCode.ALREADY_EXISTS
