"""Settings of a node: what is derived from them, and what is said about wrong ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.settings.cluster import (
    ClusterSettings,
    NatsNode,
    NodeAddress,
    keeps_log,
    nats_nodes,
    own_nats,
    peers,
    secret_of,
)
from jadevectordb.settings.sources import load

SECRET = "a secret of at least 16"
BASE: dict[str, Any] = {
    "cluster.enabled": True,
    "cluster.node_id": "n1",
    "cluster.secret": SECRET,
    "cluster.join": "db1:9081,db2:9081,db3:9081",
    "cluster.peer_host": "db1",
}


def cluster(**changes: Any) -> ClusterSettings:
    flags = {**BASE, **{f"cluster.{name}": value for name, value in changes.items()}}
    return load(None, {}, {name: value for name, value in flags.items() if value is not None}).settings.cluster


def test_a_single_node_needs_nothing() -> None:
    settings = load(None, {}, {}).settings.cluster
    assert not settings.enabled and settings.replication == 3 and settings.shards == 4


def test_the_others_are_those_of_join_without_this_node() -> None:
    settings = cluster(join="db1:9081, db2:9081,db3:9181,db2:9081")
    assert peers(settings) == (NodeAddress("db2", 9081), NodeAddress("db3", 9181))


def test_every_node_finds_the_same_keepers_of_the_log() -> None:
    found = {nats_nodes(cluster(peer_host=host)) for host in ("db1", "db2", "db3")}
    assert found == {tuple(NatsNode(f"db{n}", 9082, 9083) for n in (1, 2, 3))}
    assert keeps_log(cluster())


def test_ports_on_one_machine_are_as_far_apart_everywhere() -> None:
    join = "127.0.0.1:7000,127.0.0.1:7010,127.0.0.1:7020"
    found = [
        nats_nodes(
            cluster(
                join=join,
                peer_host="127.0.0.1",
                peer_port=port,
                nats_client_port=port + 1,
                nats_route_port=port + 2,
                nats_monitor_port=port + 3,
            )
        )
        for port in (7000, 7010, 7020)
    ]
    assert found[0] == found[1] == found[2]
    assert [node.route_port for node in found[0]] == [7002, 7012, 7022]


def test_the_log_may_be_elsewhere() -> None:
    some = cluster(nats_nodes="db4:9082:9083,db5:9082:9083,[fe80::1]:9082:9083")
    assert not keeps_log(some) and nats_nodes(some)[2] == NatsNode("fe80::1", 9082, 9083)
    assert str(nats_nodes(some)[2]) == "[fe80::1]:9082:9083"
    assert nats_nodes(cluster(nats_urls="nats://u:p@nats1:4222")) == ()
    alone = cluster(join=None)
    assert nats_nodes(alone) == (own_nats(alone),)


def test_the_secret_comes_from_a_file_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET + "\n")
    assert secret_of(cluster(secret=None, secret_file=str(file))) == SECRET
    environment = {"JADEVECTORDB_CLUSTER_SECRET": SECRET, "JADEVECTORDB_CLUSTER_NATS_URLS": "nats://u:hunter2@h:1"}
    known = load(None, environment, {})
    assert SECRET not in str(known.shown()) and "hunter2" not in str(known.shown())
    assert known.origins["cluster.secret"] == "environment JADEVECTORDB_CLUSTER_SECRET"


def test_everything_can_come_from_the_environment() -> None:
    environment = {
        "JADEVECTORDB_CLUSTER_ENABLED": "true",
        "JADEVECTORDB_CLUSTER_NODE_ID": "n7",
        "JADEVECTORDB_CLUSTER_SECRET": SECRET,
        "JADEVECTORDB_CLUSTER_JOIN": "db1:9081,db2:9081,db3:9081",
        "JADEVECTORDB_CLUSTER_DEAD_AFTER_S": "5",
    }
    settings = load(None, environment, {}).settings.cluster
    assert settings.enabled and settings.node_id == "n7" and settings.dead_after_s == 5.0


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"node_id": None}, "cluster.node_id is missing"),
    ({"node_id": "n 1"}, "cluster.node_id"),
    ({"name": "a/b"}, "cluster.name"),
    ({"zone": "a b"}, "cluster.zone"),
    ({"secret": None}, "neither is given"),
    ({"secret": "short"}, "at least 16"),
    ({"secret_file": "/none"}, "both is given"),
    ({"secret": None, "secret_file": "/none"}, "can't be read"),
    ({"join": "db2"}, "HOST:PEER_PORT"),
    ({"join": "http://db2:9081"}, "HOST:PEER_PORT"),
    ({"join": "db2:99999"}, "HOST:PEER_PORT"),
    ({"join": "::1:9081"}, "HOST:PEER_PORT"),
    ({"join": "db1:9081,db2:9081"}, "Two nodes would keep the log"),
    ({"nats_nodes": "db2:9082"}, "HOST:CLIENT_PORT:ROUTE_PORT"),
    ({"nats_urls": "http://h:1"}, "cluster.nats_urls"),
    ({"nats_urls": "nats://h:1", "nats_nodes": "db2:1:2"}, "give one"),
    ({"peer_host": "0.0.0.0"}, "cluster.bind_host"),
    ({"peer_port": 9082}, "both 9082"),
    ({"peer_port": 0}, "cluster.peer_port"),
    ({"join": "db1:9081,db2:65535,db3:9081"}, "outside 1 to 65535"),
    ({"tls_ca": "/none"}, "go together"),
    ({"tls_ca": "/none", "tls_key": "/none", "tls_certificate": "/none"}, "no file /none"),
    ({"replication": 8}, "cluster.replication"),
    ({"shards": 0}, "cluster.shards"),
    ({"lease_s": 60, "replace_after_s": 10}, "replace_after_s"),
]


@pytest.mark.parametrize("changes, told", WRONG, ids=[told for _, told in WRONG])
def test_a_wrong_setting_is_named(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(JadeError) as caught:
        cluster(**changes)
    assert caught.value.code is ErrorCode.INVALID_ARGUMENT and told in caught.value.message
    assert SECRET not in caught.value.message


def test_a_node_is_one_process() -> None:
    with pytest.raises(JadeError, match="one process"):
        load(None, {}, {**BASE, "server.processes": 2})
