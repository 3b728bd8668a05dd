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
from tests.nats_cluster import NatsCluster


def files(folder: Path, authority: trustme.CA) -> TlsFiles:
    folder.mkdir()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(folder / "cert.pem", append=number > 0)
    authority.cert_pem.write_to_path(folder / "ca.pem")
    return TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem")


def test_a_cluster_over_tls_and_strangers(tmp_path: Path) -> None:
    tls = files(tmp_path / "tls", trustme.CA())
    strangers = files(tmp_path / "strangers", trustme.CA())
    with NatsCluster(tmp_path, servers=3, tls=tls) as cluster:
        connection = NatsConnection(cluster.urls, SystemClock(), credentials=cluster.credentials, tls=tls)
        log = JetStreamLog(connection, "tests", "db")
        log.ensure_streams([0])
        assert log.append([(0, Entry(Barrier(), 1))]) == [1]
        led = next(
            server.config.name for server in cluster.servers.values() if server.health().leader == server.config.name
        )
        assert "meta" in cluster.stop(led)
        assert log.append([(0, Entry(Barrier(), 2))]) == [2]
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
