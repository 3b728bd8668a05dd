"""Why no order explains what was seen of one vector: the smallest part of its history that shows it, and a sentence about it.

The part is found by leaving operations out as long as no order exists for the rest (delta debugging: Zeller and Hildebrandt,
"Simplifying and Isolating Failure-Inducing Input", 2002). An operation may only be left out in a way that cannot make an explainable
history inexplicable: a read by itself, a write together with all that saw it, a delete together with the reads that it might
explain; a condition that rested on one of these is dropped. So what remains is a proof, whatever was left out.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace

from jadevectordb.model.limits import CHECK_TRIALS_MAX
from jadevectordb.sim.checks.evidence import Evidence
from jadevectordb.sim.checks.register import ABSENT, Act, Step, decide
from jadevectordb.sim.checks.violation import Rule, Violation, named
from jadevectordb.sim.history import NEVER, Fate, Kind, Level, Operation


def explain(evidence: Evidence, vector_id: str, steps: Seq[Step], configurations_max: int) -> Violation:
    """steps: of one id, for which `decide` found no order."""
    smallest = smallest_part(steps, configurations_max)
    rule, message = _Story(evidence, vector_id, list(steps), smallest, configurations_max).told()
    operations = [step.by for step in smallest]
    operations += [proof for step in smallest if (proof := _shown_by(evidence, vector_id, step)) is not None]
    lines = evidence.teller.lines(operations, *_ids(smallest, vector_id))
    return Violation(rule, f'"{vector_id}": {message}', lines, (vector_id,))


def _shown_by(evidence: Evidence, vector_id: str, step: Step) -> Operation | None:
    """The read that proves that a write took effect which was never acknowledged."""
    if step.act is not Act.SET or step.by.fate_of(vector_id) is not Fate.UNKNOWN:
        return None
    return next(evidence.shown_by(c) for c in evidence.changes[vector_id] if c.by is step.by)


def _ids(smallest: Seq[Step], vector_id: str) -> set[str]:
    """The id itself; for a read that did not ask for it, and still proves a write of its entry, what it saw."""
    ids = {vector_id}
    for step in smallest:
        if step.act is Act.WITNESS and all(seen.id != vector_id for seen in step.by.seen):
            ids |= {seen.id for seen in step.by.seen[:3]}
    return ids


def smallest_part(steps: Seq[Step], configurations_max: int, trials_max: int = CHECK_TRIALS_MAX) -> list[Step]:
    """A part for which there is no order, and, trials permitting, of which no single operation can be left out."""
    part = sorted(steps, key=lambda s: (s.start, s.act))
    trials = 0
    size = max(1, len(part) // 2)
    while True:
        at, shrunk = 0, False
        while at < len(part):
            trials += 1
            if trials > trials_max:
                return part
            rest = without(part, part[at : at + size])
            if len(rest) < len(part) and decide(rest, configurations_max).linearizable is False:
                part, shrunk = rest, True
            else:
                at += size
        if size == 1 and not shrunk:
            return part
        size = max(1, size // 2)


def without(steps: Seq[Step], leave_out: Seq[Step]) -> list[Step]:
    """These left out, with all that could not be explained any more without them. If the steps have an order, so has the rest."""
    gone = {id(step) for step in leave_out}
    states = {step.leaves for step in leave_out if step.act is Act.SET}
    first_clear = min((step.start for step in leave_out if step.act is Act.CLEAR), default=NEVER)
    rest = []
    for step in steps:
        if id(step) in gone:
            continue
        if step.finds is not None and (states & step.finds or (ABSENT in step.finds and step.end >= first_clear)):
            if not step.changes:
                continue
            step = replace(step, finds=None)
        rest.append(step)
    return rest


class _Story:
    """Finds the words for a smallest part. What it says follows from the part; which words it chooses is a matter of clarity."""

    def __init__(
        self, evidence: Evidence, vector_id: str, everything: list[Step], part: list[Step], configurations_max: int
    ) -> None:
        self._evidence = evidence
        self._id = vector_id
        self._everything = everything
        self._part = part
        self._max = configurations_max
        self._writers = {step.leaves: step for step in everything if step.act is Act.SET}

    def told(self) -> tuple[Rule, str]:
        looks = sorted((s for s in self._part if s.act is Act.LOOK), key=lambda s: (s.start, s.end))
        conditional = [s for s in self._part if s.changes and s.finds is not None]
        against_time = self._versions_against_time()
        if against_time is not None:
            return against_time
        for look in reversed(looks):
            if look.by.changes:
                conditional.append(look)
                continue
            told = self._read(look)
            if told is not None:
                return told
        if conditional:
            return self._condition(max(conditional, key=lambda s: s.start))
        if self._explained_without_versions():
            return Rule.VERSION_ORDER, "what was seen of these writes is not in the order of their versions."
        return Rule.NOT_LINEARIZABLE, "no order of these operations explains what each of them found."

    def _explained_without_versions(self) -> bool:
        freed = [replace(step, version=None) for step in self._part]
        return decide(freed, self._max).linearizable is not False

    def _versions_against_time(self) -> tuple[Rule, str] | None:
        versioned = [s for s in self._part if s.version is not None]
        for later in versioned:
            for earlier in versioned:
                assert earlier.version is not None and later.version is not None
                if earlier.end < later.start and earlier.version > later.version:
                    return Rule.VERSION_ORDER, (
                        f"{named(later.by)} got version {later.version}, though it began at "
                        f"{self._evidence.teller.began(later.by)} s, after {named(earlier.by)} with version {earlier.version} "
                        "had taken effect."
                    )
        return None

    def _read(self, look: Step) -> tuple[Rule, str] | None:
        assert look.finds is not None
        (state,) = look.finds
        saw = f"{named(look.by)} at {self._evidence.teller.began(look.by)} s found {self._value(state)}"
        behind = self._behind(look, state)
        if state == ABSENT:
            return self._found_nothing(saw, behind)
        writer = self._writers.get(state)
        if writer is None or behind is None:
            return None
        if behind.act is Act.CLEAR:
            return Rule.UNDELETED, f"{saw}, although {self._done(behind)}."
        why = f"{saw}, although {self._done(behind)}"
        if behind.act is Act.SET and self._never_seen(behind):
            return Rule.LOST_WRITE, f"{why}, and no read ever found that."
        if writer.by.fate_of(self._id) is Fate.UNKNOWN and self._was_gone(behind, state):
            return Rule.RESURRECTED, f"{why}; {named(writer.by)} of it was never acknowledged."
        return Rule.STALE_READ, f"{why}."

    def _found_nothing(self, saw: str, behind: Step | None) -> tuple[Rule, str] | None:
        if behind is None:
            return None
        if behind.act is Act.SET and self._never_seen(behind):
            return Rule.LOST_WRITE, f"{saw}, although {self._done(behind)}, and no delete explains it."
        return Rule.STALE_READ, f"{saw}, although {self._done(behind)}, and no delete explains it."

    def _behind(self, look: Step, state: int) -> Step | None:
        """The newest step of the part that was over before this read began, and left or found something else."""
        over = [s for s in self._part if s.end < look.start]
        other = [s for s in over if (s.leaves != state if s.changes else s.finds is not None and state not in s.finds)]
        changes = [s for s in other if s.changes and s.by.fate_of(self._id) is Fate.OK]
        return max(changes or other, key=lambda s: s.end, default=None)

    def _was_gone(self, behind: Step, state: int) -> bool:
        """Whether the part shows that something else stood after the state had: then it did not only come late."""
        writer = self._writers[state]
        if behind.version is not None and writer.version is not None:
            return behind.version > writer.version
        return behind.start > writer.start

    def _never_seen(self, step: Step) -> bool:
        return all(s.finds is None or step.leaves not in s.finds for s in self._everything)

    def _done(self, step: Step) -> str:
        teller = self._evidence.teller
        if step.changes:
            verb = "deleted it" if step.act is Act.CLEAR else f"wrote {self._value(step.leaves)}"
            version = "" if step.version is None else f" as version {step.version}"
            did = f"{named(step.by)} {verb}{version}"
            rest = "after which all came to rest"
            if step.by.fate_of(self._id) is not Fate.OK:
                shown = _shown_by(self._evidence, self._id, step)
                return f"{did}, {rest}" + ("" if shown is None else f" ({named(shown)} proves that it took effect)")
            at_rest = f", {rest}" if step.by.call.level is Level.EVENTUAL else ""
            return f"{did}, acknowledged at {teller.ended(step.by)} s{at_rest}"
        assert step.finds is not None
        found = " or ".join(self._value(state) for state in sorted(step.finds))
        return f"{named(step.by)} had found {found} by {teller.ended(step.by)} s"

    def _condition(self, step: Step) -> tuple[Rule, str]:
        assert step.finds is not None
        standing = " or ".join(self._value(state) for state in sorted(step.finds))
        if step.changes:
            return Rule.CONDITION, f"{named(step.by)} succeeded on condition of {standing}, which did not stand then."
        return Rule.CONDITION, f"{named(step.by)} was refused because of {standing}, which did not stand then."

    def _value(self, state: int) -> str:
        if state == ABSENT:
            return "nothing"
        by = self._writers[state].by
        assert by.call.kind is Kind.WRITE
        return f'"{by.call.values[by.call.ids.index(self._id)]}"'
