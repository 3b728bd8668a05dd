"""Reads and writes of a cluster while nodes stop and the log is away: what goes on, what is refused, and that nothing is lost."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.cluster_world import WAIT_S, Cluster, wait_until
from tests.nats_cluster import NatsCluster

RNG = np.random.default_rng(3)
VECTORS = RNG.standard_normal((400, 8), dtype=np.float32)


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsCluster]:
    with NatsCluster(tmp_path / "nats") as started:
        yield started


@pytest.fixture
def cluster(nats: NatsCluster, tmp_path: Path) -> Iterator[Cluster]:
    connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
    running = Cluster(
        connection,
        tmp_path / "nodes",
        f"meta-{secrets.token_hex(3)}",
        nodes=3,
        shards=4,
        replication=2,
        patience_s=20.0,
    )
    yield running
    running.close()
    connection.close()


def test_reads_and_writes_go_on_without_an_error_while_a_node_stops_and_returns(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("steady", 8)
    database.upsert([f"v{n}" for n in range(400)], VECTORS)
    cluster.wait_everywhere(database)
    stopped, failures, answered = threading.Event(), [], [0, 0]
    acknowledged: list[str] = []

    def read() -> None:
        while not stopped.is_set():
            try:
                hits = database.search(VECTORS[answered[0] % 400], k=5, timeout=WAIT_S)
                assert hits.ids[0] == f"v{answered[0] % 400}"
                answered[0] += 1
            except (JadeError, AssertionError) as error:
                failures.append(error)

    def write() -> None:
        while not stopped.is_set():
            name = f"w{answered[1]}"
            try:
                database.upsert([name], VECTORS[:1] + 5)
                acknowledged.append(name)
                answered[1] += 1
            except JadeError as error:
                failures.append(error)

    threads = [threading.Thread(target=run) for run in (read, write)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: min(answered) > 20 or failures, seconds=180)
        cluster.stop("n3")
        before = list(answered)
        wait_until(
            lambda: all(now > then + 50 for now, then in zip(answered, before, strict=True)) or failures, seconds=180
        )
        cluster.start("n3")
        before = list(answered)
        wait_until(
            lambda: all(now > then + 50 for now, then in zip(answered, before, strict=True)) or failures, seconds=180
        )
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
    assert not failures
    for gateway in cluster.gateways.values():
        found = gateway.store.database("steady").get(acknowledged, consistency="strong", timeout=WAIT_S)
        assert all(item is not None for item in found)


def test_shards_without_a_live_replica_are_named_or_left_out(cluster: Cluster) -> None:
    store = cluster.gateways["n1"].store
    database = store.create_database("partly", 8, replication=1)
    database.upsert([f"v{n}" for n in range(400)], VECTORS)
    mirror = cluster.gateways["n1"].mirror

    def held_by_n3() -> set[int]:
        shards = mirror.map.databases[database.placed.id].shards
        return {shard.number for shard in shards if shard.primary == "n3"}

    wait_until(lambda: 0 < len(held_by_n3()) < 4)
    cluster.wait_everywhere(database)
    lost = held_by_n3()
    cluster.stop("n3")

    def unanswered() -> set[int]:
        with pytest.raises(JadeError) as failed:
            database.search(VECTORS[0], timeout=1.0)
        return set(failed.value.details["shards"])

    def hits() -> Any:
        return database.search(VECTORS[0], k=400, timeout=1.0, allow_partial=True)

    # Those of the others are there, but a busy machine may once be late with them
    wait_until(lambda: unanswered() == lost)
    wait_until(lambda: set(hits().missing_shards) == lost)
    wait_until(lambda: 0 < len(hits()) < 400)
    with pytest.raises(JadeError):
        database.count(timeout=1.0)
    wait_until(lambda: database.count(timeout=1.0, allow_partial=True) == len(hits()))
    wait_until(lambda: "No live node has shards" in database.trouble)
    with pytest.raises(JadeError) as unconfirmed:
        database.upsert([f"u{n}" for n in range(40)], VECTORS[:40])
    told = unconfirmed.value.details
    assert told["undecided"] and told["written"] > 0 and told["failed"] > 0
    cluster.start("n3")
    wait_until(lambda: not database.trouble)
    assert database.count(timeout=WAIT_S, consistency="strong") == 440  # what was not confirmed was durable


def test_gateways_that_are_cut_off_write_the_same_vectors_and_the_later_write_counts(
    cluster: Cluster, nats: NatsCluster
) -> None:
    one, two = (cluster.gateways[name].store for name in ("n1", "n2"))
    first = one.create_database("both", 8)
    database_id = first.placed.id
    first.upsert([f"v{n}" for n in range(40)], VECTORS[:40])
    second = cluster.database("n2", "both")
    assert second.count(consistency="strong") == 40  # it knows of them
    second.upsert(["gone"], VECTORS[:1], consistency="eventual")  # from here on shards remember times
    wait_until(lambda: first.exists("gone", consistency="strong"))
    assert {shard: report.found for shard, report in first.conflicts().items()} == dict.fromkeys(range(4), 0)
    nats.kill("n1")
    first.upsert(["v1", "v2"], VECTORS[:2], [{"by": "first"}] * 2, request_id="earlier", consistency="eventual")
    first.upsert(["v3"], VECTORS[:1], {"by": "first"}, consistency="eventual")
    second.upsert(["v1"], VECTORS[:1], {"by": "second"}, request_id="later", consistency="eventual")
    second.delete(["v2"], request_id="delete", consistency="eventual")
    first.upsert(["v3"], VECTORS[:1], {"by": "first again"}, consistency="eventual")
    nats.restart("n1")
    wait_until(lambda: not any(s.outbox_figures()[database_id].entries for s in (one, two)))
    v1, v2, v3 = first.get(["v1", "v2", "v3"], consistency="strong", timeout=WAIT_S)
    assert v1.metadata == {"by": "second"} and v2 is None and v3.metadata == {"by": "first again"}
    cluster.wait_everywhere(second)
    told = {one.id: one for report in second.conflicts().values() for one in report.listed}
    assert set(told) == {"v1", "v2"}, "v3 was written by one gateway, one after the other"
    for conflict, later in ((told["v1"], "later"), (told["v2"], "delete")):
        won = conflict.late if conflict.late_won else conflict.stood
        lost = conflict.stood if conflict.late_won else conflict.late
        assert (won.node, lost.node) == ("n2", "n1") and won.time > lost.time
        assert conflict.late.request_id == (later if conflict.late_won else "earlier")
    cluster.stop("n3")  # what a replica knows of conflicts is on its disk
    cluster.start("n3")
    wait_until(lambda: cluster.gateways["n3"].store.database("both").count(consistency="strong", timeout=WAIT_S) == 40)
    figures = two.outbox_figures()[database_id]
    assert sum(figures.lag_counts) == figures.published and figures.lag_sum_s > 0


def test_without_the_log_strong_is_refused_and_eventual_goes_on(cluster: Cluster, nats: NatsCluster) -> None:
    gateway = cluster.gateways["n2"]
    database = gateway.store.create_database("cut-off", 8)
    database.upsert([f"v{n}" for n in range(400)], VECTORS)
    cluster.wait_everywhere(database)
    nats.kill("n1")
    assert database.search(VECTORS[3], k=1, consistency="eventual").ids == ["v3"]
    assert database.count() == 400
    assert database.upsert([f"late{n}" for n in range(40)], VECTORS[:40], consistency="eventual").count == 40
    for ask in (
        lambda: database.upsert(["refused"], VECTORS[:1]),
        lambda: database.count(consistency="strong", timeout=1.0),
    ):
        with pytest.raises(JadeError) as refused:
            ask()
        assert refused.value.code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT) and refused.value.retryable
    assert gateway.store.outbox_figures()[database.placed.id].lag_s > 0
    nats.restart("n1")
    wait_until(lambda: gateway.store.outbox_figures()[database.placed.id].entries == 0)
    found = database.get([f"late{n}" for n in range(40)], consistency="strong", timeout=WAIT_S)
    assert all(item is not None for item in found)
