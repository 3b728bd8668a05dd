"""What a replica sees when the replicated log is damaged, truncated, dropped, or written by somebody else."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jadevectordb.adapters.jetstream_api import Deadline, ask
from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.log.entry import encode
from jadevectordb.log.message import encode_message, stream_seed
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import LOG_REQUEST_ENTRIES_MAX
from jadevectordb.model.operations import Barrier, Entry, Write
from jadevectordb.ports.log import Delivered
from tests.hosting_world import WAIT_S
from tests.jetstream.log_world import Follower, write
from tests.nats_cluster import NatsCluster


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsConnection]:
    with NatsCluster(tmp_path_factory.mktemp("nats")) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        yield connection
        connection.close()


@pytest.fixture
def log(connection: NatsConnection, request: pytest.FixtureRequest) -> Iterator[JetStreamLog]:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)[:60]
    log = JetStreamLog(connection, "tests", name, replicas=1, append_s=WAIT_S)
    log.ensure_streams([0, 1])
    yield log
    log.close()


def publish_raw(connection: NatsConnection, log: JetStreamLog, data: bytes) -> None:
    """Past the adapter, as a program of somebody else would."""

    async def send() -> None:
        connected = await connection.connected()
        await connected.ask(log.stream(0).replace("log+", "jade.log.").replace("+", "."), data, None, WAIT_S)

    connection.call(send(), WAIT_S)


# --- damage -----------------------------------------------------------------------------------------------------------


def flip(folder: Path, stream: str, content: bytes) -> None:
    """One bit of the message that holds this, in the file that a stopped server keeps it in."""
    found = 0
    for path in (folder / "store" / "jetstream" / "JADE" / "streams" / stream / "msgs").glob("*.blk"):
        data = bytearray(path.read_bytes())
        at = data.find(content)
        if at >= 0:
            data[at] ^= 1
            path.write_bytes(data)
            found += 1
    assert found == 1


@pytest.mark.parametrize("damaged", [0, 20, 59])
def test_a_flipped_bit_in_the_only_copy_is_corruption_at_that_sequence(tmp_path: Path, damaged: int) -> None:
    with NatsCluster(tmp_path) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        log = JetStreamLog(connection, "tests", "db", replicas=1, append_s=WAIT_S)
        log.ensure_streams([0])
        for n in range(60):
            log.append([(0, write(f"entry{n:03}"))])
        cluster.stop("n1")
        flip(tmp_path / "n1", log.stream(0), f"entry{damaged:03}".encode())
        cluster.restart("n1")
        follower = Follower(log, 0)
        error = follower.wait_for_error()
        assert error.code is ErrorCode.CORRUPT
        assert error.details == {"stream": log.stream(0), "sequence": damaged + 1}
        assert follower.sequences == list(range(1, damaged + 1))
        if damaged < 59:  # that nothing comes after the last takes a while to notice
            with pytest.raises(JadeError, match=f"entry {damaged + 1}:") as caught:
                list(log.read({0: 1}))
            assert caught.value.code is ErrorCode.CORRUPT
            assert len(list(log.read({0: damaged + 2}))) == 59 - damaged
        assert log.last(0) == 60
        log.close()
        connection.close()


def test_a_flipped_bit_in_one_of_three_copies_is_mended_by_the_others(tmp_path: Path) -> None:
    with NatsCluster(tmp_path, servers=3) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        log = JetStreamLog(connection, "tests", "db", append_s=WAIT_S)
        log.ensure_streams([0])
        entries = {n + 1: write(f"entry{n:03}") for n in range(60)}
        for entry in entries.values():
            log.append([(0, entry)])
        for name, damaged in zip(cluster.names, (5, 30, 59), strict=True):  # each copy elsewhere
            cluster.stop(name)
            flip(tmp_path / name, log.stream(0), f"entry{damaged:03}".encode())
            cluster.restart(name)
        for _ in range(5):
            follower = Follower(log, 0)
            follower.wait_for(60)
            assert follower.contents() == {sequence: encode(entry) for sequence, entry in entries.items()}
        log.close()
        connection.close()


def test_a_message_that_is_no_entry_of_this_shard_is_corruption(connection: NatsConnection, log: JetStreamLog) -> None:
    good = encode_message(0, write("a"), stream_seed(log.stream(0)))
    foreign = [
        b"",
        b"hello",
        good[:-1],
        good + b"x",
        bytes([*good[:-1], good[-1] ^ 1]),
        encode_message(0, write("a"), stream_seed(log.stream(1))),  # of another stream
        encode_message(1, write("a"), stream_seed(log.stream(0))),  # of another shard
    ]
    for number, data in enumerate(foreign, 1):
        publish_raw(connection, log, data)
        with pytest.raises(JadeError) as caught:
            list(log.read({0: number}))
        assert caught.value.code is ErrorCode.CORRUPT, data
        assert caught.value.details == {"stream": log.stream(0), "sequence": number}
    publish_raw(connection, log, good)
    assert [one.sequence for frame in log.read({0: len(foreign) + 1}) for one in frame] == [len(foreign) + 1]


# --- truncation and dropping ------------------------------------------------------------------------------------------


def test_a_follower_that_asks_for_what_was_truncated_is_told(log: JetStreamLog) -> None:
    for n in range(30):
        log.append([(0, write(f"a{n}"))])
    log.truncate({0: 10})
    error = Follower(log, 0, 10).wait_for_error()
    assert error.code is ErrorCode.LOG_TRUNCATED and error.details["first"] == 11
    follower = Follower(log, 0, 11)
    follower.wait_for(30)
    assert follower.sequences == list(range(11, 31))
    log.truncate({0: 30})
    log.append([(0, write("later"))])
    follower.wait_for(31)  # what it has already does not matter to it


def test_a_follower_overtaken_by_truncation_is_told(log: JetStreamLog) -> None:
    """Its handler is slow, its window small: what it has not asked for yet is gone when it does."""
    may_go_on, errors, ended = threading.Event(), list[JadeError](), threading.Event()
    delivered: list[int] = []

    def handle(one: Delivered) -> None:
        may_go_on.wait(WAIT_S)
        delivered.append(one.sequence)

    def end(error: JadeError) -> None:
        errors.append(error)
        ended.set()

    for n in range(60):
        log.append([(0, write(f"a{n}", rows=64, width=64))])
    log.follow(0, 1, handle, end, window_bytes=64 << 10)
    log.truncate({0: 50})
    may_go_on.set()
    assert ended.wait(WAIT_S)
    assert errors[0].code is ErrorCode.LOG_TRUNCATED
    assert delivered == list(range(1, len(delivered) + 1)) and len(delivered) < 50


def test_a_follower_that_has_seen_more_than_the_log_holds_is_told(log: JetStreamLog) -> None:
    log.append([(0, write("a"))])
    error = Follower(log, 0, 3).wait_for_error()
    assert error.code is ErrorCode.CORRUPT and "entry 2 was acknowledged" in error.message


def test_a_dropped_log_is_not_found(log: JetStreamLog) -> None:
    log.append([(0, write("a"))])
    follower = Follower(log, 0)
    follower.wait_for(1)
    log.drop()
    assert follower.wait_for_error().code is ErrorCode.NOT_FOUND
    for call in (lambda: log.append([(0, write("b"))]), lambda: log.last(0), lambda: log.read({0: 1})):
        with pytest.raises(JadeError) as caught:
            call()
        assert caught.value.code is ErrorCode.NOT_FOUND


# --- following --------------------------------------------------------------------------------------------------------


def test_memory_stays_bounded_while_a_handler_is_slow(log: JetStreamLog) -> None:
    window, size = 1 << 20, 100
    waits, may_go_on = threading.Event(), threading.Event()
    delivered: list[int] = []
    done = threading.Event()

    def handle(one: Delivered) -> None:
        delivered.append(one.sequence)
        if one.sequence == 3:
            waits.set()
            may_go_on.wait(WAIT_S)
        if one.sequence == size:
            done.set()

    for n in range(size):
        log.append([(0, write(f"a{n}", rows=256, width=256))])  # a quarter of a megabyte
    following = log.follow(0, 1, handle, lambda _error: done.set(), window_bytes=window)
    assert waits.wait(WAIT_S)
    log.append([(1, write("elsewhere"))])  # the connection is not held up by it
    tail = following._tail
    assert tail._received_bytes - tail._handled_bytes <= 2 * window
    may_go_on.set()
    assert done.wait(WAIT_S) and following.error is None
    assert delivered == list(range(1, size + 1))
    following.close()


def test_entries_larger_than_the_window_are_delivered(log: JetStreamLog) -> None:
    delivered: list[int] = []
    done = threading.Event()

    def handle(one: Delivered) -> None:
        delivered.append(one.sequence)
        if one.sequence == 6:
            done.set()

    for n in range(6):
        log.append([(0, write(f"a{n}", rows=n % 2 * 1023 + 1, width=256))])
    log.follow(0, 1, handle, lambda _error: done.set(), window_bytes=64 << 10)
    assert done.wait(WAIT_S)
    assert delivered == [1, 2, 3, 4, 5, 6]


def test_a_handler_that_raises_ends_its_following_with_its_words(log: JetStreamLog) -> None:
    errors: list[JadeError] = []
    ended = threading.Event()

    def handle(_one: Delivered) -> None:
        raise ZeroDivisionError("the handler's own")

    def end(error: JadeError) -> None:
        errors.append(error)
        ended.set()

    following = log.follow(0, 1, handle, end)
    log.append([(0, write("a"))])
    assert ended.wait(WAIT_S)
    assert errors[0].code is ErrorCode.INTERNAL_ERROR and "the handler's own" in errors[0].message
    assert following.position == 0


# --- appending --------------------------------------------------------------------------------------------------------


def test_a_request_sent_again_gets_the_places_of_the_first(log: JetStreamLog) -> None:
    parts = [write(f"p{n}", request="r\r\n1 ü", part=n, parts=3) for n in range(3)]
    assert log.append([(0, part) for part in parts] + [(1, write("x", request="r1"))]) == [1, 2, 3, 1]
    log.append([(0, write("between"))])
    assert log.append([(0, part) for part in parts] + [(1, write("x", request="r1"))]) == [1, 2, 3, 1]
    assert log.append([(0, write("x", request="r1"))]) == [5]  # of another shard
    assert (log.last(0), log.last(1)) == (5, 1)
    assert log.append([(0, write("same")), (0, write("same"))]) == [6, 7]  # no request id: never taken for one another


def test_many_sending_the_same_request_at_once_store_it_once(log: JetStreamLog) -> None:
    entries = [(0, write(f"p{n}", request="r", part=n, parts=4)) for n in range(4)]
    answers: list[list[int]] = []
    threads = [threading.Thread(target=lambda: answers.append(log.append(entries))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [[1, 2, 3, 4]] * 8
    assert log.last(0) == 4


def test_what_is_durable_is_named_when_a_part_fails(log: JetStreamLog) -> None:
    with pytest.raises(JadeError, match="never created") as caught:
        log.append([(0, write("a")), (7, write("b")), (0, write("c"))])
    assert caught.value.code is ErrorCode.NOT_FOUND
    assert caught.value.details["durable"] == {0: 2}


def test_a_request_too_large_to_be_stored_together_is_refused(log: JetStreamLog) -> None:
    many = [(0, Entry(Barrier(), n)) for n in range(LOG_REQUEST_ENTRIES_MAX + 1)]
    large = Entry(Write(["a"], np.zeros((1, 4), np.float32), [b"x" * (9 << 20)]), 1)
    for entries in (many, [(0, large)], [(1, Entry(Barrier(), 1)), (0, large)]):
        with pytest.raises(JadeError) as caught:
            log.append(entries)
        assert caught.value.code is ErrorCode.REQUEST_TOO_LARGE
    assert (log.last(0), log.last(1)) == (0, 0)
    assert log.append(many[:-1]) == list(range(1, LOG_REQUEST_ENTRIES_MAX + 1))


def test_sequence_at_looks_as_far_back_as_needed(log: JetStreamLog) -> None:
    for base in range(0, 2000, 250):
        log.append([(0, Entry(Barrier(), 1000 + base + n)) for n in range(250)])
    log.truncate({0: 100})
    answers = {time: log.sequence_at(0, time) for time in (5000, 2999, 2998, 1500, 1101, 1100, 1099, 0)}
    assert answers == {5000: 2000, 2999: 2000, 2998: 1999, 1500: 501, 1101: 102, 1100: 101, 1099: 100, 0: 100}


def test_a_stream_of_another_kind_in_our_place_is_refused(connection: NatsConnection, log: JetStreamLog) -> None:
    async def change() -> None:
        await ask(
            connection,
            f"STREAM.UPDATE.{log.stream(0)}",
            {**log._config(0), "duplicate_window": 10**9},
            Deadline(connection, WAIT_S),
        )

    connection.call(change(), WAIT_S)
    with pytest.raises(JadeError, match=r"exists with other settings.*duplicate_window") as caught:
        log.ensure_streams([0])
    assert caught.value.code is ErrorCode.CONFLICT
    with pytest.raises(JadeError, match="its server is alone") as caught:
        JetStreamLog(connection, "tests", "three", replicas=3).ensure_streams([0])
    assert caught.value.code is ErrorCode.CONFLICT
    with pytest.raises(JadeError) as caught:
        JetStreamLog(connection, "tests", "a.b")
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
