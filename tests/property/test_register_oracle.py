"""The search for an order, against the definition: small registers of every kind, and every order of their operations tried.

The oracle below is the definition of linearizability written down without any cleverness: permutations and a replay. Whatever
the search leaves out to be fast, it must answer as the oracle does.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from jadevectordb.model.limits import CHECK_CONFIGURATIONS_MAX
from jadevectordb.sim.checks.explain import smallest_part, without
from jadevectordb.sim.checks.register import ABSENT, Act, Step, decide
from jadevectordb.sim.history import NEVER, Invocation, Kind, Level, Operation


def explained(steps: list[Step]) -> bool:
    """By the definition. Steps that need not have a moment are tried with and without one."""
    moments = [s for s in steps if s.act is not Act.WITNESS]
    witnesses = [s for s in steps if s.act is Act.WITNESS]
    sure = [s for s in moments if s.must]
    maybe = [s for s in moments if not s.must]
    for count in range(len(maybe) + 1):
        for chosen in itertools.combinations(maybe, count):
            if any(_replays(order, witnesses) for order in _orders([*sure, *chosen])):
                return True
    return False


def _orders(steps: list[Step]) -> Iterable[tuple[Step, ...]]:
    """Orders in which no operation stands before one that was over when it began."""

    def extend(done: tuple[Step, ...], left: list[Step]) -> Iterable[tuple[Step, ...]]:
        if not left:
            yield done
        for step in left:
            rest = [s for s in left if s is not step]
            if all(other.end >= step.start for other in rest):
                yield from extend((*done, step), rest)

    return extend((), steps)


def _replays(order: tuple[Step, ...], witnesses: list[Step]) -> bool:
    """Whether each step finds what it found; moments are as early as the order allows, to know what was set by a witness's end."""
    state, version, now = ABSENT, 0, -1
    set_at = {}
    for step in order:
        now = max(now, step.start)
        if step.finds is not None and state not in step.finds:
            return False
        if step.version is not None:
            if step.version <= version:
                return False
            version = step.version
        if step.changes:
            state = step.leaves
            set_at[state] = now
    return all(set_at.get(next(iter(w.finds or ())), NEVER) < w.end for w in witnesses)


def drawn_register(rnd: random.Random) -> list[Step]:
    """2 to 7 operations that overlap at random, as a real register would answer them, and then changed in 0 to 3 places."""
    count = rnd.randint(2, 7)
    points = rnd.sample(range(2 * count), 2 * count)
    spans = sorted(tuple(sorted(points[2 * i : 2 * i + 2])) for i in range(count))
    acts = [rnd.choice([Act.SET, Act.SET, Act.CLEAR, Act.LOOK, Act.LOOK, Act.WITNESS]) for _ in spans]
    states = [start for (start, _), act in zip(spans, acts, strict=True) if act is Act.SET]
    state, version, shown, steps = ABSENT, 0, [], []
    for (start, end), act in sorted(zip(spans, acts, strict=True), key=lambda item: rnd.uniform(*item[0])):
        step = Step(_operation(start, end), act, start, end)
        if act is Act.LOOK:
            maybe = {rnd.choice([ABSENT, *states])} if rnd.random() < 0.1 else set()
            steps.append(replace(step, finds=frozenset({state} | maybe)))
        elif act is Act.WITNESS and shown:
            steps.append(replace(step, finds=frozenset({rnd.choice(shown)})))
        elif step.changes:
            version += 1
            fate = rnd.random()
            applied = fate > 0.12  # else it never took effect
            step = replace(
                step,
                must=fate > 0.3,
                end=rnd.choice([end, NEVER]) if fate < 0.4 else end,
                version=version if fate > 0.3 and rnd.random() < 0.4 else None,
                finds=frozenset({state}) if rnd.random() < 0.25 else None,
            )
            steps.append(step)
            state = step.leaves if applied else state
            shown += [state] if applied and act is Act.SET else []
    for _ in range(rnd.choice([0, 1, 1, 2, 3]) if steps else 0):
        place = rnd.randrange(len(steps))
        steps[place] = _changed(steps[place], states, rnd)
    return steps


def _changed(step: Step, states: list[int], rnd: random.Random) -> Step:
    others = [s for s in states if s != step.start]
    if step.act is Act.WITNESS:
        return replace(step, finds=frozenset({rnd.choice(others)}))
    if step.act is Act.LOOK or rnd.random() < 0.4:
        return replace(step, finds=frozenset({rnd.choice([ABSENT, *others])}))
    if rnd.random() < 0.5:
        return replace(step, must=not step.must or step.version is not None)
    return replace(step, end=NEVER)


def _operation(start: int, end: int) -> Operation:
    call = Invocation(op=f"o{start}", time_s=float(start), process="p", kind=Kind.READ, level=Level.STRONG)
    return Operation(call, None, start, end)


def _told(steps: list[Step]) -> str:
    ordered = sorted(steps, key=lambda s: s.start)
    return "\n".join(
        f"{s.act} [{s.start}, {'...' if s.end == NEVER else s.end}] must={s.must} version={s.version} finds={s.finds}"
        for s in ordered
    )


def test_the_search_answers_as_the_definition_does() -> None:
    answers: Counter[bool] = Counter()
    for seed in range(12_000):
        steps = drawn_register(random.Random(seed))
        expected = explained(steps)
        answers[expected] += 1
        assert decide(steps, CHECK_CONFIGURATIONS_MAX).linearizable is expected, f"seed {seed}\n{_told(steps)}"
    assert min(answers.values()) > 600  # both kinds of histories are among them


def test_the_smallest_part_is_a_proof_by_the_definition_too() -> None:
    for seed in range(3000):
        steps = drawn_register(random.Random(seed))
        if decide(steps, CHECK_CONFIGURATIONS_MAX).linearizable is False:
            part = smallest_part(steps, CHECK_CONFIGURATIONS_MAX)
            assert part
            assert not explained(part), f"seed {seed}\n{_told(steps)}\n\n{_told(part)}"


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False))
def test_a_smaller_part_of_what_can_be_explained_can_be_explained(rnd: random.Random) -> None:
    """What the shrinking rests on: no way of leaving out turns an explainable history into another kind."""
    steps = drawn_register(rnd)
    if explained(steps) and steps:
        left_out = rnd.sample(steps, rnd.randint(1, len(steps)))
        assert explained(without(steps, left_out)), _told(steps)
