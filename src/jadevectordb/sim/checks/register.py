"""Linearizability of one vector: is there an order of its writes, deletes and STRONG reads that explains every answer?

A vector is a register with conditional writes. A history of it is linearizable (Herlihy and Wing, 1990) if every operation can be
given one moment between its call and its answer at which it took effect at once, such that in the order of these moments each
read finds what the change before it left, and each condition of `if_version` held where the write succeeded and did not where it
was refused. A write with an unknown outcome may have its moment any time after its call, or never. Versions are places in the
shard's log, so where they are known, moments must come in their order.

The search is the one of Wing and Gong ("Testing and Verifying Concurrent Objects", 1993) in the just-in-time form that Lowe gave it
("Testing for Linearizability", 2017), which Knossos uses too: walk through calls and answers in time, keep every distinct
configuration (what the register holds, which open operations have had their moment), and give moments to operations only when
an answer demands it. If no configuration is left after an answer, no order exists. Registers whose writes are told apart allow
four steps that lose nothing, and without which unknown outcomes, open for ever, would double the configurations each:
- an open read whose value stands has its moment at once: reads change nothing;
- a value is not replaced while a read that saw it is still to be called: that read could never be explained;
- an acknowledged write that nobody can find (any more), without a version, is taken to stand right before the next unconditional change;
- of changes with unknown outcomes, a configuration that used more of them to come to the same is dropped; unconditional deletes
  without versions that end alike are used in the order of their calls, acknowledged ones first; an unknown write that nobody saw
  is left out.
With all versions known one order is left, and the walk is linear in the number of operations.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from jadevectordb.sim.history import NEVER, Operation

ABSENT = (
    -1
)  # the state of a register that holds nothing; any other state is the `start` of the operation that wrote the value


class Act(StrEnum):
    SET = "set"
    CLEAR = "clear"
    LOOK = "look"  # a STRONG read, or a condition that did not hold: has a moment at which it found one of `finds`
    WITNESS = "witness"  # any other read that showed a value: it has no moment, but the value was set before it ended


@dataclass(frozen=True, slots=True)
class Step:
    """One operation as one register meets it.

    finds: the states of which one must stand at its moment; None = whatever stands. must: it has a moment for certain.
    version: of a change; steps with versions have their moments in that order, and `must` is set.
    """

    by: Operation
    act: Act
    start: int
    end: int
    must: bool = True
    version: int | None = None
    finds: frozenset[int] | None = None

    @property
    def changes(self) -> bool:
        return self.act is Act.SET or self.act is Act.CLEAR

    @property
    def leaves(self) -> int:
        return self.start if self.act is Act.SET else ABSENT


@dataclass(frozen=True, slots=True)
class Decision:
    """linearizable: None = undecided. stuck: the operation whose answer no order explains."""

    linearizable: bool | None
    stuck: Step | None = None
    configurations_peak: int = 0
    open_peak: int = 0


Configuration: TypeAlias = tuple[
    int, int, int
]  # what stands, how many versioned changes had their moment, done among the open


class _TooManyError(Exception):
    pass


def decide(steps: Seq[Step], configurations_max: int) -> Decision:
    """Whether the register's history is linearizable; undecided beyond this many configurations at once."""
    for step in steps:
        if step.act is Act.WITNESS and step.finds is not None and min(step.finds) > step.end:
            return Decision(False, step)  # it saw what was not even called yet
    return _Walk(_prepared(steps), configurations_max).run()


def _prepared(steps: Seq[Step]) -> list[Step]:
    """The steps that matter, with what reads prove about writes: those that were seen took effect, and by when."""
    seen_by: dict[int, int] = {}  # state -> the earliest end of a step that proves it
    writers = {step.leaves: step for step in steps if step.act is Act.SET}
    proofs = [s for s in steps if s.must and s.finds is not None and len(s.finds) == 1]
    while proofs:
        proof = proofs.pop()
        assert proof.finds is not None
        (state,) = proof.finds
        first = state not in seen_by
        seen_by[state] = min(seen_by.get(state, NEVER), proof.end)
        writer = writers.get(state)
        if first and writer is not None and not writer.must and writer.finds is not None and len(writer.finds) == 1:
            proofs.append(writer)  # it took effect, so its own condition held
    wanted = {state for step in steps if step.finds is not None for state in step.finds}
    kept = []
    for step in steps:
        if step.act is Act.WITNESS:
            continue
        if step.act is Act.SET and step.leaves in seen_by:
            seen_until = seen_by[step.leaves]
            # Seen before it was called: left as it is, so that the walk stops at the one who saw it
            end = min(step.end, seen_until) if seen_until > step.start else step.end
            step = replace(step, must=True, end=end)
        idle = step.act is Act.CLEAR and step.finds == frozenset({ABSENT})
        if step.must or (step.leaves in wanted and not idle):
            kept.append(step)
    return kept


