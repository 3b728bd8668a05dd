"""The replicated metadata store while its servers are killed: no change lost, none won twice, watchers in step."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jadevectordb.adapters.jetstream_api import Deadline, stream_state
from jadevectordb.adapters.kv_store import KvStore
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import Record
from tests.nats_cluster import NatsCluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path, servers=3) as cluster:
        yield cluster


@pytest.fixture
def connections(cluster: NatsCluster) -> Iterator[list[NatsConnection]]:
    """One a node: each begins with its own server."""
    made = [
        NatsConnection(cluster.urls[n:] + cluster.urls[:n], SystemClock(), credentials=cluster.credentials)
        for n in range(3)
    ]
    yield made
    for connection in made:
        connection.close()


class State:
    """What a watch told, as a store of its own."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.revisions: list[int] = []
        self._changed = threading.Condition()

    def __call__(self, key: str, record: Record | None) -> None:
        with self._changed:
            if record is None:
                self.records.pop(key, None)
            else:
                self.revisions.append(record.revision)
                self.records[key] = record
            self._changed.notify_all()

    def wait_for(self, expected: dict[str, Record]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.records == expected, 30), (self.records, expected)


class Counters(threading.Thread):
    """Counts one record up by compare-and-set; an undecided change is looked up before the next."""

    def __init__(self, store: KvStore, name: str) -> None:
        super().__init__()
        self.store = store
        self.tag = name
        self.won: list[int] = []  # revisions
        self.undecided = 0
        self.stop = threading.Event()
        self.progress = threading.Semaphore(0)
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stop.is_set():
                self._once()
        except BaseException as error:
            self.failure = error

    def _once(self) -> None:
        try:
            record = self.store.get("n")
            assert record is not None
            revision = self.store.compare_and_set(
                "n", b"%d %s" % (int(record.value.split()[0]) + 1, self.tag.encode()), record.revision
            )
        except JadeError as error:
            assert error.code is ErrorCode.UNAVAILABLE
            self.undecided += 1
            return
        if revision is not None:
            self.won.append(revision)
            self.progress.release()


def test_counting_up_while_the_buckets_leader_is_killed(
    cluster: NatsCluster, connections: list[NatsConnection]
) -> None:
    stores = [KvStore(connection, "meta", answer_s=25) for connection in connections]
    assert stores[0].compare_and_set("n", b"0 start", 0) is not None
    state = State()
    stores[1].watch("", state)
    counters = [Counters(store, f"c{n}") for n, store in enumerate(stores)]
    for counter in counters:
        counter.start()
    for counter in counters:
        assert counter.progress.acquire(timeout=30)
    leader = connections[0].call(stream_state(connections[0], "KV_meta", Deadline(connections[0], 10)), 10).leader
    cluster.kill(leader)
    for counter in counters:
        for _ in range(30):
            assert counter.progress.acquire(timeout=40)
    cluster.restart(leader, wait=False)
    for counter in counters:
        counter.stop.set()
        counter.join()
        assert counter.failure is None
    record = stores[0].get("n")
    assert record is not None
    won = [revision for counter in counters for revision in counter.won]
    assert len(set(won)) == len(won), "two writers won one revision"
    if sum(counter.undecided for counter in counters) == 0:
        assert int(record.value.split()[0]) == len(won), "a change was lost, or one that was told to be lost was made"
    else:
        assert int(record.value.split()[0]) >= len(won)
    state.wait_for({"n": record})
    assert state.revisions == sorted(set(state.revisions))
    for store in stores:
        assert store.list("") == {"n": record}
        store.close()


def test_a_watch_goes_on_over_a_restart_of_all_servers(cluster: NatsCluster, connections: list[NatsConnection]) -> None:
    writer, watcher = KvStore(connections[0], "meta", answer_s=30), KvStore(connections[1], "meta", tombstones_max=2)
    kept: dict[str, Record] = {}
    for n in range(6):
        revision = writer.compare_and_set(f"k/{n}", b"first", 0)
        assert revision is not None
        kept[f"k/{n}"] = Record(b"first", revision)
    state = State()
    watcher.watch("k/", state)
    state.records.update(kept)
    for name in cluster.names:
        cluster.kill(name)
    for name in cluster.names:
        cluster.restart(name, wait=False)
    changed = writer.compare_and_set("k/0", b"second", kept["k/0"].revision)
    assert changed is not None
    kept["k/0"] = Record(b"second", changed)
    assert writer.compare_and_set("k/1", None, kept.pop("k/1").revision) is not None
    state.wait_for(kept)
    assert state.revisions == [changed]  # what was known before is not told again
    writer.close()
    watcher.close()


def test_deletions_that_were_forgotten_meanwhile_are_still_told(
    cluster: NatsCluster, connections: list[NatsConnection]
) -> None:
    """One node's server is away while others delete records and forget the tombstones."""
    writer = KvStore(connections[0], "meta", answer_s=30, tombstones_max=4)
    apart = NatsConnection(cluster.urls[2:], SystemClock(), credentials=cluster.credentials)
    watcher = KvStore(apart, "meta")
    kept: dict[str, Record] = {}
    for n in range(20):
        revision = writer.compare_and_set(f"k/{n}", b"", 0)
        assert revision is not None
        kept[f"k/{n}"] = Record(b"", revision)
    assert watcher.list("") == kept
    state = State()
    watcher.watch("k/", state)
    state.records.update(kept)
    cluster.kill(cluster.names[2])
    for n in range(15):
        assert writer.compare_and_set(f"k/{n}", None, kept.pop(f"k/{n}").revision) is not None
    bucket = "KV_meta"
    while (  # forgetting happens in the background, after the last deletion
        connections[0].call(stream_state(connections[0], bucket, Deadline(connections[0], 20)), 20).messages >= 20
    ):
        pass
    assert watcher.known("k/").keys() > kept.keys()
    cluster.restart(cluster.names[2], wait=False)
    state.wait_for(kept)
    assert state.revisions == []
    assert watcher.list("") == writer.list("") == kept
    assert watcher.compare_and_set("k/0", b"again", 0) is not None
    writer.close()
    watcher.close()
    apart.close()


def test_without_a_majority_changes_are_undecided_and_what_is_known_can_be_read(
    cluster: NatsCluster, connections: list[NatsConnection]
) -> None:
    store = KvStore(connections[0], "meta", answer_s=2)
    revision = store.compare_and_set("a", b"one", 0)
    assert revision is not None and list(store.list("")) == ["a"]
    for name in cluster.names[1:]:
        cluster.kill(name)
    with pytest.raises(JadeError) as caught:
        store.compare_and_set("a", b"two", revision)
    assert caught.value.code is ErrorCode.UNAVAILABLE and caught.value.details["undecided"]
    assert store.known("") == {"a": Record(b"one", revision)}
    for name in cluster.names[1:]:
        cluster.restart(name, wait=False)
    patient = KvStore(connections[1], "meta", answer_s=30)
    record = patient.get("a")
    assert record is not None and record.value in (b"one", b"two")
    assert patient.compare_and_set("a", b"three", record.revision) is not None
    store.close()
    patient.close()
