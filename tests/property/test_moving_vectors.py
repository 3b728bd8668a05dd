"""Shards that share a log, seen at any sequences: every id lives in one of them, and a read of all of them is never wrong about it.

The oracle is a dict that the same entries were applied to. Readers see each shard at a sequence of chance, again when they ask again,
and shards forget departures after very few, and begin anew, as replicas do that restart.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from jadevectordb.index.space import VectorSpace
from jadevectordb.model.filters import F, to_json
from jadevectordb.model.ids import HybridTime, RequestId, Sequence, VectorId
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import (
    Barrier,
    Delete,
    DeleteWhere,
    Entry,
    Operation,
    PlacedWrite,
    Seal,
    Update,
)
from jadevectordb.model.schema import parse_schema
from jadevectordb.query.absence import to_be_seen
from jadevectordb.shard.apply import ShardConfig, ShardState
from jadevectordb.shard.departures import Departures
from jadevectordb.shard.view import ShardView

SHARDS = 3
IDS = ["a", "b", "c", "d"]
CONFIG = ShardConfig(VectorSpace(Metric.DOT, 1), parse_schema(None), None, seal_rows=3)
Row = tuple[int, int, bytes]  # shard, version, metadata


@dataclass(frozen=True)
class Step:
    operation: Operation
    request_id: str = ""


def _some_ids() -> st.SearchStrategy[list[VectorId]]:
    return st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True).map(
        lambda names: [*map(VectorId, names)]
    )


@st.composite
def steps(draw: st.DrawFn) -> Step:
    ids = draw(_some_ids())
    kind = draw(st.sampled_from(["write"] * 12 + ["delete", "update", "seal", "barrier"]))
    request_id = draw(st.sampled_from(["", "", "r1", "r2"]))
    match kind:
        case "write":
            places = draw(st.lists(st.integers(0, SHARDS - 1), min_size=len(ids), max_size=len(ids)))
            rows = np.ones((len(ids), 1), np.float32)
            return Step(PlacedWrite(ids, rows, [b'{"n":0}'] * len(ids), None, places), request_id)
        case "delete":
            return Step(Delete(ids), request_id)
        case "update":
            return Step(Update(ids, [b'{"n":1}'] * len(ids), merge=True), request_id)
        case "seal":
            return Step(Seal())
        case _:
            return Step(Barrier())


class History:
    """views[shard][n], known[shard][n], oracle[n]: after n entries."""

    def __init__(self, taken: list[Step], most: int, restarts: set[tuple[int, int]]) -> None:
        states = [ShardState(CONFIG) for _ in range(SHARDS)]
        for state in states:
            state.departures = Departures(0, most=most)
        self.views: list[list[ShardView]] = [[state.view()] for state in states]
        self.known = [[deepcopy(state.departures)] for state in states]
        self.oracle: list[dict[str, Row]] = [{}]
        self.taken: set[str] = set()
        for sequence, step in enumerate(taken, 1):
            for shard, state in enumerate(states):
                if (shard, sequence) in restarts:
                    state.departures = Departures(sequence - 1, most=most)
                operation = step.operation
                if isinstance(operation, PlacedWrite):
                    operation = replace(operation, here=shard)
                entry = Entry(operation, HybridTime(0), request_id=RequestId(step.request_id))
                state.apply(Sequence(sequence), entry)
                self.views[shard].append(state.view())
                self.known[shard].append(deepcopy(state.departures))
            self.oracle.append(self._after(sequence, step))

    def _after(self, sequence: int, step: Step) -> dict[str, Row]:
        rows = dict(self.oracle[-1])
        if step.request_id:
            if step.request_id in self.taken:
                return rows
            self.taken.add(step.request_id)
        match step.operation:
            case PlacedWrite(ids=ids, places=places):
                rows |= {name: (place, sequence, b'{"n":0}') for name, place in zip(ids, places, strict=True)}
            case Delete(ids=ids):
                rows = {name: row for name, row in rows.items() if name not in ids}
            case Update(ids=ids):
                rows |= {name: (rows[name][0], sequence, b'{"n":1}') for name in ids if name in rows}
            case _:
                pass
        return rows

    def shown(self, shard: int, at: int, name: str) -> Row | None:
        found = self.views[shard][at].locate([name])[0]
        return (
            None
            if found is None
            else (shard, found[0].reader.version_of(found[1]), found[0].reader.metadata_of(found[1]))
        )


HISTORIES = st.builds(
    History,
    st.lists(steps(), min_size=1, max_size=25),
    st.integers(1, 2),
    st.sets(st.tuples(st.integers(0, SHARDS - 1), st.integers(1, 25)), max_size=3),
)


@settings(max_examples=50, deadline=None)
@given(HISTORIES)
def test_every_id_lives_in_the_shard_that_its_newest_write_names_and_in_no_other(history: History) -> None:
    for at, rows in enumerate(history.oracle):
        for name in IDS:
            shown = [row for shard in range(SHARDS) if (row := history.shown(shard, at, name)) is not None]
            assert shown == ([rows[name]] if name in rows else [])


@settings(max_examples=250, deadline=None)
@given(HISTORIES, st.data())
def test_a_read_tells_what_was_so_at_some_sequence_within_it(history: History, data: st.DataObject) -> None:
    """As `MovingReader._find` does it, for one id; how far a shard's departures are beyond its view is chance too."""
    end = len(history.oracle) - 1
    moment = data.draw(st.integers(1, end))
    name = data.draw(st.sampled_from(IDS))
    at_least = dict.fromkeys(range(SHARDS), moment)
    for _ in range(100):
        seen = {shard: data.draw(st.integers(at_least[shard], end)) for shard in range(SHARDS)}
        rows = [row for shard in range(SHARDS) if (row := history.shown(shard, seen[shard], name)) is not None]
        if rows:
            shard, *_ = row = max(rows, key=lambda row: row[1])
            assert history.oracle[seen[shard]].get(name) == row
            return
        known = [history.known[shard][data.draw(st.integers(seen[shard], end))] for shard in range(SHARDS)]
        departed = [(name, *left) for one in known if (left := one.latest(name)) is not None]
        more = to_be_seen([name], departed, max(one.forgotten for one in known), seen, min(at_least.values()))
        if not more:
            assert any(name not in history.oracle[at] for at in range(moment, end + 1))
            return
        assert all(sequence > at_least[shard] for shard, sequence in more.items()) or more.keys() == seen.keys()
        at_least |= {shard: max(sequence, at_least[shard]) for shard, sequence in more.items()}
    raise AssertionError("the read does not end")


@settings(max_examples=20, deadline=None)
@given(HISTORIES)
def test_a_delete_by_filter_takes_the_same_ids_wherever_they_are(history: History) -> None:
    """The entry is at one sequence of one log, so what it matches is what the whole database held there."""
    states = [ShardState(CONFIG) for _ in range(SHARDS)]
    rows = history.oracle[-1]
    for shard, state in enumerate(states):
        mine = [name for name, row in rows.items() if row[0] == shard]
        if mine:
            ids, places = [*map(VectorId, mine)], [shard] * len(mine)
            metadata = [rows[name][2] for name in mine]
            write = PlacedWrite(ids, np.ones((len(mine), 1), np.float32), metadata, None, places, shard)
            state.apply(Sequence(1), Entry(write, HybridTime(0)))
        else:
            state.apply(Sequence(1), Entry(Barrier(), HybridTime(0)))
        where = DeleteWhere(to_json(F("n") == 1))
        state.apply(Sequence(2), Entry(where, HybridTime(0)))
    left = {name for state in states for name in rows if state.view().locate([name])[0] is not None}
    assert left == {name for name, row in rows.items() if row[2] == b'{"n":0}'}
