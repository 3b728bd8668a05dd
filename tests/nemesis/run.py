"""One run: a cluster, clients, faults, the end, the verdict, and what is kept of it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.metric import Metric
from jadevectordb.sim.checkers import Vectors, check
from jadevectordb.sim.recorder import Recorder
from jadevectordb.sim.report import Report
from tests.nemesis.cluster import DIMENSION, RealCluster
from tests.nemesis.load import Load
from tests.nemesis.nemesis import Nemesis
from tests.nemesis.registers import Registers, vector_of
from tests.nemesis.settling import Settled, Settling

_SHARDS = 4
_WARM_S = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """folder: empty; of it remain the history, the report, the nodes' configurations and logs. only: faults with this in their name."""

    folder: Path
    seconds: float
    seed: int
    nodes: int = 3
    clients: int = 6
    only: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """findings: what is wrong beside the report's violations: nodes that did not return, answers no server should give, and such."""

    report: Report
    findings: list[str]
    not_here: list[str]
    settled: Settled
    start_s: float
    folder: Path

    @property
    def is_good(self) -> bool:
        return self.report.verdict == "passed" and not self.findings

    def text(self) -> str:
        lines = [self.report.text().rstrip(), ""]
        lines += [f"not possible here: {what}" for what in self.not_here]
        lines += [f"FOUND: {finding}" for finding in self.findings]
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
            "start_s": self.start_s,
            "healthy_s": self.settled.healthy_s,
            "outboxes_s": self.settled.outboxes_s,
            "vectors": self.settled.vectors,
            "report": msgspec.Raw(self.report.json()),
        }
        return msgspec.json.format(msgspec.json.encode(document), indent=2)


def _told(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.1f} s"


def run(plan: Plan, tell: Callable[[str], None]) -> Outcome:
    """tell: for those who watch."""
    recorder = Recorder(time.monotonic, plan.folder / "history.jsonl")
    cluster = RealCluster(plan.folder, plan.nodes, shards=_SHARDS)
    began_s = time.monotonic()

    def say(text: str) -> None:
        tell(f"{time.monotonic() - began_s:7.2f} s  {text}")

    try:
        start_s = cluster.start()
        say(f"{plan.nodes} nodes run")
        registers = Registers(_SHARDS)
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
    report = check(
        recorder.history(), vectors=Vectors(space, vector_of), replicas_expected=min(3, plan.nodes)
    )  # fmt: skip
    outcome = Outcome(report, findings, nemesis.not_here, settled, start_s, plan.folder)
    (plan.folder / "report.json").write_bytes(outcome.json())
    (plan.folder / "report.txt").write_text(outcome.text(), "utf-8")
    return outcome
