"""What a run comes to: how much happened, which faults were felt for how long, what was checked, and what was wrong.

`text` is for people, `json` for what compares runs. The verdict has three values, because "nothing wrong was found" is only worth
something where the search was completed: `passed`, `undecided` (nothing wrong, and something not decided), `violated`.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from jadevectordb.model.limits import VIOLATIONS_LISTED_MAX
from jadevectordb.sim.checks.violation import Undecided, Violation
from jadevectordb.sim.outages import Outage, Percentiles, percentiles


@dataclass(frozen=True, slots=True)
class Count:
    kind: str
    level: str
    ok: int
    failed: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the judgement rests on, and where nobody looked.

    ids_unread_at_end: their last acknowledged write was followed by no STRONG read, so its loss would not have been noticed.
    sightings: ids in answers of reads and searches. sightings_without_version, ids_without_shard: left out where versions are compared.
    settled: whether the history says that everything had come to rest.
    """

    ids: int
    ids_undecided: int
    ids_unread_at_end: int
    sightings: int
    sightings_without_version: int
    ids_without_shard: int
    unknown_writes: int
    unknown_vectors_seen: int
    replicas: int
    scores_checked: bool
    settled: bool


@dataclass(frozen=True, slots=True)
class Report:
    operations: int
    duration_s: float
    counts: list[Count]
    coverage: Coverage
    outages: list[Outage]
    violations: list[Violation]
    undecided: list[Undecided]

    @property
    def verdict(self) -> str:
        if self.violations:
            return "violated"
        return "undecided" if self.undecided else "passed"

    @property
    def outage_percentiles(self) -> dict[str, dict[str, Percentiles]]:
        """By kind of fault ("all" for any), of write gaps and read gaps in seconds."""
        summary: dict[str, dict[str, Percentiles]] = {}
        for kind in ["all", *sorted({o.kind for o in self.outages})] if self.outages else []:
            of_kind = [o for o in self.outages if kind in ("all", o.kind)]
            gaps = {
                "write_gap_s": percentiles([o.write_gap_s for o in of_kind if o.write_gap_s is not None]),
                "read_gap_s": percentiles([o.read_gap_s for o in of_kind if o.read_gap_s is not None]),
            }
            summary[kind] = {name: found for name, found in gaps.items() if found is not None}
        return summary

    def json(self) -> bytes:
        """Everything; of the violations the first VIOLATIONS_LISTED_MAX and a count by rule of all."""
        document: dict[str, Any] = {
            "verdict": self.verdict,
            "operations": self.operations,
            "duration_s": self.duration_s,
            "counts": [asdict(count) for count in self.counts],
            "coverage": asdict(self.coverage),
            "outages": [asdict(outage) for outage in self.outages],
            "outage_percentiles": {
                kind: {name: asdict(found) for name, found in of_kind.items()}
                for kind, of_kind in self.outage_percentiles.items()
            },
            "violations_by_rule": self._by_rule(),
            "violations": [asdict(violation) for violation in self.violations[:VIOLATIONS_LISTED_MAX]],
            "undecided": [asdict(item) for item in self.undecided[:VIOLATIONS_LISTED_MAX]],
        }
        return msgspec.json.format(msgspec.json.encode(document), indent=2)

    def text(self) -> str:
        lines = [
            f"{self.verdict}: {self.operations} operations on {self.coverage.ids} ids in {self.duration_s:.1f} s",
            "",
        ]
        lines += self._counts_text() + self._outages_text() + self._coverage_text() + self._violations_text()
        return "\n".join(lines).rstrip() + "\n"

    def _by_rule(self) -> dict[str, int]:
        return dict(sorted(Counter(str(violation.rule) for violation in self.violations).items()))

    def _counts_text(self) -> list[str]:
        lines = [f"{'operations':<20}{'ok':>10}{'failed':>10}{'unknown':>10}"]
        lines += [f"{c.level + ' ' + c.kind:<20}{c.ok:>10}{c.failed:>10}{c.unknown:>10}" for c in self.counts]
        return [*lines, ""]

    def _outages_text(self) -> list[str]:
        if not self.outages:
            return ["no faults", ""]
        lines = [f"{'faults':<28}{'at s':>9}{'lasted s':>10}{'no write s':>12}{'no read s':>11}{'reads failed':>14}"]
        lines += [
            f"{o.kind + ' ' + o.target:<28}{o.start_s:>9.2f}{_seconds(o.lasted_s):>10}{_seconds(o.write_gap_s):>12}"
            f"{_seconds(o.read_gap_s):>11}{o.reads_failed:>14}"
            for o in self.outages
        ]
        for kind, gaps in self.outage_percentiles.items():
            told = [
                f"no {name.split('_')[0]}: p50 {p.p50:.2f}, p90 {p.p90:.2f}, p99 {p.p99:.2f}, longest {p.max:.2f} s"
                for name, p in gaps.items()
            ]
            lines.append(
                f"{kind} ({sum(kind in ('all', o.kind) for o in self.outages)}): "
                + "; ".join(told or ["nobody called"])
            )
        return [*lines, ""]

    def _coverage_text(self) -> list[str]:
        c = self.coverage
        lines = [
            f"checked: {c.sightings} vectors seen in answers, {c.ids - c.ids_undecided} of {c.ids} ids decided, "
            f"{c.replicas} replicas, scores {'recomputed' if c.scores_checked else 'not recomputed'}",
            f"writes with an unknown outcome: {c.unknown_writes}, vectors of them seen later: {c.unknown_vectors_seen}",
        ]
        for count, what in (
            (
                c.ids_unread_at_end,
                "ids were not read at STRONG after their last acknowledged write: its loss would not show",
            ),
            (
                c.sightings_without_version,
                "vectors were seen without a version: sessions and views were not checked there",
            ),
            (c.ids_without_shard, "ids have no shard, or several: versions were not compared there"),
        ):
            if count:
                lines.append(f"not checked: {count} {what}")
        if not c.settled:
            lines.append(
                "not checked: the history does not say that all came to rest, so late effects are allowed to its end"
            )
        return [*lines, ""]

    def _violations_text(self) -> list[str]:
        lines = [f"{count} x {rule}" for rule, count in self._by_rule().items()]
        lines += [""] if lines else []
        for number, violation in enumerate(self.violations[:VIOLATIONS_LISTED_MAX], 1):
            lines += [
                f"{number}. {violation.rule}: {violation.message}",
                *("     " + e for e in violation.evidence),
                "",
            ]
        if len(self.violations) > VIOLATIONS_LISTED_MAX:
            lines += [f"... and {len(self.violations) - VIOLATIONS_LISTED_MAX} more", ""]
        lines += [item.reason for item in self.undecided[:VIOLATIONS_LISTED_MAX]]
        return lines


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
