"""Every vector as a register: its operations as steps, whether an order explains them, and if not, the smallest part that shows it.

What becomes a step: acknowledged writes and deletes (until their answer; EVENTUAL ones until the cluster has come to rest,
unless the cluster lists them as having lost a conflict), unknown ones (any time, or never), conditions that did not hold and
STRONG reads, single ids and hits of searches alike. Reads at other levels prove that what they saw was in the log by then.
"""

from __future__ import annotations

from collections.abc import Iterator

from jadevectordb.model.limits import CHECK_CONFIGURATIONS_MAX
from jadevectordb.sim.checks.evidence import Change, Evidence
from jadevectordb.sim.checks.explain import explain
from jadevectordb.sim.checks.register import ABSENT, Act, Step, decide
from jadevectordb.sim.checks.violation import Rule, Undecided, Violation, named
from jadevectordb.sim.history import NEVER, UNCONDITIONAL, Fate, Level


def check_registers(
    evidence: Evidence, configurations_max: int = CHECK_CONFIGURATIONS_MAX
) -> Iterator[Violation | Undecided]:
    """One finding at most an id, besides conditions that name versions nobody ever wrote."""
    for vector_id in sorted(evidence.changes.keys() | evidence.sightings.keys()):
        yield from check_register(evidence, vector_id, configurations_max)


def check_register(evidence: Evidence, vector_id: str, configurations_max: int) -> Iterator[Violation | Undecided]:
    steps, impossible = _Register(evidence, vector_id).steps()
    yield from impossible
    decision = decide(steps, configurations_max)
    if decision.linearizable is None:
        yield Undecided(
            vector_id,
            f'undecided: too many concurrent operations on "{vector_id}": {decision.open_peak} were open at once, and more than '
            f"{configurations_max} orders of them had to be told apart.",
        )
    elif not decision.linearizable:
        yield explain(evidence, vector_id, steps, configurations_max)


class _Register:
    """Makes the steps of one id."""

    def __init__(self, evidence: Evidence, vector_id: str) -> None:
        self._evidence = evidence
        self._id = vector_id
        self._changes = evidence.changes.get(vector_id, [])
        self._comparable = evidence.shard_of(vector_id) is not None
        self._impossible: list[Violation] = []
        self._by_version = {
            v: c
            for c in self._changes
            if (v := self._version(c)) is not None
            and c.value is not None
            and not evidence.history.has_lost(c.id, c.value, c.by.call)
        }

    def steps(self) -> tuple[list[Step], list[Violation]]:
        steps = []
        for change in self._changes:
            if change.fate is Fate.FAILED:
                steps += self._refusal(change)
            else:
                steps += self._change(change)
        for sighting in self._evidence.sightings.get(self._id, ()):
            by = sighting.by
            state = ABSENT if sighting.writer is None else sighting.writer.by.start
            if by.call.level is Level.STRONG:
                steps.append(Step(by, Act.LOOK, by.start, by.answered, finds=frozenset({state})))
            elif state != ABSENT:
                steps.append(Step(by, Act.WITNESS, by.start, by.answered, finds=frozenset({state})))
        return steps, self._impossible

    def _version(self, change: Change) -> int | None:
        return self._evidence.version(change)

    def _change(self, change: Change) -> list[Step]:
        by, evidence = change.by, self._evidence
        lost_conflict = evidence.history.has_lost(self._id, change.value, by.call)
        acknowledged = change.fate is Fate.OK and not lost_conflict
        version = None if lost_conflict else self._version(change)
        finds = self._standing(change)
        if finds is not None and not finds:
            if acknowledged:
                self._no_such_version(change)
            return []
        at_once = acknowledged and by.call.level is not Level.EVENTUAL
        step = Step(
            by,
            Act.CLEAR if change.value is None else Act.SET,
            by.start,
            by.answered if at_once else evidence.history.settled_after(by),
            must=acknowledged or version is not None,
            version=version if self._comparable else None,
            finds=finds,
        )
        shown = evidence.shown_by(change)
        if shown is None or at_once or change.value is None or lost_conflict:
            return [step]
        # Another id of the same entry may have been seen: then this one took effect too
        return [step, Step(shown, Act.WITNESS, shown.start, shown.answered, finds=frozenset({step.leaves}))]

    def _standing(self, change: Change) -> frozenset[int] | None:
        """The states in which the change's condition holds; None = it has none."""
        return None if change.expected == UNCONDITIONAL else self._states(change.expected, change)

    def _states(self, version: int, asked_by: Change) -> frozenset[int]:
        """The states that have this version. Where nobody was told whose it is: of every write whose version is not known."""
        if version == 0:
            return frozenset({ABSENT})
        if version in self._by_version:
            return frozenset({self._by_version[version].by.start})
        unversioned = (c for c in self._changes if c.value is not None and self._version(c) is None)
        return frozenset(
            c.by.start
            for c in unversioned
            if c.fate is not Fate.FAILED and c.by is not asked_by.by and c.by.start < asked_by.by.answered
        )

    def _refusal(self, change: Change) -> list[Step]:
        refusal = change.by.refusal
        if refusal is None or refusal.id != self._id or refusal.actual is None or change.by.answered == NEVER:
            return []
        if refusal.actual == refusal.expected:
            self._impossible.append(
                Violation(
                    Rule.CONDITION,
                    f'"{self._id}": {named(change.by)} was refused because of version {refusal.actual}, which is the one it '
                    "asked for.",
                    self._evidence.teller.lines([change.by], self._id),
                    (self._id,),
                )
            )
            return []
        finds = self._states(refusal.actual, change)
        if not finds:
            self._no_such_version(change)
            return []
        return [Step(change.by, Act.LOOK, change.by.start, change.by.answered, finds=finds)]

    def _no_such_version(self, change: Change) -> None:
        refusal = change.by.refusal
        if change.fate is Fate.FAILED and refusal is not None:
            what = f"was refused because of version {refusal.actual}"
        else:
            what = f"succeeded against version {change.expected}"
        writes = [c.by for c in self._changes if c.value is not None and c.fate is not Fate.FAILED]
        self._impossible.append(
            Violation(
                Rule.CONDITION,
                f'"{self._id}": {named(change.by)} {what}, which no write of it ever had.',
                self._evidence.teller.lines([*writes[-5:], change.by], self._id),
                (self._id,),
            )
        )
