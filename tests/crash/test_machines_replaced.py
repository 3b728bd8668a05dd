"""Machines that are lost with their disks, one after the other until none of the first is left, each replaced by a new one of its name."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np

from jadevectordb.cli.cluster_digests import DigestReader, equal
from jadevectordb.cli.local_cluster import LocalCluster, LocalNode
from jadevectordb.client import Client, Retries
from jadevectordb.model.errors import JadeError
from tests.hosting_world import wait_until

DIMENSION, SHARDS, BATCH = 16, 2, 50
WAIT_S = 120.0
_PAUSE_S = 0.05  # between writes: so that a test does not end with looking for millions


class Writer(threading.Thread):
    """Writes through any node until it is told to stop. count: batches that were acknowledged, or began to be."""

    def __init__(self, local: LocalCluster) -> None:
        super().__init__()
        self.count = 0
        self.error: BaseException | None = None
        self._over = threading.Event()
        self._client = local.client(*local.nodes, timeouts=WAIT_S, retries=Retries())
        self._random = np.random.default_rng(3)

    def run(self) -> None:
        try:
            database = self._client.database("kept")
            while not self._over.is_set():
                vectors = self._random.standard_normal((BATCH, DIMENSION)).astype(np.float32)
                database.upsert([f"{self.count}-{n}" for n in range(BATCH)], vectors)
                self.count += 1
                self._over.wait(_PAUSE_S)
        except BaseException as error:
            self.error = error
            raise

    def stop(self) -> None:
        self._over.set()
        self.join()
        self._client.close()


def wait_healthy(client: Client) -> str:
    """The cluster's id."""
    until_s = time.monotonic() + WAIT_S
    while True:
        try:
            told = client.call("GET", "/v1/cluster/status")
        except JadeError as error:
            told = {"status": str(error)}
        if told["status"] == "HEALTHY":
            return str(told["cluster_id"])
        assert time.monotonic() < until_s, told
        time.sleep(0.1)


def replace(local: LocalCluster, lost: LocalNode) -> None:
    local.kill(lost)
    shutil.rmtree(local.data_of(lost))
    local.start([lost], lambda _: None, wait_s=WAIT_S)


def test_when_every_machine_was_replaced_nothing_is_lost(tmp_path: Path) -> None:
    """Each keeps the log and a replica of every shard. The next goes as soon as the cluster says that it is whole again."""
    local = LocalCluster.make(tmp_path / "cluster", 3, None, "open-loopback")
    try:
        local.start(local.nodes, lambda _: None, wait_s=WAIT_S)
        with local.client(timeouts=WAIT_S) as client:
            database = client.create_database("kept", DIMENSION, shards=SHARDS, replication=3)
            writer = Writer(local)
            writer.start()
            try:
                for lost in local.nodes:
                    before = writer.count
                    replace(local, lost)
                    with local.client(lost, timeouts=WAIT_S) as fresh:
                        cluster_id = wait_healthy(fresh)
                    wait_until(lambda: writer.error or writer.count > before, seconds=WAIT_S)  # noqa: B023  called at once
                    assert writer.error is None
            finally:
                writer.stop()
            assert writer.error is None
            ids = [f"{batch}-{n}" for batch in range(writer.count) for n in range(BATCH)]
            for start in range(0, len(ids), 1000):
                assert all(database.exists(ids[start : start + 1000], consistency="strong"))
            rows = writer.count * BATCH
            assert database.count(consistency="strong") == rows
            peers = {node.id: f"127.0.0.1:{node.ports[2]}" for node in local.nodes}
            with DigestReader(cluster_id, local.folder / "secret", peers) as reader:
                found = reader.settled(database.id, SHARDS, 3, WAIT_S)
            assert len(found) == 3 * SHARDS and equal(found) and sum(one.rows for one in found) == 3 * rows
    finally:
        for node in local.nodes:
            local.kill(node)
