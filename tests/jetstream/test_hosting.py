"""Replicas on nodes: they follow the map and the log, say the same, and come back from restarts, truncation and damage."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import (
    Applied,
    Asked,
    AwaitApplied,
    Count,
    Found,
    Get,
    Items,
    Ping,
    Scroll,
    Search,
)
from jadevectordb.topology.cluster_map import MAP_KEY, ReplicaState
from tests.hosting_world import ACTIVE, ASSIGNED, RETIRING, Nodes, rows, seal, wait_until, write_rows
from tests.nats_cluster import NatsCluster

S = 60.0


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsConnection]:
    with NatsCluster(tmp_path_factory.mktemp("nats")) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        yield connection
        connection.close()


@pytest.fixture
def nodes(connection: NatsConnection, tmp_path: Path) -> Iterator[Nodes]:
    found = Nodes(connection, tmp_path, f"meta-{secrets.token_hex(4)}")
    yield found
    found.close()


@pytest.fixture
def database() -> str:
    return f"db-{secrets.token_hex(4)}"


def test_replicas_on_three_nodes_say_the_same_and_answer(nodes: Nodes, database: str) -> None:
    log = nodes.create(database, shards=2)
    nodes.place(database, 2, a=ASSIGNED, b=ASSIGNED, c=ASSIGNED)
    three = [nodes.start(name) for name in "abc"]
    for seed in range(10):
        write_rows(log, seed, 50, shard=seed % 2)
    last = [write_rows(log, 100, 5, shard=0), write_rows(log, 101, 5, shard=1, request="r")]
    for node in three:
        for shard in (0, 1):
            node.wait_applied(database, last[shard], shard)
    digests = [node.digests(database, 0, 1) for node in three]
    assert digests[0] == digests[1] == digests[2]

    a = three[0]
    asked = Asked(database=database, shards=(0, 1), at_least=((0, last[0]),), wait_s=5.0)
    found = a.ask(three[1].server.address, Count(asked=asked))
    assert found.count == 510
    assert dict(found.watermarks) == {0: last[0], 1: last[1]}
    wanted = list(rows(3, 50))[7]
    call = Search(
        asked=asked, query=wanted[1].tobytes(), options={"k": 3}, include=("metadata", "vector"), explain=True
    )
    hits = a.ask(three[2].server.address, call)
    assert isinstance(hits, Found)
    assert hits.ids[0] == wanted[0] and hits.metadata[0] == wanted[2] and len(hits.ids) == 3
    assert hits.scores == sorted(hits.scores, reverse=True)
    assert np.array_equal(np.frombuffer(hits.vectors, "<f4").reshape(3, -1)[0], wanted[1])
    assert b'"segments"' in hits.explanation
    items = a.ask(three[1].server.address, Get(asked=asked, ids=(wanted[0], "nobody")))
    assert isinstance(items, Items)
    assert items.ids == [wanted[0]] and np.array_equal(np.frombuffer(items.vectors, "<f4"), wanted[1])
    seen: list[str] = []
    while page := a.ask(three[1].server.address, Scroll(asked=asked, after=seen[-1] if seen else "", limit=100)).ids:
        seen += page
    assert len(seen) == len(set(seen)) == 510
    filtered = Count(asked=asked, filter=b"")
    assert a.ask(three[1].server.address, filtered).count == 510
    pong = a.ask(three[1].server.address, Ping())
    assert (pong.node, pong.incarnation) == ("b", three[1].incarnation)

    again = write_rows(log, 101, 5, shard=1, request="r")  # within the log's memory: the same place
    assert again == last[1]
    awaited = AwaitApplied(database=database, shard=1, sequence=last[1], wait_s=5.0)
    applied = a.ask(three[2].server.address, awaited)
    assert applied == Applied(known=True, sequence=last[1], changed=5)


def test_a_restarted_node_goes_on_from_its_folder(nodes: Nodes, database: str) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE, b=ACTIVE)
    a, b = nodes.start("a"), nodes.start("b")
    write_rows(log, 1, 100)  # beyond seal_rows: written to disk
    last = seal(log)
    hosted = a.wait_applied(database, last)
    wait_until(lambda: hosted.report().checkpointed == last)
    a.stop()
    last = write_rows(log, 2, 30)
    folders = sorted(path.name for path in (nodes.folder / "a" / "shards" / database).iterdir())
    again = nodes.start("a")
    again.wait_applied(database, last)
    b.wait_applied(database, last)
    assert again.digests(database, 0) == b.digests(database, 0)
    assert (
        folders == ["0000-000001"] == sorted(path.name for path in (nodes.folder / "a" / "shards" / database).iterdir())
    )


def test_a_log_that_begins_later_is_continued_from_a_peers_snapshot(nodes: Nodes, database: str) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE)
    a = nodes.start("a")
    for seed in range(5):
        write_rows(log, seed, 100)
    last = seal(log)
    hosted = a.wait_applied(database, last)
    wait_until(lambda: hosted.report().checkpointed == last)
    log.truncate({0: last})
    last = write_rows(log, 9, 10)
    nodes.place(database, a=ACTIVE, b=ASSIGNED)
    b = nodes.start("b")
    b.wait_applied(database, last)
    a.wait_applied(database, last)
    assert b.digests(database, 0) == a.digests(database, 0)
    assert b.hosted(database).report().rows == 510
    wait_until(lambda: list((nodes.folder / "a" / "snapshots").glob("*")) == [])  # given back


def test_without_a_peer_a_truncated_log_is_a_failure_that_says_so_and_passes(nodes: Nodes, database: str) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE)
    a = nodes.start("a")
    write_rows(log, 1, 100)
    last = seal(log)
    hosted = a.wait_applied(database, last)
    wait_until(lambda: hosted.report().checkpointed == last)
    log.truncate({0: last})
    a.stop()
    nodes.place(database, a=ACTIVE, b=ASSIGNED)
    b = nodes.start("b")

    def reason() -> str:
        found = b.hosting.get(database, 0)
        return "" if found is None else found.report().reason

    wait_until(lambda: "begins at entry" in reason() and "snapshot" in reason(), reason)
    a = nodes.start("a")
    b.wait_applied(database, last)
    assert b.digests(database, 0) == a.digests(database, 0)


def test_a_replica_that_missed_a_truncation_serves_what_it_has_and_is_replaced(nodes: Nodes, database: str) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE, b=ACTIVE)
    a, b = nodes.start("a"), nodes.start("b")
    last = write_rows(log, 1, 20)
    b.wait_applied(database, last)
    b.stop()
    write_rows(log, 2, 100)
    last = seal(log)
    hosted = a.wait_applied(database, last)
    wait_until(lambda: hosted.report().checkpointed == last)
    log.truncate({0: last})
    b = nodes.start("b")
    b.wait_applied(database, last)
    assert b.digests(database, 0) == a.digests(database, 0)
    assert [path.name for path in (nodes.folder / "b" / "shards" / database).iterdir()] == ["0000-000002"]


def test_a_flipped_bit_is_found_and_the_replica_is_loaded_from_a_peer(nodes: Nodes, database: str) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE, b=ACTIVE)
    a, b = nodes.start("a"), nodes.start("b")
    write_rows(log, 1, 100)
    last = seal(log)
    for node in (a, b):
        hosted = node.wait_applied(database, last)
        wait_until(lambda hosted=hosted: hosted.report().checkpointed == last)
    wanted = a.digests(database, 0)
    b.stop()
    (vectors, *_) = (nodes.folder / "b" / "shards" / database).glob("0000-000001/shard-0000/*/vectors")
    damaged = bytearray(vectors.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    vectors.write_bytes(damaged)
    b = nodes.start("b")
    b.wait_applied(database, last)
    assert b.digests(database, 0) == wanted
    assert [path.name for path in (nodes.folder / "b" / "shards" / database).iterdir()] == ["0000-000002"]


def test_damage_met_while_answering_makes_the_asker_go_elsewhere_and_the_replica_anew(
    nodes: Nodes, database: str
) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE, b=ACTIVE)
    a, b = nodes.start("a"), nodes.start("b")
    write_rows(log, 1, 100)
    last = seal(log)
    for node in (a, b):
        hosted = node.wait_applied(database, last)
        wait_until(lambda hosted=hosted: hosted.report().checkpointed == last)
        # The folder damaged below must be the one in use, not one that was just replaced by one with an index
        wait_until(lambda hosted=hosted: hosted.readable is not None and hosted.readable.maintenance.is_settled)
    wanted = a.digests(database, 0)
    (metadata, *_) = (nodes.folder / "b" / "shards" / database).glob("0000-000001/shard-0000/*/metadata")
    size = metadata.stat().st_size
    with metadata.open("r+b") as file:
        file.write(b"\xff" * size)  # in place: under the mapping
    call = Get(asked=Asked(database=database, shards=(0,)), ids=tuple(name for name, _, _ in rows(1, 100)))
    with pytest.raises(JadeError) as raised:
        a.ask(b.server.address, call)
    assert raised.value.code in (ErrorCode.CORRUPT, ErrorCode.UNAVAILABLE)
    wait_until((nodes.folder / "b" / "shards" / database / "0000-000002").exists)
    b.wait_applied(database, last)
    assert b.digests(database, 0) == wanted
    assert len(a.ask(b.server.address, call).ids) == 100


def test_a_log_that_lost_acknowledged_entries_never_empties_a_replica(nodes: Nodes, database: str) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE, b=ACTIVE)
    a, b = nodes.start("a"), nodes.start("b")
    last = write_rows(log, 1, 100)
    for node in (a, b):
        node.wait_applied(database, last)
    wanted = a.digests(database, 0)
    b.stop()
    log.drop()
    log.ensure_streams([0])

    def says_so() -> bool:
        """Between two attempts to follow the log it says what the newest one met."""
        report = a.hosted(database).report()
        return report.state is ReplicaState.FAILED and "load a snapshot" in report.reason

    wait_until(says_so, lambda: a.hosted(database).report())
    asked = Asked(database=database, shards=(0,))
    assert a.ask(a.server.address, Count(asked=asked)).count == 100  # still served
    assert a.digests(database, 0) == wanted
    assert (nodes.folder / "a" / "shards" / database / "0000-000001").exists()


def test_what_retires_serves_until_the_others_do_then_goes_and_says_so(nodes: Nodes, database: str) -> None:
    log = nodes.create(database, replication=2)
    nodes.place(database, replication=2, a=ACTIVE, b=ACTIVE)
    a, b = nodes.start("a"), nodes.start("b")
    last = write_rows(log, 1, 20)
    for node in (a, b):
        node.wait_applied(database, last)
    nodes.place(database, replication=2, a=RETIRING, b=ACTIVE, c=ASSIGNED)
    c = nodes.start("c")
    c.wait_applied(database, last)
    assert a.hosting.get(database, 0) is not None
    version = nodes.place(database, replication=2, a=RETIRING, b=ACTIVE, c=ACTIVE)

    def is_gone() -> bool:
        beat = nodes.heartbeat("a")
        return beat is not None and [report.state for report in beat.replicas] == [ReplicaState.GONE]

    wait_until(is_gone)
    beat = nodes.heartbeat("a")
    assert beat is not None and beat.map_version == version
    assert not (nodes.folder / "a" / "shards" / database).exists()
    with pytest.raises(JadeError) as raised:
        b.ask(a.server.address, Count(asked=Asked(database=database, shards=(0,))))
    assert raised.value.code is ErrorCode.STALE_MAP
    nodes.place(database, replication=2, b=ACTIVE, c=ACTIVE)
    wait_until(lambda: (beat := nodes.heartbeat("a")) is not None and beat.replicas == ())


def test_a_dropped_database_leaves_nothing_and_what_was_left_by_a_stopped_node_goes_too(
    nodes: Nodes, database: str
) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE, b=ACTIVE)
    a, b = nodes.start("a"), nodes.start("b")
    last = write_rows(log, 1, 20)
    for node in (a, b):
        node.wait_applied(database, last)
    b.stop()
    nodes.place(database)
    wait_until(lambda: not (nodes.folder / "a" / "shards" / database).exists())
    assert (nodes.folder / "b" / "shards" / database).exists()
    nodes.start("b")
    wait_until(lambda: not (nodes.folder / "b" / "shards" / database).exists())
    wait_until(lambda: a.hosting.get(database, 0) is None)


def test_an_older_map_removes_nothing_even_after_a_restart(nodes: Nodes, database: str) -> None:
    log = nodes.create(database)
    older = nodes.store.get(MAP_KEY)
    assert older is None
    nodes.place("other", x=ACTIVE)
    older = nodes.store.get(MAP_KEY)
    nodes.place(database, a=ACTIVE)
    a = nodes.start("a")
    last = write_rows(log, 1, 20)
    a.wait_applied(database, last)
    a.stop()
    newest = nodes.store.get(MAP_KEY)
    assert older is not None and newest is not None
    assert nodes.store.compare_and_set(MAP_KEY, older.value, newest.revision) is not None
    again = nodes.start("a")
    wait_until(lambda: nodes.heartbeat("a") is not None and nodes.heartbeat("a").incarnation == again.incarnation)
    current = nodes.store.get(MAP_KEY)
    assert current is not None
    assert nodes.store.compare_and_set(MAP_KEY, newest.value, current.revision) is not None
    again.wait_applied(database, last)
    assert [path.name for path in (nodes.folder / "a" / "shards" / database).iterdir()] == ["0000-000001"]


def test_a_replica_that_is_behind_is_waited_for_and_then_said_to_be(nodes: Nodes, database: str) -> None:
    log = nodes.create(database)
    nodes.place(database, a=ACTIVE)
    a = nodes.start("a")
    last = write_rows(log, 1, 20)
    a.wait_applied(database, last)
    late = Asked(database=database, shards=(0,), at_least=((0, last + 1),), wait_s=0.2)
    with pytest.raises(JadeError) as raised:
        a.ask(a.server.address, Count(asked=late))
    assert raised.value.code is ErrorCode.UNAVAILABLE and raised.value.details["behind"]
    with pytest.raises(JadeError) as raised:
        call = AwaitApplied(database=database, shard=0, sequence=last + 1, wait_s=0.0)
        a.ask(a.server.address, call)
    assert raised.value.code is ErrorCode.UNAVAILABLE

    answers: list[object] = []
    asked = Asked(database=database, shards=(0,), at_least=((0, last + 1),), wait_s=S)
    a.answerer.answer(Count(asked=asked), lambda answer, error: answers.append((answer.count, error)))
    given_up: list[object] = []
    cancel = a.answerer.answer(Count(asked=asked), lambda answer, error: given_up.append((answer, error)))
    assert cancel is not None
    cancel()
    assert answers == []
    write_rows(log, 2, 5)
    wait_until(lambda: answers == [(25, None)])
    assert given_up == []


def test_when_two_processes_beat_for_one_node_the_earlier_one_ends(nodes: Nodes) -> None:
    first = nodes.start("a")
    wait_until(lambda: nodes.heartbeat("a"))
    second = nodes.start("a")
    assert first.displaced.wait(S)
    wait_until(lambda: nodes.heartbeat("a").incarnation == second.incarnation)
    second.agent.leave()
    wait_until(lambda: nodes.heartbeat("a").leaving)
    assert not second.displaced.is_set()
