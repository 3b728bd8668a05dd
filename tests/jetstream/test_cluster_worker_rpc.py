"""The worker service of gRPC on nodes of a cluster: each answers for the replicas it holds, and writes go through the log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import numpy as np
import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.access.operations import check
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.service.catalog import Catalog
from jadevectordb.query.seen import SeenSequences
from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.sharding import shards_of
from tests.cluster_world import Cluster, wait_until
from tests.nats_cluster import NatsCluster
from tests.rpc_world import Caller, listening, packed, services

NODES, SHARDS, DIMENSION, ROWS = ("n1", "n2", "n3"), 3, 8, 300
VECTORS = np.random.default_rng(5).standard_normal((ROWS, DIMENSION), dtype=np.float32)
IDS = [f"v{n}" for n in range(ROWS)]
SHARD_OF = dict(zip(IDS, shards_of(hash_ids(IDS), SHARDS).tolist(), strict=True))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with NatsCluster(folder / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, folder / "nodes", "worker-tests", nodes=3, shards=SHARDS, replication=2)
        yield running
        running.close()
        connection.close()


@pytest.fixture(scope="module")
def callers(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Caller]]:
    """A gRPC door on each node."""
    with ExitStack() as open_:
        made = {}
        for name in NODES:
            built = open_.enter_context(services(tmp_path_factory.mktemp(name), auth__mode="open-loopback"))
            built.store = cluster.gateways[name].store
            built.catalog = Catalog(built.store, cluster.nodes.store, SystemClock(), check)
            _, address = open_.enter_context(listening(built))
            made[name] = Caller(open_.enter_context(grpc.insecure_channel(address)))
        yield made


@pytest.fixture(scope="module")
def database(cluster: Cluster) -> ClusterDatabase:
    made = cluster.gateways["n1"].store.create_database("d", DIMENSION)
    made.upsert(IDS, VECTORS, [{"n": n} for n in range(ROWS)], consistency="strong")
    cluster.wait_everywhere(made)
    return made


def shards_on(callers: dict[str, Caller], node: str) -> dict[int, int]:
    """Rows of each shard that the node holds: as many as any other, perhaps after one was moved that was placed before all were up."""
    wait_until(lambda: len(callers[node]("WorkerService/ShardInfo", database="d").shards) == 2 * SHARDS // len(NODES))
    return {one.shard: one.rows for one in callers[node]("WorkerService/ShardInfo", database="d").shards}


def test_every_node_tells_of_what_it_holds(database: ClusterDatabase, callers: dict[str, Caller]) -> None:
    wait_until(lambda: sum(len(shards_on(callers, node)) for node in NODES) == 2 * SHARDS)
    rows = [list(SHARD_OF.values()).count(shard) for shard in range(SHARDS)]
    for node in NODES:
        held = shards_on(callers, node)
        assert held == {shard: rows[shard] for shard in held}
        info = callers[node]("WorkerService/ShardInfo", database="d").shards
        assert all(0 < one.watermark <= one.log_end and one.memory_bytes > 0 for one in info)
        stats = callers[node]("WorkerService/Stats")
        assert (stats.databases, stats.shards, stats.rows) == (1, 2, sum(held.values()))
        assert callers[node]("WorkerService/Health").version


def test_searches_of_all_shards_make_the_search_of_the_database(
    database: ClusterDatabase, callers: dict[str, Caller]
) -> None:
    query = VECTORS[7] + 0.01
    found: list[tuple[float, str]] = []
    for shard in range(SHARDS):
        node = next(node for node in NODES if shard in shards_on(callers, node))
        answer = callers[node](
            "WorkerService/SearchShard", shard={"database": "d", "shard": shard}, vector={"packed": packed(query)}, k=5,
            exact=True, watermark_min=1, include={"metadata": True, "vector": True},
        )  # fmt: skip
        assert len(answer.hits) == 5 and answer.watermark > 0
        for hit in answer.hits:
            assert SHARD_OF[hit.id] == shard and np.frombuffer(hit.vector.packed, "<f4").shape == (DIMENSION,)
            found.append((hit.score, hit.id))
    wanted = database.search(query, k=5, exact=True)
    best = sorted(found, key=lambda one: (-one[0], one[1]))[:5]
    assert [name for _, name in best] == [hit.id for hit in wanted]
    assert [score for score, _ in best] == pytest.approx([hit.score for hit in wanted])


def test_what_a_node_does_not_hold_it_refuses(database: ClusterDatabase, callers: dict[str, Caller]) -> None:
    (elsewhere,) = set(range(SHARDS)) - set(shards_on(callers, "n1"))
    shard = {"database": "d", "shard": elsewhere}
    query = {"packed": packed(VECTORS[0])}
    failed = callers["n1"].fails("WorkerService/SearchShard", shard=shard, vector=query)
    assert (failed.status, failed.code, failed.retryable) == ("UNAVAILABLE", "STALE_MAP", True)
    assert callers["n1"].fails("WorkerService/Delete", shard=shard, ids=["v1"]).code == "STALE_MAP"
    held = {"database": "d", "shard": min(shards_on(callers, "n1"))}
    none = callers["n1"].fails("WorkerService/SearchShard", shard={**held, "shard": 9}, vector=query)
    assert none.code == "INVALID_ARGUMENT"
    late = callers["n1"].fails("WorkerService/SearchShard", timeout=1, shard=held, vector=query, watermark_min=10**9)
    assert late.status in ("UNAVAILABLE", "DEADLINE_EXCEEDED")
    for rpc in ("AssignShard", "RemoveShard"):
        refused = callers["n1"].fails(f"WorkerService/{rpc}", shard=held, map_version=1, term=1)
        assert refused.status == "UNIMPLEMENTED" and "master" in refused.message


def test_a_write_goes_through_the_log_of_its_shard(database: ClusterDatabase, callers: dict[str, Caller]) -> None:
    shard = min(shards_on(callers, "n2"))
    names = [f"w{n}" for n in range(200) if shards_of(hash_ids([f"w{n}"]), SHARDS)[0] == shard][:3]
    columns = {"ids": names, "vectors": {"packed": packed(VECTORS[:3])}, "metadata_json": [b"{}"] * 3}
    place = {"database": "d", "shard": shard}
    first = callers["n2"]("WorkerService/WriteBatch", shard=place, columns=columns, request_id="once")
    again = callers["n2"]("WorkerService/WriteBatch", shard=place, columns=columns, request_id="once")
    assert first.receipt.count == again.receipt.count == 3 and again.sequence == first.sequence > 0  # applied once
    assert database.exists(names, seen=SeenSequences({shard: first.sequence})) == [True] * 3
    stray = next(name for name in IDS if SHARD_OF[name] != shard)
    failed = callers["n2"].fails("WorkerService/Delete", shard=place, ids=[names[0], stray])
    assert failed.code == "CONFLICT" and failed.details["id"] == stray
    gone = callers["n2"]("WorkerService/Delete", shard=place, ids=names)
    assert gone.receipt.count == 3
    assert database.exists(names, seen=SeenSequences({shard: gone.sequence})) == [False] * 3
