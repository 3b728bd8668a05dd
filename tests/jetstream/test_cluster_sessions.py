"""What a session saw it sees again, whichever gateway it asks: with a replica that stands still while the others go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.service.catalog import DatabaseRecord, Entry
from jadevectordb.gateway.service.sessions import reading, seen_after, seen_in, token_of
from jadevectordb.model.errors import JadeError
from jadevectordb.query.seen import SeenSequences
from tests.cluster_world import Cluster, wait_until
from tests.hosting_world import Node
from tests.nats_cluster import NatsCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with NatsCluster(folder / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, folder / "nodes", "session-tests", nodes=3, shards=2, replication=3)
        yield running
        running.close()
        connection.close()


@contextmanager
def standing_still(node: Node, database: ClusterDatabase) -> Iterator[None]:
    """The node's replicas are told of entries and apply none: what they publish to searches has to wait."""
    held = []
    try:
        for shard in range(database.config.shards):
            readable = node.hosted(database.placed.id, shard).readable
            assert readable is not None
            readable._publishing.acquire()
            held.append(readable)
        yield
    finally:
        for readable in held:
            readable._publishing.release()


def at_gateways(cluster: Cluster, name: str) -> list[ClusterDatabase]:
    return [cluster.database(gateway, name) for gateway in ("n1", "n2", "n3")]


READS: dict[str, Callable[..., Any]] = {
    "get": lambda database, **session: [item is not None for item in database.get(["a", "b"], **session)],
    "exists": lambda database, **session: database.exists(["a", "b"], **session),
    "count": lambda database, **session: [True] * database.count(**session),
    "count_matching": lambda database, **session: [True] * database.count({"new": True}, **session),
    "scroll": lambda database, **session: [True for _ in database.scroll(10, **session).items],
    "items": lambda database, **session: [True for _ in database.items(**session)],
    "by_id": lambda database, **session: [True for _ in database.by_id(10, **session)[0]],
    "search": lambda database, **session: [True for _ in database.search([1, 0], **session)],
    "search_batch": lambda database, **session: [True for _ in database.search_batch([[1, 0]], **session)[0]],
    "search_groups": lambda database, **session: [
        True for _ in database.search_groups([1, 0], group_by="id", **session)
    ],
}


def test_what_one_gateway_showed_every_other_shows(cluster: Cluster) -> None:
    first = cluster.gateways["n1"].store.create_database("still", 2)
    one, two, three = at_gateways(cluster, "still")
    cluster.wait_everywhere(one)
    assert one.placed == first.placed
    with standing_still(cluster.running["n2"], one):
        one.upsert(["a", "b"], [[1, 0], [0, 1]], [{"id": i, "new": True} for i in "ab"])
        # Of its own replicas, which stand still, unless they seem slow at this moment: another session goes back there
        wait_until(lambda: two.exists(["a", "b"]) == [False, False])
        for read in READS.values():
            seen = SeenSequences()
            # Its own replicas, or those of another that goes on
            wait_until(lambda read=read, seen=seen: read(one, seen=seen) == [True, True])
            assert seen and all(sequence > 0 for sequence in seen.values())
            before = dict(seen)
            for other in (two, three, one):
                assert read(other, seen=seen) == [True, True]
            assert all(seen[shard] >= sequence for shard, sequence in before.items())


def test_an_eventual_read_takes_nothing_back_and_counts_for_later_ones(cluster: Cluster) -> None:
    cluster.gateways["n1"].store.create_database("eventually", 2, shards=1)
    one, two, _ = at_gateways(cluster, "eventually")
    cluster.wait_everywhere(one)
    with standing_still(cluster.running["n2"], one):
        one.upsert(["a"], [[1, 0]])
        seen = SeenSequences()
        wait_until(lambda: one.exists("a", consistency="eventual", seen=seen))
        before = dict(seen)
        for _ in range(10):
            two.exists("a", consistency="eventual", seen=seen)
        assert seen == before
        assert two.exists("a", seen=seen) and two.exists("a", consistency="strong", seen=seen)
        assert seen[0] > before[0]  # the barrier of the strong read is seen too


def test_an_empty_shard_and_one_without_an_answer_say_nothing(cluster: Cluster) -> None:
    cluster.gateways["n1"].store.create_database("hollow", 2)
    one, *_ = at_gateways(cluster, "hollow")
    seen = SeenSequences()
    assert one.count(seen=seen) == 0 and seen == {}
    written = one.upsert(["a"], [[1, 0]]).sequences
    wait_until(lambda: one.count(seen=seen))
    assert seen == written
    one.search([1, 0], seen=SeenSequences(dict.fromkeys(written, 1)))
    with pytest.raises(JadeError) as unknown:
        one.count(seen=SeenSequences({7: 1}))
    assert not unknown.value.retryable


def test_a_token_goes_from_answer_to_question(cluster: Cluster) -> None:
    """As a handler does it. What it says of other databases, also of one that had the name before, counts for nothing."""
    cluster.gateways["n1"].store.create_database("tokens", 2)
    entries = [Entry(DatabaseRecord(id="d", name="tokens"), handle, 0) for handle in at_gateways(cluster, "tokens")]
    written = entries[0].handle.upsert([f"v{n}" for n in range(8)], [[1, n] for n in range(8)])
    token = token_of("d", seen_after("before~0.999|d~0.1", written.sequences, entries[0]))
    assert seen_in(token, entries[0]) == written.sequences
    for entry in entries:
        given = reading(f"before~0.999999|{token}", "", entry)
        assert entry.handle.count(**given) == 8
        assert seen_in(token_of("d", given["seen"]), entry) == written.sequences
    ahead = reading("d~0.999999", "", entries[1])
    with pytest.raises(JadeError) as behind:
        entries[1].handle.count(timeout=0.3, **ahead)
    assert behind.value.retryable


def test_a_replica_that_is_behind_is_asked_last_for_a_while(cluster: Cluster) -> None:
    """One read waits for it; those that follow are answered by others without waiting."""
    cluster.gateways["n1"].store.create_database("late", 2, shards=1)
    one, two, _ = at_gateways(cluster, "late")
    cluster.wait_everywhere(one)
    fan_out = cluster.gateways["n2"].store.fan_out
    with standing_still(cluster.running["n2"], one):
        seen = SeenSequences(one.upsert(["a"], [[1, 0]]).sequences)
        asked_s = 0.0

        def is_suspected() -> bool:
            """Where another was less busy at first, it was not asked."""
            nonlocal asked_s
            asked_s = fan_out.transport.now_s()
            assert [item.id for item in two.scroll(10, seen=seen).items] == ["a"]
            # As it was when it was asked: by now a slow machine may have forgiven it, or suspect another replica as well
            return fan_out.balancer.is_suspected("n2", asked_s)

        wait_until(is_suspected)
        assert fan_out.balancer.order(["n1", "n2"], asked_s)[0] == "n1" or fan_out.balancer.is_suspected("n1", asked_s)


def test_what_is_fetched_for_a_hit_is_from_no_earlier(cluster: Cluster) -> None:
    """The vectors of hits that came without: of a replica that does not know them yet they would be gone."""
    cluster.gateways["n1"].store.create_database("fetched", 2, shards=1)
    one, two, _ = at_gateways(cluster, "fetched")
    cluster.wait_everywhere(one)
    with standing_still(cluster.running["n2"], one):
        one.upsert(["a"], [[3, 4]])
        seen = SeenSequences()
        wait_until(lambda: one.exists("a", seen=seen))
        for _ in range(5):
            (hit,) = two.search([1, 0], seen=seen)
            assert hit.vector.tolist() == [3, 4]
