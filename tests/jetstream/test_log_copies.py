"""A keeper that was given a new disk says that its copy of the log is not whole, until it is."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import numpy as np

from jadevectordb.adapters.jetstream_log import JetStreamLog, stream_name
from jadevectordb.adapters.log_copies import LogCopies
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.nats_monitor import stored
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.ids import ShardId
from jadevectordb.model.operations import Entry, Write
from tests.nats_cluster import NatsCluster

WAIT_S = 120.0
ENTRIES, ROWS, DIMENSION = 60, 1000, 64  # about 17 MB
STREAMS = [stream_name("tests", "copied", ShardId(shard)) for shard in range(2)]


def test_a_copy_is_whole_only_when_every_entry_is_in_it(tmp_path: Path) -> None:
    with NatsCluster(tmp_path, servers=3) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials)
        log = JetStreamLog(connection, "tests", "copied", replicas=3)
        log.ensure_streams(range(2))
        vectors = np.random.default_rng(1).standard_normal((ROWS, DIMENSION)).astype(np.float32)
        for time_ in range(1, ENTRIES + 1):
            log.append([(0, Entry(Write([f"{time_}-{n}" for n in range(ROWS)], vectors, [b"{}"] * ROWS), time_))])
        log.append([(1, Entry(Write(["only"], vectors[:1], [b"{}"]), 1))])
        ends = {STREAMS[0]: ENTRIES, STREAMS[1]: 1}
        cluster.kill("n2")
        shutil.rmtree(tmp_path / "n2")
        cluster.restart("n2", wait=False)
        fresh = cluster.servers["n2"]
        assert fresh.trouble == "" and fresh.copies.is_whole  # nobody has said yet what there must be
        fresh.copies.know(lambda: ends)
        told = set()
        until_s = time.monotonic() + WAIT_S
        while trouble := fresh.trouble:
            assert time.monotonic() < until_s, trouble
            told.add(trouble)
            time.sleep(0.01)
        assert told
        held = stored(cluster.configs[1].monitoring)
        assert {name: held[name] for name in STREAMS} == ends
        log.close()
        connection.close()


def test_what_no_server_has_is_not_whole_and_what_others_keep_does_not_count(tmp_path: Path) -> None:
    with NatsCluster(tmp_path) as cluster:
        monitoring = cluster.configs[0].monitoring
        for holds_all in (True, False):
            copies = LogCopies(monitoring, holds_all=holds_all)
            copies.know(lambda: {STREAMS[0]: 5})
            assert "not found out" in copies.trouble
            copies.look()
            assert copies.is_whole is not holds_all
            assert ("1 of 1 streams" in copies.trouble) is holds_all
            copies.begin_anew()
            assert not copies.is_whole
        cluster.kill("n1")
        copies.look()
        assert not copies.is_whole  # nobody answers: nothing is known
