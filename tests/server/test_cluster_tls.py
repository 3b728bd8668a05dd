"""Whole nodes that speak TLS among themselves, their nats-servers included: a cluster like any other, and closed to strangers."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import trustme
from tests.hosting_world import wait_until
from tests.tls_files import tls_files

from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_connection import Patience
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.cli.local_cluster import LocalCluster
from jadevectordb.client import Retries
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Asked, Count

WAIT_S = 120.0
DIMENSION, ROWS = 8, 400


def test_a_cluster_over_tls_outlives_a_node_and_lets_no_stranger_in(tmp_path: Path) -> None:
    authority = trustme.CA()
    local = LocalCluster.make(tmp_path / "cluster", 3, None, "open-loopback")
    for node in local.nodes:
        tls = tls_files(tmp_path / node.id, authority)
        with (local.folder / node.id / "node.toml").open("a") as settings:  # the section of the cluster is the last
            settings.write(
                f'tls_certificate = "{tls.certificate}"\ntls_key = "{tls.key}"\ntls_ca = "{tls.authority}"\n'
            )
    vectors = np.random.default_rng(4).standard_normal((ROWS, DIMENSION)).astype(np.float32)
    ids = [f"v{n}" for n in range(ROWS)]
    first, second, third = local.nodes
    try:
        local.start(local.nodes, lambda _: None, wait_s=WAIT_S)
        with local.client(first, second, timeouts=WAIT_S, retries=Retries()) as client:
            database = client.create_database("sealed", DIMENSION, shards=3, replication=2)
            database.upsert(ids[: ROWS // 2], vectors[: ROWS // 2])
            local.kill(third)
            database.upsert(ids[ROWS // 2 :], vectors[ROWS // 2 :])
            assert database.count(consistency="strong") == ROWS
            local.start([third], lambda _: None, wait_s=WAIT_S)
            wait_until(lambda: client.call("GET", "/v1/cluster/status")["status"] == "HEALTHY")
        with local.client(third, timeouts=WAIT_S) as client:
            database = client.database("sealed")
            assert database.exists(ids, consistency="strong") == [True] * ROWS
            found = database.search(vectors[7], k=1, consistency="strong")
            assert [hit.id for hit in found] == ["v7"]
            cluster_id = str(client.call("GET", "/v1/cluster/status")["cluster_id"])
        identity = NodeIdentity("observer", cluster_id, (local.folder / "secret").read_text().strip())
        call = Count(asked=Asked(database=database.id, shards=(0,)))
        address = f"127.0.0.1:{first.ports[2]}"
        for wrong in (None, tls_files(tmp_path / "stranger", trustme.CA())):
            with (
                closing(FramedTransport(identity, SystemClock(), tls=wrong, patience=Patience(2.0, 2.0))) as transport,
                pytest.raises(JadeError) as refused,
            ):
                transport.call(address, call, 5.0)
            assert refused.value.code in (ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT)
    finally:
        for node in local.nodes:
            local.kill(node)
