"""An entry that is damaged in the log itself, after some replicas have applied it: the others get past it within seconds, and say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.ids import Sequence, ShardId
from jadevectordb.model.operations import Seal
from tests.hosting_world import ACTIVE, Node, Nodes, wait_until, write_rows
from tests.jetstream.test_log_damage import flip
from tests.nats_cluster import NatsCluster

DATABASE = "db"


@pytest.fixture
def damaged(tmp_path: Path) -> Iterator[tuple[Nodes, Node, int]]:
    """Replicas on a and b, of which b stopped before entries that a has in memory; one of them is damaged since. And the last one."""
    with NatsCluster(tmp_path / "nats") as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        nodes = Nodes(connection, tmp_path, "meta")
        log = nodes.create(DATABASE, replication=2, seal_rows=10_000)
        nodes.place(DATABASE, replication=2, a=ACTIVE, b=ACTIVE)
        a, b = nodes.start("a"), nodes.start("b")
        last = write_rows(log, 0, 5)
        for node in (a, b):
            node.wait_applied(DATABASE, last)
        b.stop()
        for seed in range(1, 9):
            last = write_rows(log, seed, 5)
        a.wait_applied(DATABASE, last)
        cluster.stop("n1")
        flip(tmp_path / "nats" / "n1", log.stream(0), b"v4-3")
        cluster.restart("n1")
        yield nodes, a, last
        nodes.close()
        connection.close()


def test_a_replica_gets_past_a_damaged_entry_with_what_a_peer_has_in_memory(damaged: tuple[Nodes, Node, int]) -> None:
    nodes, a, last = damaged
    b = nodes.start("b")
    hosted = b.wait_applied(DATABASE, last + 1)  # b had it written by an entry of its own
    wait_until(lambda: a.hosted(DATABASE).watermark == hosted.watermark)
    assert a.digests(DATABASE, 0) == b.digests(DATABASE, 0)
    assert hosted.report().rows == 45
    assert "Entry 5 of its log is damaged" in hosted.report().repaired
    log = nodes.open_log(DATABASE)
    later = [type(one.entry.operation) for one in log.entries(ShardId(0), Sequence(last + 1), log.last(ShardId(0)))]
    log.close()
    assert later == [Seal], "asked for once"
