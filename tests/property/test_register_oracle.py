"""The search for an order, against the definition: small registers of every kind, and every order of their operations tried.

The oracle below is the definition of linearizability written down without any cleverness: permutations and a replay. Whatever
the search leaves out to be fast, it must answer as the oracle does.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from jadevectordb.model.limits import CHECK_CONFIGURATIONS_MAX
from jadevectordb.sim.checks.explain import smallest_part
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


@st.composite
def registers(draw: st.DrawFn) -> list[Step]:
    """2 to 6 operations that overlap at random; what they found is drawn too, so most of these histories are wrong."""
    count = draw(st.integers(2, 6))
    points = draw(st.permutations(list(range(2 * count))))
    spans = [tuple(sorted(points[2 * i : 2 * i + 2])) for i in range(count)]
    acts = [draw(st.sampled_from([Act.SET, Act.SET, Act.CLEAR, Act.LOOK, Act.LOOK, Act.WITNESS])) for _ in spans]
    sets = [span[0] for span, act in zip(spans, acts, strict=True) if act is Act.SET]
    versions = iter(
        draw(st.permutations(list(range(1, count + 1)))) if draw(st.booleans()) else sorted(range(1, count + 1))
    )
    by_call = draw(st.booleans())  # versions in the order of the calls: wrong less often than at random
    steps = []
    for (start, end), act in sorted(zip(spans, acts, strict=True)) if by_call else zip(spans, acts, strict=True):
        changes = act in (Act.SET, Act.CLEAR)
        must, version, finds = True, None, None
        states = [s for s in sets if s != start]
        if not changes:
            choice = st.sampled_from([ABSENT, *states]) if act is Act.LOOK else st.sampled_from(states or [ABSENT])
            finds = frozenset(draw(st.sets(choice, min_size=1, max_size=2 if act is Act.LOOK else 1)))
            if act is Act.WITNESS and ABSENT in finds:
                continue
        else:
            must = draw(st.booleans()) or draw(st.booleans())
            if draw(st.integers(0, 3)) == 0:
                finds = frozenset({draw(st.sampled_from([ABSENT, *states]))})
            if must and draw(st.booleans()):
                version = next(versions)
            if draw(st.integers(0, 3)) == 0 or not must:
                end = draw(st.sampled_from([end, NEVER]))
        steps.append(Step(_operation(start, end), act, start, end, must, version, finds))
    return steps


def _operation(start: int, end: int) -> Operation:
    call = Invocation(op=f"o{start}", time_s=float(start), process="p", kind=Kind.READ, level=Level.STRONG)
    return Operation(call, None, start, end)


@settings(max_examples=4000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(registers())
def test_the_search_answers_as_the_definition_does(steps: list[Step]) -> None:
    for s in sorted(steps, key=lambda s: s.start):
        note(f"{s.act} [{s.start}, {'...' if s.end == NEVER else s.end}] must={s.must} version={s.version} finds={s.finds}")
    assert decide(steps, CHECK_CONFIGURATIONS_MAX).linearizable is explained(steps)


@settings(max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(registers())
def test_the_smallest_part_is_a_proof_by_the_definition_too(steps: list[Step]) -> None:
    if decide(steps, CHECK_CONFIGURATIONS_MAX).linearizable is False:
        part = smallest_part(steps, CHECK_CONFIGURATIONS_MAX)
        assert part
        assert not explained(part)
