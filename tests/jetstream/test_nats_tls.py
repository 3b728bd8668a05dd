"""TLS between servers and for clients: a cluster works over it, and nobody without a certificate of its authority gets in."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from jadevectordb.adapters.jetstream_log import JetStreamLog
from jadevectordb.adapters.nats_config import TlsFiles
from jadevectordb.adapters.nats_connection import NatsConnection
from jadevectordb.adapters.nats_external import check_external
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.operations import Barrier, Entry
from tests.hosting_world import WAIT_S, wait_until
from tests.nats_cluster import NatsCluster
from tests.tls_files import tls_files


def leader_of(cluster: NatsCluster) -> str:
    """The server that leads the servers' own group, "" = none says so now."""
    led = (s.config.name for s in cluster.servers.values() if s.health().leader == s.config.name)
    return next(led, "")


def test_a_cluster_over_tls_and_strangers(tmp_path: Path) -> None:
    tls = tls_files(tmp_path / "tls", trustme.CA())
    strangers = tls_files(tmp_path / "strangers", trustme.CA())
    with NatsCluster(tmp_path, servers=3, tls=tls) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials, tls=tls)
        log = JetStreamLog(connection, "tests", "db", append_s=WAIT_S)
        log.ensure_streams([0])
        assert log.append([(0, Entry(Barrier(), 1))]) == [1]
        for sequence in range(2, 7):  # on a busy machine another may lead by now, or there is no time to hand over
            led = wait_until(lambda: leader_of(cluster))
            handed_over = cluster.stop(led)
            assert log.append([(0, Entry(Barrier(), sequence))]) == [sequence]
            if "meta" in handed_over:
                break
            cluster.restart(led)
        assert "meta" in handed_over
        log.close()
        connection.close()
        for wrong in (strangers, None):
            connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials, tls=wrong)
            with pytest.raises(JadeError, match="no NATS server could be reached") as caught:
                check_external(connection, None, connect_s=1)
            assert caught.value.code is ErrorCode.UNAVAILABLE
            connection.close()


def test_files_that_are_no_certificates_are_named(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    with pytest.raises(JadeError, match=r"nothing\.pem") as caught:
        NatsConnection(["tls://127.0.0.1:4222"], SystemClock(), tls=TlsFiles(nothing, nothing, nothing))
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT
