"""A shard is a function of its log: whatever is written to disk when, built when, cut off and opened again, and how often.

One replica is driven by hand, without threads, through any order of applying entries, writing frozen rows, building towards
the plan, and being forgotten and opened from its folder. Beside it runs one that only ever applies.
"""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.adapters.os_disk import write_file_atomically
from jadevectordb.index.space import VectorSpace
from jadevectordb.index.text import TextConfig
from jadevectordb.main import RealWorld
from jadevectordb.model import filter_parse, filters
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.ids import HybridTime, NodeId, RequestId, Sequence, ShardId, VectorId
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric
from jadevectordb.model.operations import Barrier, Delete, DeleteWhere, Entry, Operation, Seal, Update, Write
from jadevectordb.model.schema import parse_schema
from jadevectordb.segment import builder
from jadevectordb.shard.apply import ShardConfig, ShardState
from jadevectordb.shard.replica import Replica

FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
DIMENSION = 3
SPACE = VectorSpace(Metric.COSINE, DIMENSION)
CONFIG = ShardConfig(SPACE, parse_schema({"body": "text", "n": "integer"}), TextConfig(("body",)), seal_rows=12)

names = st.lists(st.integers(0, 25).map(lambda n: VectorId(f"id{n}")), min_size=1, max_size=9, unique=True)


def metadata(n: int) -> bytes:
    return msgspec.json.encode({"n": n % 5, "body": ("oak", "elm ash")[n % 2]})


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    ids = draw(names)
    seed = draw(st.integers(0, 40))
    versions = draw(st.none() | st.lists(st.sampled_from([-1, -1, 0, 1, 4]), min_size=len(ids), max_size=len(ids)))
    match draw(st.sampled_from(["write", "write", "write", "delete", "update", "where", "seal", "barrier"])):
        case "write":
            rows = np.random.default_rng(seed).standard_normal((len(ids), DIMENSION)).astype(np.float32)
            return Write(ids, rows, [metadata(seed + i) for i in range(len(ids))], versions)
        case "delete":
            return Delete(ids, versions)
        case "update":
            return Update(ids, [metadata(seed)] * len(ids), draw(st.booleans()), versions)
        case "where":
            node = filter_parse.parse({"n": seed % 5})
            assert node is not None
            return DeleteWhere(filters.to_json(node))
        case "seal":
            return Seal(draw(st.booleans()))
        case _:
            return Barrier()


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    entries = []
    length = draw(st.integers(1, 40))  # lists drawn freely are mostly too short to freeze, build and freeze again
    for operation in draw(st.lists(operations(), min_size=length, max_size=length)):
        request = draw(st.sampled_from(["", "", "r1", "r2", "r3"]))
        entries.append(Entry(operation, HybridTime(7), NodeId("n"), RequestId(request), draw(st.integers(0, 1)), 2))
    return entries


def opened(folder: Path) -> Replica:
    replica = Replica(ShardId(0), folder, CONFIG, IndexKind.AUTO, write_file_atomically)
    replica.remove_orphans()
    return replica


def build_one(replica: Replica, which: int) -> None:
    builds = replica.planned_builds()
    if not builds:
        return
    build = builds[which % len(builds)]
    if build.rows == 0:
        replica.install(build, None)
        return
    job = replica.job_of(build, 1)
    builder.build_encoded(msgspec.msgpack.encode(job))
    replica.install(build, Path(job.target))


def check(state: ShardState) -> None:
    """What must hold after every step, whatever happened."""
    live: list[str] = []
    for part in state.view().parts:
        rows = [row for row in range(part.reader.row_count) if part.is_alive(row)]
        assert part.live == len(rows)
        live += [part.reader.id_of(row) for row in rows]
    assert len(live) == len(set(live)), "at most one live row an id"
    units = [part.reader.units for part in state.parts]
    assert units == sorted(units)
    for first, last in units:
        assert sum(span.first <= first and last <= span.last for span in state.spans) == 1


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(logs(), st.lists(st.tuples(st.sampled_from("wwwbboo-"), st.integers(0, 3)), min_size=80, max_size=80))
def test_a_replica_is_a_function_of_its_log(log: list[Entry], background: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory(dir=FAST_DISK) as folder:
        plain, replica = opened(Path(folder, "plain")), opened(Path(folder, "replica"))
        chores = iter(background)  # two after each entry
        for number, entry in enumerate(log, start=1):
            outcome = plain.apply(Sequence(number), entry)
            assert replica.apply(Sequence(number), entry) == outcome
            for chore, which in [next(chores), next(chores)]:
                match chore:
                    case "w":
                        replica.write_frozen()
                    case "b":
                        build_one(replica, which)
                    case "o":
                        replica = opened(Path(folder, "replica"))
                        assert replica.state.applied <= number
                        for missed in range(replica.state.applied + 1, number + 1):
                            replica.apply(Sequence(missed), log[missed - 1])
                check(replica.state)
                assert replica.digest() == plain.digest()
        replica.verify()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(logs())
def test_apply_against_a_dict(log: list[Entry]) -> None:
    """Versions are sequences; a refused entry and a repeated request change nothing; a filter deletes what it matches."""
    state = ShardState(CONFIG)
    model: dict[str, tuple[int, bytes, dict[str, Any]]] = {}
    requests: dict[tuple[str, int], tuple[int, int]] = {}
    for number, entry in enumerate(log, start=1):
        outcome = state.apply(Sequence(number), entry)
        key = (str(entry.request_id), entry.part)
        if entry.request_id and key in requests:
            assert outcome.duplicate and (outcome.sequence, outcome.changed) == requests[key]
        else:
            refused, changed = expect(model, number, entry.operation)
            assert not outcome.duplicate and outcome.sequence == number
            assert outcome.changed == changed
            assert (None if outcome.refusal is None else outcome.refusal.id) == refused
            if entry.request_id and refused is None:
                requests[key] = (number, changed)
        check(state)
        found = {}
        for part in state.view().parts:
            for row in range(part.reader.row_count):
                if part.is_alive(row):
                    reader = part.reader
                    document = msgspec.json.decode(reader.metadata_of(row))
                    found[reader.id_of(row)] = (reader.version_of(row), reader.vector_of(row).tobytes(), document)
        assert found == model


def expect(
    model: dict[str, tuple[int, bytes, dict[str, Any]]], number: int, operation: Operation
) -> tuple[str | None, int]:
    """Change the model as the entry should; the id it must be refused for, and how many vectors change."""
    if isinstance(operation, Write | Delete | Update):
        for name, expected in zip(operation.ids, operation.if_version or [], strict=False):
            if expected not in (-1, model[name][0] if name in model else 0):
                return name, 0
    match operation:
        case Write():
            for name, row, document in zip(operation.ids, operation.vectors, operation.metadata, strict=True):
                model[name] = (number, row.tobytes(), msgspec.json.decode(document))
            return None, len(operation.ids)
        case Delete():
            return None, sum(model.pop(name, None) is not None for name in operation.ids)
        case Update():
            known = [name for name in operation.ids if name in model]
            for name in known:
                patch = msgspec.json.decode(operation.patches[0])
                old = model[name]
                model[name] = (number, old[1], {**old[2], **patch} if operation.merge else patch)
            return None, len(known)
        case DeleteWhere():
            wanted = msgspec.json.decode(operation.filter)["value"]
            doomed = [name for name, record in model.items() if record[2]["n"] == wanted]
            for name in doomed:
                del model[name]
            return None, len(doomed)
        case _:
            return None, 0


class NoCompute:
    """Builds never get done: each waits until the database is closed."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def run(self, task: str, payload: bytes, *, hurried: bool) -> bytes:
        self._closed.wait()
        raise JadeError(ErrorCode.CLOSED, "closed")

    def interrupt(self) -> None:
        pass

    def rest(self) -> None:
        pass

    def close(self) -> None:
        self._closed.set()


def write_history(path: Path, compute: Callable[[], Any], reopen_after: set[int]) -> list[str]:
    path.mkdir()
    store = jade.Store(path, RealWorld(compute))
    options: dict[str, Any] = {"metric": "euclidean", "shards": 2, "seal_rows": 20, "schema": {"body": "text"}}
    db = store.create_database("d", 4, **options)
    generator = np.random.default_rng(5)
    for step in range(60):
        ids = [f"{n}" for n in generator.choice(150, 17, replace=False).tolist()]
        db.upsert(ids, generator.standard_normal((17, 4)), [{"n": step, "body": "some words"}] * 17)
        if step % 7 == 3:
            db.delete(filter={"n": {"$lt": step - 9}})
        if step % 20 == 19:
            with pytest.raises(JadeError) if compute is NoCompute else nullcontext():
                db.compact(timeout=0.05 if compute is NoCompute else 60)
        if step in reopen_after:
            store.close()
            store = jade.Store(path, RealWorld(compute))
            db = store.database("d")
    digest = db.digest()
    store.close()
    return digest


def test_the_state_does_not_depend_on_how_fast_background_work_is() -> None:
    with tempfile.TemporaryDirectory(dir=FAST_DISK) as folder:
        straight = write_history(Path(folder, "inline"), InlineCompute, set())
        assert write_history(Path(folder, "none"), NoCompute, set()) == straight
        assert write_history(Path(folder, "cut"), InlineCompute, set(range(0, 60, 3))) == straight
        assert write_history(Path(folder, "cut-none"), NoCompute, {1, 19, 20, 44}) == straight