@dataclass(slots=True)
class _Open:
    """The operations that are called and not answered at a moment of the walk, by index."""

    changes: list[int] = field(default_factory=list)  # all but the free deletes
    deletes: dict[tuple[bool, int], list[int]] = field(default_factory=dict)  # free ones that are alike: must, end
    spare: int = 0  # bits of the changes that need not have a moment
    looks: dict[int, int] = field(default_factory=dict)  # state -> bits of the reads that found it
    passing: int = 0  # bits of the writes that may stand right before any unconditional change


class _Walk:
    def __init__(self, steps: list[Step], configurations_max: int) -> None:
        self._steps = steps
        self._max = configurations_max
        self._peak = 1
        self._open_peak = 0
        self._last_want: dict[int, int] = {}  # state -> when the last operation that may find it is over
        for step in steps:
            for state in step.finds or ():
                self._last_want[state] = max(self._last_want.get(state, -1), step.end)
        self._passes = [self._may_pass(s) and s.leaves not in self._last_want for s in steps]
        self._setter = {s.leaves: i for i, s in enumerate(steps) if s.act is Act.SET}
        self._free_delete = [s.act is Act.CLEAR and s.finds is None and s.version is None for s in steps]
        versioned = [i for i, s in enumerate(steps) if s.version is not None and s.changes]
        self._in_order = sorted(versioned, key=lambda i: (steps[i].version, steps[i].start))
        # State -> when the last operation that finds it and nothing else is called
        self._last_call: dict[int, int] = {}
        for step in steps:
            if step.must and step.finds is not None and len(step.finds) == 1:
                (state,) = step.finds
                if state != ABSENT:
                    self._last_call[state] = max(self._last_call.get(state, -1), step.start)
        self._bits: dict[int, int] = {}  # of the open operations; freed bits are used again
        self._free_bits: list[int] = []
        self._open = _Open()
        self._now = -1

    @staticmethod
    def _may_pass(step: Step) -> bool:
        return step.act is Act.SET and step.must and step.finds is None and step.version is None

    def run(self) -> Decision:
        configurations: set[Configuration] = {(ABSENT, 0, 0)}
        stuck = None
        try:
            for position, answers, index in self._events():
                self._now = position
                if not answers:
                    configurations = self._called(index, configurations)
                    continue
                configurations = self._answered(index, configurations)
                if not configurations:
                    stuck = self._steps[index]
                    break
        except _TooManyError:
            return Decision(None, self._steps[index], self._peak, self._open_peak)
        return Decision(stuck is None, stuck, self._peak, self._open_peak)

    def _events(self) -> list[tuple[int, bool, int]]:
        calls = [(step.start, False, i) for i, step in enumerate(self._steps)]
        # What must have its moment some time gets it at the latest after everything else
        answers = [(step.end, True, i) for i, step in enumerate(self._steps) if step.must or step.end != NEVER]
        return sorted(calls + answers)

    def _called(self, index: int, configurations: set[Configuration]) -> set[Configuration]:
        step = self._steps[index]
        bit = 1 << (self._free_bits.pop() if self._free_bits else len(self._bits))
        self._bits[index] = bit
        self._open_peak = max(self._open_peak, len(self._bits))
        if step.changes:
            self._open.spare |= 0 if step.must else bit
            if self._free_delete[index]:
                self._open.deletes.setdefault((step.must, step.end), []).append(index)
                return configurations
            self._open.changes.append(index)
            if self._passes[index]:
                self._open.passing |= bit
            return configurations
        assert step.finds is not None
        for state in step.finds:
            self._open.looks[state] = self._open.looks.get(state, 0) | bit
        return {(s, n, done | bit) if s in step.finds else (s, n, done) for s, n, done in configurations}

    def _answered(self, index: int, configurations: set[Configuration]) -> set[Configuration]:
        """The configurations in which the operation has had its moment, and, if it may have none, those without it."""
        step, bit = self._steps[index], self._bits[index]
        lacking = {c for c in configurations if not c[2] & bit}
        explained = configurations - lacking
        if lacking:
            explained |= self._reach(lacking, index, bit)
            if not step.must:
                explained |= lacking
        if self._open.spare and len(explained) > 1:
            explained = self._thriftiest(explained)
        self._close(index, step, bit)
        return {(s, n, done & ~bit) for s, n, done in explained}

    def _close(self, index: int, step: Step, bit: int) -> None:
        del self._bits[index]
        self._free_bits.append(bit.bit_length() - 1)
        self._open.spare &= ~bit
        if self._free_delete[index]:
            alike = self._open.deletes[step.must, step.end]
            alike.remove(index)
            if not alike:
                del self._open.deletes[step.must, step.end]
            return
        if step.changes:
            self._open.changes.remove(index)
            self._open.passing &= ~bit
            self._want_no_more(step)
            return
        self._want_no_more(step)
        assert step.finds is not None
        for state in step.finds:
            left = self._open.looks[state] & ~bit
            if left:
                self._open.looks[state] = left
            else:
                del self._open.looks[state]

    def _want_no_more(self, closed: Step) -> None:
        """A write that nobody can find from now on may stand right before any unconditional change."""
        for state in closed.finds or ():
            index = self._setter.get(state)
            if index is None or self._last_want[state] > self._now or not self._may_pass(self._steps[index]):
                continue
            self._passes[index] = True
            self._open.passing |= self._bits.get(index, 0)

    def _reach(self, lacking: set[Configuration], index: int, bit: int) -> set[Configuration]:
        """Every configuration that open changes lead to, one after the other, until the operation has had its moment."""
        reached: set[Configuration] = set()
        waiting = list(lacking)
        visited = 0
        spared: dict[
            Configuration, list[int]
        ] = {}  # what was visited -> which changes that may be left out it had used
        for configuration in lacking:
            self._is_new(configuration, spared)
        while waiting:
            configuration = waiting.pop()
            for change in self._possible(configuration, index):
                after = self._after(configuration, change)
                if not self._is_new(after, spared):
                    continue
                visited += 1
                self._peak = max(self._peak, visited)
                if visited > self._max:
                    raise _TooManyError
                if after[2] & bit:
                    reached.add(after)
                else:
                    waiting.append(after)
        return reached

    def _is_new(self, configuration: Configuration, spared: dict[Configuration, list[int]]) -> bool:
        """Whether no configuration was visited that equals this one and had used no other changes than it has."""
        state, versioned, done = configuration
        used = done & self._open.spare
        before = spared.setdefault((state, versioned, done ^ used), [])
        if any(other & used == other for other in before):
            return False
        before.append(used)
        return True

    def _possible(self, configuration: Configuration, wanted: int) -> list[int]:
        state, versioned, done = configuration
        if self._last_call.get(state, -1) > self._now:
            return []
        possible = []
        for index in self._open.changes:
            if done & self._bits[index]:
                continue
            step = self._steps[index]
            if step.finds is not None and state not in step.finds:
                continue
            if step.version is not None and self._in_order[versioned] != index:
                continue
            if self._passes[index] and index != wanted:
                continue
            if not step.must and self._last_want.get(step.leaves, -1) < self._now:
                continue  # it helps nobody any more
            possible.append(index)
        idle = state == ABSENT and not self._open.passing & ~done
        idle = idle or self._last_want.get(ABSENT, -1) < self._now
        due = NEVER + 1  # when the first delete ends that must have its moment: it is as good as one that need not
        for (must, end), alike in sorted(self._open.deletes.items(), reverse=True):
            if must or (not idle and end < due):
                unused = bisect_left(alike, True, key=lambda index: not done & self._bits[index])
                possible += alike[unused : unused + 1]
                if must and unused < len(alike):
                    due = min(due, end)
        return possible

    def _thriftiest(self, configurations: set[Configuration]) -> set[Configuration]:
        """Without those that another one equals, but for changes that it has left to use."""
        best: dict[Configuration, int] = {}
        for state, versioned, done in configurations:
            key = (state, versioned, done & ~self._open.spare)
            used = done & self._open.spare
            before = best.setdefault(key, used)
            if used.bit_count() < before.bit_count():
                best[key] = used
        kept = set()
        for state, versioned, done in configurations:
            least = best[state, versioned, done & ~self._open.spare]
            used = done & self._open.spare
            if used == least or used & least != least:
                kept.add((state, versioned, done))
        return kept

    def _after(self, configuration: Configuration, index: int) -> Configuration:
        state, versioned, done = configuration
        step = self._steps[index]
        done |= self._bits[index]
        if step.finds is None:
            done |= self._open.passing
        state = step.leaves
        done |= self._open.looks.get(state, 0)
        return state, versioned + (step.version is not None), done
