"""The end of a run: everything mended, the cluster healthy by its own word, all that was promised done, and all that is stored looked at.

Writes at EVENTUAL lie in the outbox of the node that took them, which publishes in order: a last one through each node, to each shard,
that a STRONG read shows proves that all before it are in the log.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from jadevectordb.sim.history import Level
from jadevectordb.sim.recorder import Recorder
from tests.nemesis.client import Client
from tests.nemesis.cluster import DATABASE, RealCluster
from tests.nemesis.node import NodeDidNot
from tests.nemesis.registers import Registers

HEALTHY_S = 120.0
_OUTBOXES_S = 60.0
_REPLICAS_S = 60.0
_READ_AT_ONCE = 50
_TRIES = 20


@dataclass(slots=True)
class Settled:
    """findings: what is wrong beside what the history shows."""

    findings: list[str] = field(default_factory=list)
    healthy_s: float | None = None
    outboxes_s: float | None = None
    vectors: int = 0


class Settling:
    def __init__(
        self, cluster: RealCluster, recorder: Recorder, registers: Registers, seed: int, tell: Callable[[str], None]
    ) -> None:
        self._cluster = cluster
        self._recorder = recorder
        self._registers = registers
        self._rng = random.Random(f"{seed} settling")
        self._tell = tell
        self._result = Settled()

    def run(self) -> Settled:
        """Clients have stopped, faults are over."""
        result = self._result
        try:
            result.healthy_s = self._cluster.wait_healthy(HEALTHY_S)
            self._tell(f"healthy after {result.healthy_s:.1f} s")
            result.outboxes_s = self._empty_outboxes()
            self._tell(f"outboxes empty after {result.outboxes_s:.1f} s")
        except NodeDidNot as finding:
            result.findings.append(str(finding))
            self._tell(f"FOUND {finding}")
        else:
            self._recorder.settled()
            self._note_conflicts()
        self._read_all()
        self._compare_replicas()
        return result

    def _client(self, name: str, rests: list[str]) -> Client:
        return Client(name, self._recorder, self._registers, rests, self._cluster.token, self._rng)

    def _empty_outboxes(self) -> float:
        began_s = time.monotonic()
        marks = []
        for node in self._cluster.nodes:
            client = self._client(f"last {node.name}", [node.rest])
            for mark in self._marks(node.name):
                marks.append(mark)
                client.write(Level.EVENTUAL, [mark])
            client.close()
        missing = marks
        while missing:
            if time.monotonic() - began_s > _OUTBOXES_S:
                raise NodeDidNot(
                    f"writes at EVENTUAL that were answered {_OUTBOXES_S:g} s ago are not in the log: {missing}"
                )
            time.sleep(0.1)
            missing = [mark for mark, item in zip(missing, self._look(missing), strict=True) if item is None]
        return time.monotonic() - began_s

    def _marks(self, node: str) -> list[str]:
        """An id for each log: of each shard, or, where vectors decide, of all."""
        if self._registers.by_vector:
            return [f"last.{node}"]
        return [self._mark(node, shard) for shard in range(self._cluster.shards)]

    def _mark(self, node: str, shard: int) -> str:
        """An id that lies in this shard."""
        return next(
            mark for n in range(10_000) if self._registers.shards_of([mark := f"last.{node}.{shard}.{n}"]) == [shard]
        )

    def _look(self, ids: list[str]) -> list[object]:
        node = self._rng.choice(self._cluster.nodes)
        body = {"ids": ids, "include": ["metadata"]}
        headers = {"X-Jade-Consistency": "strong"}
        answer = self._cluster.insist(node, "POST", f"/v2/databases/{DATABASE}/vectors/get", body, headers=headers)
        return list(answer["vectors"])

    def _note_conflicts(self) -> None:
        """Writes at EVENTUAL that the cluster itself lists as having changed nothing."""
        answer = self._cluster.insist(self._cluster.nodes[0], "GET", f"/v2/databases/{DATABASE}/conflicts")
        self._tell(f"{answer['found']} conflicts of writes at EVENTUAL, {answer['superseded']} overtaken")
        for one in answer["conflicts"]:
            if one["winner"] == "stood":
                self._recorder.conflict(one["id"], request=one["late"]["request_id"])

    def _read_all(self) -> None:
        """Every id there ever was, at STRONG, so that no loss goes unseen; and numbers that must agree with that."""
        client = self._client("last", [node.rest for node in self._cluster.nodes])
        ids = self._registers.all()
        ids += [mark for node in self._cluster.nodes for mark in self._marks(node.name)]
        present = 0
        for start in range(0, len(ids), _READ_AT_ONCE):
            some = ids[start : start + _READ_AT_ONCE]
            found = next((found for _ in range(_TRIES) if (found := client.read(Level.STRONG, some)) is not None), None)
            if found is None:
                self._result.findings.append(f"a healthy cluster did not answer a STRONG read {_TRIES} times in a row")
                return
            present += sum(item.value is not None for item in found)
        counted = next((n for _ in range(_TRIES) if (n := client.count()) is not None), None)
        if counted != present:
            self._result.findings.append(f"{present} vectors were found by their ids, {counted} are counted")
        self._result.vectors = present
        client.close()

    def _compare_replicas(self) -> None:
        replicas = self._cluster.replicas(_REPLICAS_S)
        expected = self._cluster.shards * self._cluster.replication
        if len(replicas) != expected:
            self._result.findings.append(f"{len(replicas)} replicas were found on the nodes, there must be {expected}")
        for replica in replicas:
            self._recorder.replica(replica.shard, replica.node, replica.watermark, replica.digest, replica.vectors)
