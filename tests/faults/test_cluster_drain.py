"""Nodes that join and leave a cluster of real processes while it is written and read: nothing is lost, nobody notices, all is told.

Four nodes at first, three of which keep the log; the tests go on from each other's cluster.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from jadevectordb.cli.cluster_digests import DigestReader, ReplicaDigest, equal
from jadevectordb.cli.local_cluster import LocalCluster
from jadevectordb.cli.main import commands
from jadevectordb.client import Client, Timeouts

DIMENSION, SHARDS = 8, 4
WAIT_S = 180.0  # each step moves shards between processes, four or five of them on two cores


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[str] = []
        self.reads = 0

    @property
    def local(self) -> LocalCluster:
        return LocalCluster.open(self.folder)

    def jade(self, command: str, *arguments: object, code: int = 0) -> str:
        texts = ["cluster", command, *map(str, arguments), "--data", str(self.folder)]
        done = CliRunner().invoke(commands, texts, env={"JADEVECTORDB_URL": None})
        assert done.exit_code == code and "Traceback" not in done.output, (done.output, done.exception)
        return done.output

    def ask(self, command: str, *arguments: object) -> Any:
        return json.loads(self.jade(command, *arguments, "--format", "json"))

    def status(self) -> Any:
        """Whatever it is."""
        with self.local.client(timeouts=Timeouts(5.0, 30.0, WAIT_S)) as client:
            return client.call("GET", "/v1/cluster/status")

    def wait(self, is_so: Callable[[Any], object], ask: Callable[[], Any] | None = None) -> Any:
        until_s = time.monotonic() + WAIT_S
        while not is_so(told := (ask or self.status)()):
            assert time.monotonic() < until_s, told
            threading.Event().wait(0.1)
        return told

    @contextmanager
    def used(self) -> Iterator[Client]:
        """A writer and a reader go on all the while, and meet no error."""
        errors: list[BaseException] = []
        finish = threading.Event()
        with self.local.client(timeouts=Timeouts(2.0, 30.0, WAIT_S)) as client:
            words = client.database("words")

            def write() -> None:
                random = np.random.default_rng(len(self.written))
                ids = [f"v{len(self.written) + number}" for number in range(50)]
                words.upsert(ids, random.standard_normal((50, DIMENSION)).astype(np.float32))
                self.written.extend(ids)

            def read() -> None:
                assert words.search(np.ones(DIMENSION, np.float32), k=5)
                self.reads += 1

            def go_on(act: Callable[[], None]) -> None:
                try:
                    while not finish.is_set() and not errors:
                        act()
                        finish.wait(0.02)
                except BaseException as error:
                    errors.append(error)

            threads = [threading.Thread(target=go_on, args=(act,)) for act in (write, read)]
            written, reads = len(self.written), self.reads
            for thread in threads:
                thread.start()
            try:
                yield client
            finally:
                finish.set()
                for thread in threads:
                    thread.join()
                if errors:
                    raise errors[0]
            assert len(self.written) > written and self.reads > reads
            assert words.count(consistency="strong") == len(self.written)

    def check_replicas(self, database: str, replicas: int) -> None:
        """In the end they lie where the map says, nowhere else, and are equal."""
        with self.local.client() as client:
            found = client.call("GET", "/v1/cluster/nodes")["nodes"]
            peers = {one["node_id"]: self._peer(client, one["node_id"]) for one in found}
            cluster_id = client.call("GET", "/v1/cluster/status")["cluster_id"]
        with DigestReader(cluster_id, self.folder / "secret", peers) as reader:

            def found_and_wanted() -> tuple[list[ReplicaDigest], list[tuple[int, str]]]:
                shards = self.ask("shards", "--database", database)
                nodes = [(number, one["replica_nodes"].split(",")) for number, one in enumerate(shards)]
                wanted = sorted((number, node) for number, names in nodes for node in names)
                return reader.of(str(shards[0]["database_id"]), len(shards)), wanted

            def is_so(told: tuple[list[ReplicaDigest], list[tuple[int, str]]]) -> bool:
                digests, wanted = told
                shards = {number for number, _ in wanted}
                places = [(one.shard, one.node) for one in digests]
                return places == wanted and len(wanted) == replicas * len(shards) and equal(digests)

            self.wait(is_so, found_and_wanted)

    def _peer(self, client: Client, node: str) -> str:
        return str(client.call("GET", f"/v1/cluster/nodes/{node}/status")["peer"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("clusters") / "c")
    try:
        made.jade("up", "--nodes", 4)
        with made.local.client() as client:
            client.create_database("words", DIMENSION, shards=SHARDS).upsert(
                ["v0"], np.ones((1, DIMENSION), np.float32)
            )
            client.create_database("single", DIMENSION, shards=3, replication=1)
        made.written.append("v0")
        yield made
    finally:
        if (made.folder / "cluster.json").exists():
            local = made.local
            for node in local.nodes:
                local.kill(node)


def test_a_node_that_joins_gets_its_part_of_the_shards(world: World) -> None:
    with world.used() as client:
        assert "n5 serves at" in world.jade("add")
        world.wait(lambda told: told["status"] == "HEALTHY" and min(one["shards"] for one in told["nodes"]) >= 2)
        everywhere = client.create_database("everywhere", DIMENSION, shards=2, replication=5)
        everywhere.upsert(["a", "b"], np.eye(2, DIMENSION, dtype=np.float32))
        world.check_replicas("everywhere", 5)
        why = "no other node to go to: it shall have 5 of each shard, and 4 other nodes"
        world.wait(lambda told: why in told, lambda: world.jade("drain", "5", code=1))
        client.drop_database("everywhere")
    world.check_replicas("words", 3)
    world.check_replicas("single", 1)


def test_a_drained_node_loses_its_replicas_and_nobody_notices(world: World) -> None:
    with world.used():
        shown = world.jade("drain", "n1", "--wait", WAIT_S)
        lines = shown.splitlines()
        assert "replicas to move" in lines[0] and "n1: removed" in lines
        assert "keeps the log, with n2, n3" in lines[-1]
        told = world.wait(lambda told: told["master_node"] not in ("none", "n1"))
        assert [one["node_id"] for one in told["nodes"]] == ["n2", "n3", "n4", "n5"]
    world.check_replicas("words", 3)
    world.check_replicas("single", 1)
    assert "shards" not in {path.name for path in (world.folder / "n1" / "data" / "shards").glob("*")}


def test_a_master_that_dies_during_a_drain_is_replaced_and_the_drain_goes_on(world: World) -> None:
    with world.used():
        master = str(world.wait(lambda told: told["master_node"] != "none")["master_node"])
        leaving = "n4" if master != "n4" else "n5"
        assert f"{leaving}: draining" in world.jade("drain", leaving)
        world.jade("kill", master)
        world.jade("start", master)
        assert f"{leaving}: removed" in world.jade("drain", leaving, "--wait", WAIT_S)
    world.check_replicas("words", 3)
    world.jade("down", leaving)
    world.jade("start", leaving)  # anew: it joins
    world.wait(lambda told: told["status"] == "HEALTHY" and min(one["shards"] for one in told["nodes"]) >= 2)


def test_a_node_that_dies_while_it_is_drained_is_told_and_the_drain_ends_when_it_is_back(world: World) -> None:
    """It has the only replica of a shard."""
    world.check_replicas("single", 1)  # what was moving is there
    one = world.ask("shards", "--database", "single")[0]
    leaving, shard = "n4", one["shard_id"]
    with world.used():
        if one["replica_nodes"] != leaving:
            source = one["replica_nodes"]
            refused = world.jade("migrate", shard, "--to", leaving, "--from", "n5" if source != "n5" else "n3", code=1)
            assert "has no replica of this shard" in refused
            assert f"moved from {source} to {leaving}" in world.jade("migrate", shard, "--to", 4, "--wait", WAIT_S)
            assert world.ask("shard-status", shard)["replica_nodes"] == leaving
            assert f"moves from {source} to {leaving}: by hand" in world.jade("diagnostics", "--format", "json")
        world.jade("kill", leaving)
        world.wait(lambda told: next(one for one in told["nodes"] if one["node_id"] == leaving)["status"] == "inactive")
        world.jade("drain", leaving, code=1)
        told = world.wait(lambda told: any("can't be emptied now" in reason for reason in told["reasons"]))
        (says,) = (reason for reason in told["reasons"] if "can't be emptied" in reason)
        assert f"only {leaving} has its data and is away: start it" in says and f"jade cluster keep {leaving}" in says
        assert told["status"] != "HEALTHY"
        for command in (
            ["diagnostics", "--format", "json"],
            ["drain", leaving],
        ):  # how many shards stay may change in between
            shown = world.jade(*command, code=int(command[0] == "drain"))
            assert f"only {leaving} has its data and is away: start it" in shown
        assert "stays" in world.jade("keep", leaving)
        world.wait(lambda told: not any("can't be emptied" in reason for reason in told["reasons"]))
        world.jade("drain", leaving, code=1)
        world.jade("start", leaving)
        assert f"{leaving}: removed" in world.jade("drain", leaving, "--wait", WAIT_S)
    world.check_replicas("words", 3)
    world.check_replicas("single", 1)
    world.wait(lambda told: told["status"] == "HEALTHY" and leaving not in [one["node_id"] for one in told["nodes"]])
