"""Retention in a cluster: one node at a time enforces it, through the logs, so that all replicas stay equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jadevectordb.adapters.file_archive import FileArchive
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.cluster.clocks import ClusterClocks
from jadevectordb.gateway.cluster.database import ClusterDatabase
from jadevectordb.gateway.service.aging import Old
from jadevectordb.gateway.service.lifecycle import Lifecycle
from jadevectordb.model.errors import ErrorCode, JadeError
from tests.cluster_world import Cluster, wait_until
from tests.insight_world import SetClock
from tests.nats_cluster import NatsCluster

NODES = ("n1", "n2", "n3")


class Place:
    def __init__(self, handle: ClusterDatabase) -> None:
        self.handle = handle
        self.id = handle.placed.id


class World:
    """A cluster whose nodes each have a `Lifecycle` of their own; `master` names the one that enforces."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder, self.clock, self.master = cluster, folder, SetClock(), "n1"
        self.databases: list[str] = []
        self.lifecycles = {name: self._lifecycle(name) for name in NODES}

    def _lifecycle(self, name: str) -> Lifecycle:
        store = self.cluster.gateways[name].store
        return Lifecycle(
            lambda: [Place(store.database(database)) for database in self.databases],
            self.cluster.nodes.store,
            self.clock,
            FileArchive(self.folder / name),
            is_enforcer=lambda: self.master == name,
            background=False,
        )

    def create(self, name: str) -> ClusterDatabase:
        database = self.cluster.gateways["n1"].store.create_database(name, 2, metric="euclidean")
        self.cluster.wait_everywhere(database)
        self.databases.append(name)
        return database

    def set_policy(self, node: str, database: ClusterDatabase, policy: dict[str, Any]) -> None:
        """Through this node; and until the others have heard of it."""
        self.lifecycles[node].set_policy(database.placed.id, policy)
        for lifecycle in self.lifecycles.values():
            wait_until(lambda lifecycle=lifecycle: has_policy(lifecycle, database))

    def sweep(self, database: ClusterDatabase) -> dict[str, int]:
        """With replicas that all know what was written, so that whichever is asked for old vectors names them all."""
        self.cluster.wait_everywhere(database)
        return {name: lifecycle.sweep() for name, lifecycle in self.lifecycles.items()}


def has_policy(lifecycle: Lifecycle, database: ClusterDatabase) -> bool:
    try:
        lifecycle.retention(database.placed.id)
    except JadeError as error:
        assert error.code is ErrorCode.NOT_FOUND
        return False
    return True


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with NatsCluster(folder / "nats") as nats:
        connection = NatsConnection(nats.urls, SystemClock(), credentials=nats.credentials, name="tests")
        running = Cluster(connection, folder / "nodes", "retention-tests", nodes=3, shards=2, replication=3)
        yield running
        running.close()
        connection.close()


@pytest.fixture
def world(cluster: Cluster, tmp_path: Path) -> World:
    return World(cluster, tmp_path)


def names(database: ClusterDatabase) -> list[str]:
    return sorted(item.id for item in database.items(consistency="strong"))


def store(database: ClusterDatabase, ids: list[str], value: float = 1.0) -> None:
    result = database.upsert(ids, np.full((len(ids), 2), value), [{"name": name} for name in ids], consistency="strong")
    assert result.count == len(ids)


def test_old_vectors_go_everywhere_and_another_master_goes_on(world: World) -> None:
    database = world.create("going")
    world.set_policy("n2", database, {"max_age_days": 3, "delete": True})
    for day in range(6):
        store(database, [f"day{day}-{n}" for n in range(8)])
        assert set(world.sweep(database).values()) == {0} or day >= 3
        world.clock.pass_days(1)
    world.master = "n3"  # with the ages that the other had noted
    world.clock.pass_days(0.5)
    gone = world.sweep(database)
    assert gone["n1"] == gone["n2"] == 0
    assert names(database) == sorted(f"day{day}-{n}" for day in (4, 5) for n in range(8))
    for name in NODES:
        wait_until(lambda name=name: world.lifecycles[name].retention(database.placed.id).deleted == 32)
    world.cluster.check_replicas(database)
    world.lifecycles["n1"].forget(database.placed.id)
    wait_until(lambda: not has_policy(world.lifecycles["n2"], database))


def test_what_is_archived_comes_back_by_importing_it(world: World) -> None:
    database = world.create("archived")
    ids = [f"v{n}" for n in range(40)]
    store(database, ids, 0.25)
    world.set_policy("n1", database, {"max_age_days": 1, "archive": True})
    world.sweep(database)
    world.clock.pass_days(2)
    assert world.sweep(database) == {"n1": 40, "n2": 0, "n3": 0}
    assert names(database) == []
    wait_until(lambda: world.lifecycles["n3"].retention(database.placed.id).archived == 40)
    world.cluster.check_replicas(database)

    from jadevectordb.transfer.importer import import_file

    for path in sorted((world.folder / "n1" / database.placed.id).glob("*.jsonl")):
        import_file(database, path)
    assert names(database) == sorted(ids)
    item = database.get("v7", consistency="strong")
    assert item is not None and item.metadata == {"name": "v7"} and item.vector.tolist() == [0.25, 0.25]


def test_what_is_written_again_meanwhile_stays(world: World) -> None:
    database = world.create("kept")
    store(database, [f"v{n}" for n in range(10)])
    lifecycle = world.lifecycles["n1"]
    lifecycle.set_policy(database.placed.id, {"max_age_days": 1, "delete": True})
    world.sweep(database)
    world.clock.pass_days(2)
    take_out = lifecycle._take_out

    def write_first(place: Place, aging: object, batch: list[Old], **how: bool) -> int:
        store(database, [old.id for old in batch[:2]], 2.0)
        take: Callable[..., int] = take_out
        return take(place, aging, batch, **how)

    lifecycle._take_out = write_first  # type: ignore[method-assign,assignment]
    world.cluster.wait_everywhere(database)
    assert 0 < lifecycle.sweep() <= 8
    assert 2 <= len(names(database)) <= 4
    assert all(item.vector.tolist() == [2.0, 2.0] for item in database.items(consistency="strong"))


def test_a_clock_that_is_ahead_takes_nothing_out_early(cluster: Cluster) -> None:
    mirror, ahead = cluster.gateways["n1"].mirror, SetClock(SystemClock().now_ms() + 3_600_000)
    wait_until(lambda: len(mirror.alive()) == 3)
    clocks = ClusterClocks(mirror, ahead)
    assert clocks.latest_ms() >= ahead.ms
    assert clocks.earliest_ms() <= SystemClock().now_ms()
