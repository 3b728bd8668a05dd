"""Every replica's own word about what it holds, asked of each node by itself: how equality of replicas is shown, not assumed."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from jadevectordb.adapters.framed_client import FramedTransport
from jadevectordb.adapters.framed_greeting import NodeIdentity
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.ports.node_calls import Asked, Count, Look

_ASK_S = 30.0
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, order=True)
class ReplicaDigest:
    """digest: a fingerprint of ids, versions, vectors and metadata. watermark: the log entry it was taken at."""

    shard: int
    node: str
    watermark: int
    rows: int
    digest: str


class DigestReader:
    """secret: the cluster's, as its nodes have it. peers: address for nodes by node. A context manager."""

    def __init__(self, cluster_id: str, secret_file: Path, peers: dict[str, str]) -> None:
        self._peers = peers
        identity = NodeIdentity("observer", cluster_id, secret_file.read_text("utf-8").strip())
        self._transport = FramedTransport(identity, SystemClock())

    def __enter__(self) -> DigestReader:
        return self

    def __exit__(self, *_: object) -> None:
        with closing(self._transport):
            pass

    def of(self, database_id: str, shards: int) -> list[ReplicaDigest]:
        """What each node holds of each shard, now; a node that can't be asked, or holds nothing of it, is left out."""
        found = []
        for node, address in self._peers.items():
            for shard in range(shards):
                asked = Asked(database=database_id, shards=(shard,))
                try:
                    counted = self._transport.call(address, Count(asked=asked), _ASK_S)
                    looked = self._transport.call(address, Look(asked=asked, what="digest"), _ASK_S)
                except JadeError as error:
                    if error.code not in (ErrorCode.STALE_MAP, ErrorCode.UNAVAILABLE, ErrorCode.TIMEOUT):
                        raise
                    continue
                digest = msgspec.json.decode(looked.by_shard[0][1], type=str)
                found.append(ReplicaDigest(shard, node, dict(counted.watermarks)[shard], counted.count, digest))
        return sorted(found)

    def settled(self, database_id: str, shards: int, replicas: int, limit_s: float) -> list[ReplicaDigest]:
        """The same once all replicas are there and stand at one place of each shard's log; what there is after `limit_s`."""
        until_s = time.monotonic() + limit_s
        while True:
            found = self.of(database_id, shards)
            if (len(found) == shards * replicas and equal(found)) or time.monotonic() > until_s:
                return found
            time.sleep(_LOOK_S)


def equal(found: list[ReplicaDigest]) -> bool:
    """Whether all replicas of each shard say the same."""
    return len({(one.shard, one.watermark, one.digest) for one in found}) == len({one.shard for one in found})
