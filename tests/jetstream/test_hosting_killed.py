"""A node that is killed at any moment comes back with every entry applied once, from its own folder or from a peer's."""

from __future__ import annotations

import random
import secrets
import threading
from contextlib import ExitStack
from pathlib import Path

import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.ports.node_calls import Applied, Asked, AwaitApplied, Look
from tests.hosting_process import HostingProcess
from tests.hosting_world import ACTIVE, Node, Nodes, seal, wait_until, write_rows
from tests.nats_cluster import NatsCluster

ROUNDS = 2
S = 60.0


class Appender:
    """Appends entries of ten vectors, many of which replace older ones, until it is stopped."""

    def __init__(self, nodes: Nodes, database: str) -> None:
        self._log = nodes.open_log(database)
        self._stopped = threading.Event()
        self.last = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for n in range(1_000_000):
            if self._stopped.is_set():
                return
            self.last = write_rows(self._log, n % 40, 10)
            if n % 60 == 59:
                self.last = seal(self._log)

    def stop(self) -> int:
        self._stopped.set()
        self._thread.join()
        return self.last


def await_applied(node: Node, address: str, database: str, sequence: int) -> Applied:
    def ask() -> Applied | None:
        try:
            call = AwaitApplied(database=database, shard=0, sequence=sequence, wait_s=S)
            answer: Applied = node.transport.call(address, call, S)
        except Exception:  # it is still opening
            return None
        return answer

    found: Applied = wait_until(ask)
    return found


@pytest.mark.parametrize("truncated", [False, True])
def test_a_killed_node_comes_back_the_same(tmp_path: Path, truncated: bool) -> None:
    database, bucket = "killed", f"meta-{secrets.token_hex(3)}"
    chance = random.Random(7)
    with NatsCluster(tmp_path / "nats") as cluster, ExitStack() as open_:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        nodes = Nodes(connection, tmp_path, bucket)
        open_.callback(connection.close)
        open_.callback(nodes.close)
        log = nodes.create(database)
        nodes.place(database, a=ACTIVE, b=ACTIVE)
        a = nodes.start("a")
        process = HostingProcess(nodes, "b", bucket, cluster.urls[0])

        def end() -> None:
            process.kill()  # the newest one

        open_.callback(end)
        for _ in range(ROUNDS):
            writer = Appender(nodes, database)
            open_.callback(writer.stop)
            begun = wait_until(lambda writer=writer: writer.last)
            wanted = begun + chance.randrange(50, 250)
            wait_until(lambda writer=writer, wanted=wanted: writer.last >= wanted, seconds=3 * S)
            process.kill()
            if truncated:
                hosted = a.wait_applied(database, writer.last)
                checkpointed = wait_until(lambda hosted=hosted: hosted.report().checkpointed)
                log.truncate({0: checkpointed})
            process = HostingProcess(nodes, "b", bucket, cluster.urls[0])
            last = writer.stop()
            applied = await_applied(a, process.address, database, last)
            assert not applied.known or applied.sequence == last
            a.wait_applied(database, last)
            look = Look(asked=Asked(database=database, shards=(0,), at_least=((0, last),), wait_s=S), what="digest")
            address = process.address
            both = address, a.server.address
            wait_until(lambda look=look, both=both: all(_digest(a, one, look) for one in both))
            assert a.ask(both[0], look) == a.ask(both[1], look)
        process.stop()


def _digest(node: Node, address: str, look: Look) -> bytes | None:
    try:
        ((_, digest),) = node.transport.call(address, look, S).by_shard
    except Exception:  # it catches up
        return None
    assert isinstance(digest, bytes)
    return digest
