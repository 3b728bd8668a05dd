"""Log and metadata store at work on three servers, which are killed, stopped and started again.

In each test appenders write to a shard that a follower follows, and two nodes count up one record of the store that a third
watches. Afterwards: no gap, no repetition, nothing acknowledged missing, no revision won twice, the watcher in step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from jadevectordb.adapters.jetstream_api import Deadline, ask, stream_state
from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.kv_store import KvStore
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.metadata_store import Record
from tests.hosting_world import wait_until
from tests.jetstream.log_world import Appenders, Follower, check_history, write
from tests.jetstream.store_world import Counter, Watched, check_counts
from tests.nats_cluster import NatsCluster

PATIENT_S = 90.0
HASTY_S = 4.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path, servers=3) as cluster:
        yield cluster


@pytest.fixture
def connections(cluster: NatsCluster) -> Iterator[list[NatsConnection]]:
    """One a node: each begins with its own server."""
    urls = cluster.urls
    made = [NatsConnection(urls[n:] + urls[:n], SystemClock(), credentials=cluster.credentials) for n in range(3)]
    yield made
    for connection in made:
        connection.close()


class World:
    """What goes on while servers come and go."""

    def __init__(self, connections: list[NatsConnection], parts: int) -> None:
        self.connection = connections[0]
        self.log = JetStreamLog(connections[0], "tests", "db", append_s=PATIENT_S)
        self.log.ensure_streams([0])
        self.stores = [KvStore(connection, "meta", answer_s=PATIENT_S) for connection in connections]
        assert self.stores[0].compare_and_set("n", b"0", 0) is not None
        self.follower = Follower(self.log, 0)
        self.watched = Watched(self.stores[2])
        self.appenders = Appenders(self.log, 0, parts=parts)
        self.counters = [Counter(store) for store in self.stores[:2]]

    def go_on(self) -> None:
        """Until everyone has got further than now."""
        self.appenders.wait_for_more(40)
        for counter in self.counters:
            counter.wait_for_more(10)

    def leader(self, stream: str) -> str:
        return self.connection.call(
            stream_state(self.connection, stream, Deadline(self.connection, PATIENT_S)), PATIENT_S
        ).leader

    def move_leader(self, stream: str, name: str) -> None:
        body = {"placement": {"preferred": name}}
        while self.leader(stream) != name:
            request = ask(self.connection, f"STREAM.LEADER.STEPDOWN.{stream}", body, Deadline(self.connection, 1))
            with contextlib.suppress(JadeError):  # it became the leader in this moment, so it may not be asked to
                self.connection.call(request, 1)

    def check(self) -> None:
        acknowledged = self.appenders.stop()
        check_history(acknowledged, self.follower, self.log, 0)
        record = check_counts(self.counters, self.stores[0])
        self.watched.wait_for({"n": record})
        assert self.watched.revisions == sorted(set(self.watched.revisions))
        assert [store.list("") for store in self.stores] == [{"n": record}] * 3
        for store in self.stores:
            store.close()
        self.log.close()


def test_the_leader_of_both_is_killed(cluster: NatsCluster, connections: list[NatsConnection]) -> None:
    world = World(connections, parts=4)
    world.go_on()
    killed = world.leader(world.log.stream(0))
    world.move_leader("KV_meta", killed)
    cluster.kill(killed)
    world.go_on()
    cluster.restart(killed, wait=False)
    world.go_on()
    world.check()


def test_a_planned_stop_of_the_leader_twice(cluster: NatsCluster, connections: list[NatsConnection]) -> None:
    world = World(connections, parts=1)
    handed_over = 0
    for _ in range(6):  # on a busy machine a server may lose what it leads before, or have no time to hand it over
        world.go_on()
        stopped = world.leader(world.log.stream(0))
        world.move_leader("KV_meta", stopped)
        handed_over += set(cluster.stop(stopped)) >= {"KV_meta", world.log.stream(0)}
        world.go_on()
        cluster.restart(stopped)
        if handed_over == 2:
            break
    assert handed_over == 2
    world.check()
    assert world.appenders.unavailable == 0 == sum(counter.undecided for counter in world.counters)


def test_all_servers_are_killed_and_started_again(cluster: NatsCluster, connections: list[NatsConnection]) -> None:
    world = World(connections, parts=1)
    world.go_on()
    for name in cluster.names:
        cluster.kill(name)
    for name in cluster.names:
        cluster.restart(name, wait=False)
    world.go_on()
    world.check()


def test_without_a_majority_writers_are_told_and_what_is_known_can_be_read(
    cluster: NatsCluster, connections: list[NatsConnection]
) -> None:
    log, patient = (
        JetStreamLog(connections[0], "tests", "db", append_s=HASTY_S),
        JetStreamLog(connections[1], "tests", "db", append_s=PATIENT_S),
    )
    store = KvStore(connections[0], "meta", answer_s=HASTY_S)
    patient_store = KvStore(connections[1], "meta", answer_s=PATIENT_S)
    patient.ensure_streams([0])
    follower = Follower(log, 0)
    patient.append([(0, write("before"))])
    follower.wait_for(1)
    revision = patient_store.compare_and_set("a", b"one", 0)
    assert revision is not None and list(patient_store.list("")) == ["a"]
    wait_until(lambda: store.known("") == {"a": Record(b"one", revision)})
    for name in cluster.names[1:]:
        cluster.kill(name)
    for change in (
        lambda: log.append([(0, write("lost?", request="r"))]),
        lambda: store.compare_and_set("a", b"two", revision),
    ):
        with pytest.raises(JadeError) as caught:
            change()
        assert caught.value.code is ErrorCode.UNAVAILABLE and caught.value.retryable
        assert caught.value.details["undecided"] and caught.value.details["reason"]
    assert store.known("") == {"a": Record(b"one", revision)}
    for name in cluster.names[1:]:
        cluster.restart(name, wait=False)
    assert patient.append([(0, write("lost?", request="r"))]) == [2]  # once, whether the first try was stored or not
    follower.wait_for(2)
    assert follower.sequences == [1, 2] and follower.errors == []
    record = patient_store.get("a")
    assert record is not None and record.value in (b"one", b"two")
    for one in (store, patient_store, log, patient):
        one.close()


def test_deletions_that_were_forgotten_meanwhile_are_still_told(
    cluster: NatsCluster, connections: list[NatsConnection]
) -> None:
    """One node's server is away while others delete records and forget the tombstones."""
    writer = KvStore(connections[0], "meta", answer_s=PATIENT_S, tombstones_max=4)
    apart = NatsConnection(cluster.urls[2:], SystemClock(), credentials=cluster.credentials)
    watcher = KvStore(apart, "meta", answer_s=PATIENT_S)
    kept: dict[str, Record] = {}
    for n in range(20):
        revision = writer.compare_and_set(f"k/{n}", b"", 0)
        assert revision is not None
        kept[f"k/{n}"] = Record(b"", revision)
    assert watcher.list("") == kept
    watched = Watched(watcher, kept, prefix="k/")
    cluster.kill(cluster.names[2])
    for n in range(15):
        assert writer.compare_and_set(f"k/{n}", None, kept.pop(f"k/{n}").revision) is not None
    while (
        connections[0]
        .call(stream_state(connections[0], "KV_meta", Deadline(connections[0], PATIENT_S)), PATIENT_S)
        .messages
        >= 20
    ):
        revision = writer.compare_and_set("other", b"", 0)  # forgetting begins with a deletion that finds too many
        assert revision is not None and writer.compare_and_set("other", None, revision) is not None
    assert watcher.known("k/").keys() > kept.keys()
    cluster.restart(cluster.names[2], wait=False)
    watched.wait_for(kept)
    assert watched.revisions == []  # what was known before is not told again
    assert watcher.list("") == writer.list("") == kept
    assert watcher.compare_and_set("k/0", b"again", 0) is not None
    writer.close()
    watcher.close()
    apart.close()
