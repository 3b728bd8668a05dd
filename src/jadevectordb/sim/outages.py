"""How long each fault was felt: the longest time after it without an acknowledged write, without a read, and how many reads failed.

A fault's window runs from its beginning to that of the next fault, and ends with the last call made in it, so that a workload
that has stopped is not taken for an outage. A gap is the longest time inside the window between two moments at which something
worked; the window's beginning counts as one, a call that never succeeded extends the gap to the last attempt.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise

from jadevectordb.sim.history import Fate, History


@dataclass(frozen=True, slots=True)
class Outage:
    """What clients felt of one fault; gaps are None where nobody tried. start_s: since the history's first event."""

    kind: str
    target: str
    start_s: float
    lasted_s: float | None
    write_gap_s: float | None
    read_gap_s: float | None
    reads_failed: int


@dataclass(frozen=True, slots=True)
class Percentiles:
    """By nearest rank."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


def percentiles(values: Seq[float]) -> Percentiles | None:
    if not values:
        return None
    ranked = sorted(values)

    def at(share: float) -> float:
        return ranked[max(0, math.ceil(share * len(ranked)) - 1)]

    return Percentiles(len(ranked), at(0.50), at(0.90), at(0.99), ranked[-1])


def outages(history: History) -> list[Outage]:
    """One a fault, by start. Writes at EVENTUAL count like others: an acknowledgement is what a client waits for."""
    writes, reads = _Attempts(), _Attempts()
    failed_reads: list[float] = []
    for operation in history.operations:
        attempts = writes if operation.changes else reads
        attempts.called_s.append(operation.call.time_s)
        if operation.answer is not None and operation.fate is Fate.OK:
            attempts.worked_s.append(operation.answer.time_s)
        elif not operation.changes and operation.answer is not None:
            failed_reads.append(operation.answer.time_s)
    writes.worked_s.sort()
    reads.worked_s.sort()
    failed_reads.sort()
    first_s = history.events[0].time_s if history.events else 0.0
    faults = sorted(history.faults, key=lambda f: f.start_s)
    felt = []
    for place, fault in enumerate(faults):
        later = [f.start_s for f in faults[place + 1 :] if f.start_s > fault.start_s]
        until_s = later[0] if later else math.inf
        felt.append(
            Outage(
                fault.kind,
                fault.target,
                fault.start_s - first_s,
                None if fault.end_s is None else fault.end_s - fault.start_s,
                writes.gap_s(fault.start_s, until_s),
                reads.gap_s(fault.start_s, until_s),
                bisect_left(failed_reads, until_s) - bisect_left(failed_reads, fault.start_s),
            )
        )
    return felt


class _Attempts:
    def __init__(self) -> None:
        self.called_s: list[float] = []  # rising
        self.worked_s: list[float] = []

    def gap_s(self, since_s: float, until_s: float) -> float | None:
        """The longest time without success between these moments; None when nobody called."""
        last = bisect_left(self.called_s, until_s)
        if last == bisect_left(self.called_s, since_s):
            return None
        end_s = self.called_s[last - 1]
        worked = self.worked_s[bisect_left(self.worked_s, since_s) : bisect_right(self.worked_s, end_s)]
        # The call that ends the window may still have succeeded: then the gap lasted until its answer
        after = bisect_right(self.worked_s, end_s)
        if after < len(self.worked_s) and self.worked_s[after] < until_s:
            end_s = self.worked_s[after]
        moments = [since_s, *worked, end_s]
        return max(later - earlier for earlier, later in pairwise(moments))
