"""All replicas of a database read on request: sound ones, a damaged one, one whose node is away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.topology.cluster_map import ReplicaState
from tests.cluster_world import Cluster, wait_until
from tests.nats_cluster import NatsCluster

ROWS = 300
VECTORS = np.random.default_rng(3).standard_normal((ROWS, 16), dtype=np.float32)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with NatsCluster(tmp_path / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, tmp_path / "nodes", "verify-tests", nodes=3, shards=2, replication=3)
        yield running
        running.close()
        connection.close()


def all_active(cluster: Cluster, database: ClusterDatabase) -> bool:
    record = cluster.gateways["n1"].mirror.map.databases[database.placed.id]
    replicas = [replica for shard in record.shards for replica in shard.replicas]
    return len(replicas) == 6 and all(replica.state is ReplicaState.ACTIVE for replica in replicas)


def test_every_replica_is_read_and_damage_is_told_with_its_place(cluster: Cluster) -> None:
    database = cluster.gateways["n1"].store.create_database("d", 16)
    database.upsert([f"v{n}" for n in range(ROWS)], VECTORS)
    wait_until(lambda: all_active(cluster, database))
    cluster.wait_everywhere(database)
    database.wait_indexed(180)
    places = [(one.shard, one.node) for one in database.verify_replicas()]
    assert places == [(shard, f"n{node}") for shard in range(2) for node in (1, 2, 3)]
    wait_until(lambda: told_of(database) is None)

    readable = cluster.running["n2"].hosted(database.placed.id, 1).readable
    assert readable is not None
    wait_until(lambda: len(list(readable.directory.glob("*/*/vectors"))) == 1)
    (file,) = readable.directory.glob("*/*/vectors")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    error = told_of(database)
    assert error is not None and error.code is ErrorCode.CORRUPT
    (told,) = (one for one in error.details["replicas"] if one["damage"])
    assert (told["shard"], told["node"]) == (1, "n2") and file.name in told["damage"]
    wait_until(lambda: all(one.is_sound for one in database.verify_replicas()))  # made anew from another

    cluster.stop("n3")
    wait_until(lambda: not cluster.gateways["n1"].mirror.is_alive("n3"))
    wait_until(lambda: unread_of(told_of(database)) == [(0, "n3"), (1, "n3")])


def told_of(database: ClusterDatabase) -> JadeError | None:
    """What `verify` raises. A node that is silent for some seconds seems away, and then its replicas are told too."""
    try:
        database.verify()
    except JadeError as error:
        return error
    return None


def unread_of(error: JadeError | None) -> list[tuple[int, str]]:
    assert error is not None and error.code is ErrorCode.UNAVAILABLE
    return [(one["shard"], one["node"]) for one in error.details["replicas"]]
