"""Which cluster a node belongs to, and that nobody else there goes by its name.

    FOLDER/cluster.json    {cluster_id, node_id}: written when the folder first joined a cluster, compared ever after
    cluster/identity       the same cluster_id in the metadata store, made by whichever node came first
    cluster/node/ID        what the node says of itself, with another incarnation every start

A folder never serves another cluster than its own: its replicas would continue logs they never saw the beginning of.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from jadevectordb.model.database import CATALOG_NAME
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore
from jadevectordb.topology.cluster_map import BEAT_PREFIX, IDENTITY_KEY, NODE_PREFIX, Heartbeat, NodeRecord

FORMAT_VERSION = 1
FILE_NAME = "cluster.json"


class ClusterIdentity(msgspec.Struct, frozen=True, kw_only=True):
    cluster_id: str
    name: str
    format: int = FORMAT_VERSION
    created_ms: int = 0


class FolderIdentity(msgspec.Struct, frozen=True, kw_only=True):
    cluster_id: str
    node_id: str
    format: int = FORMAT_VERSION


def folder_identity(folder: Path, node: str) -> FolderIdentity | None:
    """What the folder says it belongs to; None for a folder that never was in a cluster. Raises CONFLICT, CORRUPT, FORMAT_TOO_NEW."""
    _refuse_single_node(folder)
    path = folder / FILE_NAME
    try:
        found = msgspec.json.decode(path.read_bytes(), type=FolderIdentity)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise JadeError(
            ErrorCode.CORRUPT,
            f"{path} can't be read ({error}): restore it, or empty the folder to have this node loaded anew from the others.",
            details={"file": str(path)},
        ) from None
    _check_format(found.format, str(path))
    if found.node_id != node:
        raise JadeError(
            ErrorCode.CONFLICT,
            f"{folder} is the folder of node {found.node_id!r}, this node was started as {node!r}: "
            f"start it with --node-id {found.node_id}, or give another folder.",
            details={"folder": str(folder), "node": found.node_id},
        )
    return found


def _refuse_single_node(folder: Path) -> None:
    if (folder / CATALOG_NAME).exists():
        raise JadeError(
            ErrorCode.CONFLICT,
            f"{folder} holds the databases of a single node: give the cluster's node another folder, and take this one in "
            "with `jade cluster adopt`.",
            details={"folder": str(folder)},
        )


def join(
    store: MetadataStore,
    folder: Path,
    found: FolderIdentity | None,
    *,
    node: str,
    name: str,
    new_id: Callable[[], str],
    clock: Clock,
    write_atomically: Callable[[Path, bytes], None],
) -> ClusterIdentity:
    """Find or make the cluster's identity, and bind the folder to it.

    found: what `folder_identity` returned. Raises CONFLICT when the folder belongs to another cluster; then nothing was changed.
    """
    identity = _identity(store)
    if found is not None:
        refuse_other_cluster(folder, found, identity)
    while identity is None:
        made = ClusterIdentity(cluster_id=new_id(), name=name, created_ms=clock.now_ms())
        store.compare_and_set(IDENTITY_KEY, msgspec.json.encode(made), 0)
        identity = _identity(store)  # ours, or that of a node that was faster
    _check_format(identity.format, "the cluster")
    if identity.name != name:
        raise JadeError(
            ErrorCode.CONFLICT,
            f"The cluster is named {identity.name!r}, cluster.name says {name!r}: use the same everywhere.",
        )
    if found is None:
        own = FolderIdentity(cluster_id=identity.cluster_id, node_id=node)
        write_atomically(folder / FILE_NAME, msgspec.json.encode(own))
    return identity


def refuse_other_cluster(folder: Path, found: FolderIdentity, identity: ClusterIdentity | None) -> None:
    """identity: of the cluster that the node is about to join; None = it has none. Raises CONFLICT."""
    if identity is None or identity.cluster_id != found.cluster_id:
        theirs = (
            "the metadata store of the nodes named in cluster.join is empty (its files are gone, or they are others)"
            if identity is None
            else f"the nodes named in cluster.join are cluster {identity.cluster_id}"
        )
        raise JadeError(
            ErrorCode.CONFLICT,
            f"{folder} belongs to cluster {found.cluster_id}, but {theirs}: name the nodes of its own cluster, or give an empty folder.",
            details={"folder": str(folder), "cluster": found.cluster_id},
        )


def _identity(store: MetadataStore) -> ClusterIdentity | None:
    record = store.get(IDENTITY_KEY)
    return None if record is None else identity_of(record.value)


def identity_of(value: bytes) -> ClusterIdentity:
    """The record under IDENTITY_KEY."""
    return msgspec.json.decode(value, type=ClusterIdentity)


def _check_format(found: int, what: str) -> None:
    if found > FORMAT_VERSION:
        raise JadeError(
            ErrorCode.FORMAT_TOO_NEW,
            f"{what} has cluster format {found}, this program knows up to {FORMAT_VERSION}: use the newer JadeVectorDB that made it.",
        )


def register(
    store: MetadataStore, record: NodeRecord, clock: Clock, wait: Callable[[float], None], silent_s: float
) -> None:
    """Enter what this node says of itself, unless another process of the same name is alive.

    To be called while it listens at `record.peer`: who listens at the address of the node before is the only one there;
    elsewhere, its heartbeat is watched for `silent_s`.
    wait: sleeps. Raises CONFLICT naming the other's address.
    """
    key = NODE_PREFIX + record.id
    while True:
        stored = store.get(key)
        if stored is not None:
            before = msgspec.json.decode(stored.value, type=NodeRecord)
            if before.peer != record.peer and _is_alive(store, before, clock, wait, silent_s):
                raise JadeError(
                    ErrorCode.CONFLICT,
                    f"A node named {record.id!r} runs already, at {before.peer}: give this one another --node-id, or stop that one.",
                    details={"node": record.id, "peer": before.peer},
                )
            record = msgspec.structs.replace(record, draining=before.draining)
        expected = 0 if stored is None else stored.revision
        if store.compare_and_set(key, msgspec.json.encode(record), expected) is not None:
            return


def _is_alive(
    store: MetadataStore, record: NodeRecord, clock: Clock, wait: Callable[[float], None], silent_s: float
) -> bool:
    def beat() -> Heartbeat | None:
        stored = store.get(BEAT_PREFIX + record.id)
        return None if stored is None else msgspec.json.decode(stored.value, type=Heartbeat)

    first, until = beat(), clock.monotonic_s() + silent_s
    while first is not None and clock.monotonic_s() < until:
        wait(0.2)
        now = beat()
        if now is not None and (now.incarnation, now.beat) != (first.incarnation, first.beat):
            return True
    return False
