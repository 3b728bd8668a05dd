"""At the end all replicas of a shard are the same: equal watermarks, equal digests, equal counts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from jadevectordb.sim.checks.violation import Rule, Violation
from jadevectordb.sim.history import ReplicaReport


def check_replicas(reports: Iterable[ReplicaReport], *, replicas_expected: int | None = None) -> Iterator[Violation]:
    """reports: taken when the cluster had settled; of several by one replica the newest counts."""
    by_shard: dict[int, dict[str, ReplicaReport]] = {}
    for report in reports:
        by_shard.setdefault(report.shard, {})[report.node] = report
    for shard, newest in sorted(by_shard.items()):
        replicas = [newest[node] for node in sorted(newest)]
        lines = tuple(f"{r.node}: watermark {r.watermark}, {r.vectors} vectors, digest {r.digest}" for r in replicas)
        if replicas_expected is not None and len(replicas) != replicas_expected:
            yield Violation(
                Rule.REPLICAS,
                f"Shard {shard}: {len(replicas)} replicas reported, {replicas_expected} were expected.",
                lines,
            )
        behind = [r.node for r in replicas if r.watermark < max(x.watermark for x in replicas)]
        if behind:
            top = max(r.watermark for r in replicas)
            yield Violation(
                Rule.REPLICAS, f"Shard {shard}: {', '.join(behind)} did not catch up with watermark {top}.", lines
            )
        yield from _same_contents(shard, replicas, lines)


def _same_contents(shard: int, replicas: list[ReplicaReport], lines: tuple[str, ...]) -> Iterator[Violation]:
    by_watermark: dict[int, list[ReplicaReport]] = {}
    for replica in replicas:
        by_watermark.setdefault(replica.watermark, []).append(replica)
    for watermark, same in sorted(by_watermark.items()):
        if len({(r.digest, r.vectors) for r in same}) > 1:
            nodes = ", ".join(r.node for r in same)
            yield Violation(
                Rule.REPLICAS, f"Shard {shard}: {nodes} all applied {watermark} entries and differ in contents.", lines
            )
