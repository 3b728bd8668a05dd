"""One run: a cluster, clients, faults, the end, the verdict, and what is kept of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.metric import Metric
from jadevectordb.sim.checkers import Vectors, check
from jadevectordb.sim.history import Fate, History
from jadevectordb.sim.outages import Percentiles, percentiles
from jadevectordb.sim.recorder import Recorder
from jadevectordb.sim.report import Report
from tests.nemesis.cluster import DIMENSION, RealCluster
from tests.nemesis.load import Load
from tests.nemesis.nemesis import Nemesis
from tests.nemesis.registers import Registers, sample, vector_of
from tests.nemesis.settling import Settled, Settling

_SHARDS = 4
_WARM_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """folder: empty; of it remain the history, the report, the nodes' configurations and logs. only: faults with this in their name.

    by_vector: whether the database is sharded by vector.
    """

    folder: Path
    seconds: float
    seed: int
    nodes: int = 3
    clients: int = 6
    only: str = ""
    by_vector: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """findings: what is wrong beside the report's violations: nodes that did not return, answers no server should give, and such."""

    report: Report
    findings: list[str]
    not_here: list[str]
    settled: Settled
    took: dict[str, Percentiles]  # seconds from call to good answer, by level and kind
    user: dict[str, Percentiles]  # seconds that calls of the library's client took, by kind
    user_errors: list[str]
    start_s: float
    folder: Path

    @property
    def is_good(self) -> bool:
        return self.report.verdict == "passed" and not self.findings

    def text(self) -> str:
        lines = [self.report.text().rstrip(), ""]
        lines += [f"not possible here: {what}" for what in self.not_here]
        lines += [f"FOUND: {finding}" for finding in self.findings]
        lines.append(f"{'answered well after':<20}{'p50 ms':>10}{'p90 ms':>10}{'p99 ms':>10}{'longest s':>12}")
        for name, took in self.took.items():
            lines.append(
                f"{name:<20}{took.p50 * 1000:>10.1f}{took.p90 * 1000:>10.1f}{took.p99 * 1000:>10.0f}{took.max:>12.2f}"
            )
        lines.append("")
        for kind, took in self.user.items():
            lines.append(
                f"the library's client: {took.count} {kind}s, p50 {took.p50 * 1000:.1f} ms, p99 {took.p99:.2f} s, longest {took.max:.2f} s"
            )
        lines.append(f"errors that reached its user: {len(self.user_errors)}")
        lines += [f"  {error}" for error in self.user_errors[:10]]
        settled = self.settled
        lines.append(
            f"started in {self.start_s:.1f} s; at the end healthy after {_told(settled.healthy_s)}, outboxes empty after "
            f"{_told(settled.outboxes_s)}, {settled.vectors} vectors; kept in {self.folder}"
        )
        return "\n".join(lines) + "\n"

    def json(self) -> bytes:
        document: dict[str, Any] = {
            "good": self.is_good,
            "findings": self.findings,
            "not_possible_here": self.not_here,
            "took_s": {name: asdict(took) for name, took in self.took.items()},
            "user_s": {kind: asdict(took) for kind, took in self.user.items()},
            "user_errors": self.user_errors,
            "start_s": self.start_s,
            "healthy_s": self.settled.healthy_s,
            "outboxes_s": self.settled.outboxes_s,
            "vectors": self.settled.vectors,
            "report": msgspec.Raw(self.report.json()),
        }
        return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _told(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def _took(history: History) -> dict[str, Percentiles]:
    by_name: dict[str, list[float]] = {}
    for operation in history.operations:
        if operation.answer is not None and operation.fate is Fate.OK:
            name = f"{operation.call.level} {operation.call.kind}"
            by_name.setdefault(name, []).append(operation.answer.time_s - operation.call.time_s)
    return {name: found for name, took in sorted(by_name.items()) if (found := percentiles(took)) is not None}


def run(plan: Plan, tell: Callable[[str], None]) -> Outcome:
    """tell: for those who watch."""
    recorder = Recorder(time.monotonic, plan.folder / "history.jsonl")
    sharding = {"kind": "vector", "sample": sample()} if plan.by_vector else None
    cluster = RealCluster(plan.folder, plan.nodes, shards=_SHARDS, sharding=sharding)
    began_s = time.monotonic()

    def say(text: str) -> None:
        tell(f"{time.monotonic() - began_s:7.2f} s  {text}")

    try:
        start_s = cluster.start()
        say(f"{plan.nodes} nodes run")
        registers = Registers(_SHARDS, by_vector=plan.by_vector)
        nemesis = Nemesis(cluster, recorder, random.Random(f"{plan.seed} nemesis"), say, plan.only)
        load = Load(
            recorder, registers, [node.rest for node in cluster.nodes], cluster.token, plan.seed, plan.clients
        )  # fmt: skip
        try:
            nemesis.run(plan.seconds, lambda: load.failure is not None)
        finally:
            load.stop()
        if load.failure is not None:
            raise load.failure
        say("faults are over, clients have stopped")
        settled = Settling(cluster, recorder, registers, plan.seed, say).run()
        findings = nemesis.findings + settled.findings
        findings += [f"{one.operation} was answered with {one.error}" for c in load.clients for one in c.defects]
    finally:
        cluster.close()
        recorder.close()
    say("checking the history")
    space = VectorSpace(Metric.EUCLIDEAN, DIMENSION)
    history = recorder.history()
    report = check(history, vectors=Vectors(space, vector_of), replicas_expected=min(3, plan.nodes))
    user = {kind: found for kind, took in load.user.took_s.items() if (found := percentiles(took)) is not None}
    errors = [f"at {at_s - began_s:.2f} s, {error}" for at_s, error in load.user.errors]
    outcome = Outcome(report, findings, nemesis.not_here, settled, _took(history), user, errors, start_s, plan.folder)
    (plan.folder / "report.json").write_bytes(outcome.json())
    (plan.folder / "report.txt").write_text(outcome.text(), "utf-8")
    return outcome
