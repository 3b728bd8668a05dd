"""The whole engine against a dict and brute force: any history of calls, on any kind of database, gives the same answers.

Vectors come from a fixed pool in which different vectors never score alike by accident, so that orders can be compared
exactly, ties by id included, while equal vectors under many ids make ties at the k-th place the normal case.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import jadevectordb as jade
from jadevectordb.adapters.inline_compute import InlineCompute
from jadevectordb.main import RealWorld
from jadevectordb.model import filter_eval, filter_parse
from jadevectordb.model.schema import parse_schema
from jadevectordb.segment.records import hash_ids
from jadevectordb.topology.sharding import shards_of

DIMENSION = 8
# Thousands of syncs to a real disk would be most of the time; what they are for is tested by pulling the plug elsewhere.
FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SCHEMA = {"tag": "integer", "word": "string", "flags": "string[]", "body": "text"}
TEXT_ONLY = {"body": "text"}
_generator = np.random.default_rng(7)
REAL = _generator.standard_normal((24, DIMENSION)).astype(np.float32)
UNIT = (REAL / np.linalg.norm(REAL, axis=1, keepdims=True)).astype(np.float32)
POOLS: dict[str, npt.NDArray[Any]] = {
    "cosine": np.concatenate((REAL, UNIT[:4])),
    "dot": _generator.integers(-3, 4, (24, DIMENSION)).astype(np.float32),
    "euclidean": _generator.integers(-3, 4, (24, DIMENSION)).astype(np.float32),
    "hamming": _generator.integers(0, 2, (24, DIMENSION)).astype(np.uint8),
}
WORDS = ("oak", "ash", "elm", "yew")

ids = st.integers(0, 60).map(lambda n: f"v{n:02}")
places = st.integers(0, 23)
documents = st.fixed_dictionaries(
    {},
    optional={
        "tag": st.integers(0, 5),
        "word": st.sampled_from(WORDS),
        "flags": st.lists(st.sampled_from("xyz"), max_size=2),
        "body": st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join),
        "deep": st.fixed_dictionaries({}, optional={"x": st.none() | st.booleans() | st.floats(-2, 2, width=16)}),
    },
)
batches = st.dictionaries(ids, st.tuples(places, documents), min_size=1, max_size=12)
filters = st.sampled_from(
    [
        {"tag": 3},
        {"tag": {"$gte": 2, "$lt": 5}},
        {"word": ["oak", "elm"]},
        {"$or": [{"flags": {"$contains": "x"}}, {"word": "ash"}]},
        {"$not": {"tag": {"$in": [0, 1]}}},
        {"deep.x": {"$exists": True}, "word": {"$ne": "yew"}},
        {"tag": {"$gt": 100}},
    ]
)


def inline(path: Path) -> jade.Store:
    path.mkdir(exist_ok=True)
    return jade.Store(path, RealWorld(InlineCompute))


class Record:
    def __init__(self, vector: npt.NDArray[Any], metadata: dict[str, Any], version: int) -> None:
        self.vector, self.metadata, self.version = vector, metadata, version


class DatabaseMachine(RuleBasedStateMachine):
    @initialize(
        metric=st.sampled_from(sorted(POOLS)),
        index=st.sampled_from(["AUTO", "FLAT", "IVF", "HNSW", "LSH"]),
        shards=st.integers(1, 3),
        seal_rows=st.sampled_from([8, 20, 64]),
        schema=st.sampled_from([SCHEMA, TEXT_ONLY]),
    )
    def create(self, metric: str, index: str, shards: int, seal_rows: int, schema: dict[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jade-machine-", dir=FAST_DISK))
        self.metric, self.pool = metric, POOLS[metric]
        self.options: dict[str, Any] = {
            "metric": metric,
            "index": index,
            "shards": shards,
            "seal_rows": seal_rows,
            "schema": schema,
        }
        self.created = dict(self.options)
        self.schema = parse_schema(schema)
        self.store = inline(self.folder / "store")
        self.db = self.store.create_database("machine", DIMENSION, **self.options)
        self.model: dict[str, Record] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []  # everything that reached the log, for the mirror
        self.serial = 0

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        try:
            mirror = inline(self.folder / "mirror")
            copy = mirror.create_database("machine", DIMENSION, **self.created)
            for method, arguments in self.requests:
                try:
                    if method == "alter":
                        mirror.alter_database("machine", **arguments)
                    else:
                        getattr(copy, method)(**arguments)
                except jade.JadeError as error:
                    assert error.code is jade.ErrorCode.VERSION_CONFLICT
            assert copy.digest() == self.db.digest(), "the same requests make the same state"
            mirror.close()
            self.store.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    # Writing

    def call(self, method: str, **arguments: Any) -> Any:
        self.requests.append((method, arguments))
        return getattr(self.db, method)(**arguments)

    def shard_of(self, name: str) -> int:
        return int(shards_of(hash_ids([name]), self.options["shards"])[0])

    def written(self, result: jade.WriteResult, name: str, place: int, metadata: dict[str, Any]) -> None:
        self.model[name] = Record(self.pool[place], metadata, result.sequences[self.shard_of(name)])

    def put(self, batch: dict[str, tuple[int, dict[str, Any]]], **options: Any) -> jade.WriteResult:
        vectors = self.pool[[place for place, _ in batch.values()]]
        sent = vectors.copy()
        result: jade.WriteResult = self.call(
            "upsert", ids=list(batch), vectors=sent, metadata=[m for _, m in batch.values()], **options
        )
        assert result.count == len(batch)
        return result

    @rule(batch=batches)
    def upsert(self, batch: dict[str, tuple[int, dict[str, Any]]]) -> None:
        result = self.put(batch)
        for name, (place, metadata) in batch.items():
            self.written(result, name, place, metadata)

    @rule(start=st.integers(0, 300), count=st.integers(40, 160), place=places, document=documents)
    def upsert_many(self, start: int, count: int, place: int, document: dict[str, Any]) -> None:
        numbers = range(start + count - 1, start - 1, -1)  # so that the order of rows is not the order of ids
        self.upsert({f"m{n:03}": ((place + n * n) % 24, {**document, "tag": n % 6}) for n in numbers})

    @rule(batch=batches, good=st.booleans())
    def upsert_if_version(self, batch: dict[str, tuple[int, dict[str, Any]]], good: bool) -> None:
        expected = [self.model[n].version if n in self.model else 0 for n in batch]
        if good:
            result = self.put(batch, if_version=expected)
            for name, (place, metadata) in batch.items():
                self.written(result, name, place, metadata)
            return
        expected[-1] += 1
        with pytest.raises(jade.JadeError) as refused:
            self.put(batch, if_version=expected)
        assert refused.value.code is jade.ErrorCode.VERSION_CONFLICT
        name = list(batch)[-1]
        assert refused.value.details == {"id": name, "expected": expected[-1], "actual": expected[-1] - 1}

    @rule(batch=batches, conditional=st.booleans())
    def upsert_twice_with_one_request_id(self, batch: dict[str, tuple[int, dict[str, Any]]], conditional: bool) -> None:
        self.serial += 1
        options: dict[str, Any] = {"request_id": f"request {self.serial}"}
        if conditional:
            options["if_version"] = [self.model[n].version if n in self.model else 0 for n in batch]
        first = self.put(batch, **options)
        for name, (place, metadata) in batch.items():
            self.written(first, name, place, metadata)
        again = self.put(batch, **options)
        assert again.duplicate and not first.duplicate
        assert again.sequences == first.sequences and again.count == first.count

    @rule(names=st.lists(ids, min_size=1, max_size=20, unique=True))
    def delete(self, names: list[str]) -> None:
        result = self.call("delete", ids=names)
        assert result.count == sum(name in self.model for name in names)
        for name in names:
            self.model.pop(name, None)

    @rule(name=ids)
    def delete_with_wrong_version(self, name: str) -> None:
        with pytest.raises(jade.JadeError) as refused:
            self.call("delete", ids=name, if_version=987_654)
        assert refused.value.code is jade.ErrorCode.VERSION_CONFLICT

    @rule(condition=filters)
    def delete_where(self, condition: dict[str, Any]) -> None:
        doomed = self.matching(condition)
        assert self.call("delete", filter=condition).count == len(doomed)
        for name in doomed:
            del self.model[name]

    @rule(names=st.lists(ids, min_size=1, max_size=8, unique=True), patch=documents, merge=st.booleans())
    def update_metadata(self, names: list[str], patch: dict[str, Any], merge: bool) -> None:
        result = self.call("update_metadata", ids=names, metadata=patch, merge=merge)
        known = [name for name in names if name in self.model]
        assert result.count == len(known)
        for name in known:
            old = self.model[name]
            metadata = {**old.metadata, **patch} if merge else patch
            self.model[name] = Record(old.vector, metadata, result.sequences[self.shard_of(name)])

    # Life of the database

    @rule()
    def wait_indexed(self) -> None:
        self.call("wait_indexed", timeout=60)
        stats = self.db.stats()
        assert stats.indexed_rows == stats.rows == len(self.model) and stats.trouble == ""

    @rule()
    def compact(self) -> None:
        self.call("compact", timeout=60)
        stats = self.db.stats()
        assert stats.dead_rows == 0 and stats.rows == len(self.model)
        sealed = [s.shard for s in stats.segments if s.index != "growing"]
        assert len(sealed) == len(set(sealed)), "one segment a shard"

    @rule(
        index=st.none() | st.sampled_from(["AUTO", "FLAT", "IVF", "HNSW", "LSH"]),
        schemas=st.lists(st.sampled_from([{}, SCHEMA, TEXT_ONLY, {"flags": "string[]", "body": "text"}]), max_size=2),
    )
    def alter(self, index: str | None, schemas: list[dict[str, str]]) -> None:
        if schemas and schemas[-1] == {}:
            schemas = [*schemas, SCHEMA]
        for schema in schemas or [None]:
            arguments = {"index": index, "schema": schema}
            self.requests.append(("alter", arguments))
            assert self.store.alter_database("machine", **arguments) is self.db
            if schema is not None:
                self.options["schema"], self.schema = schema, parse_schema(schema)
                assert self.db.config.schema == self.schema
            assert index is None or self.db.config.index == index

    @rule()
    def reopen(self) -> None:
        before = self.db.digest()
        self.store.close()
        self.store = inline(self.folder / "store")
        self.db = self.store.database("machine")
        assert self.db.digest() == before
        self.db.verify()

    @rule()
    def snapshot(self) -> None:
        self.serial += 1
        target = self.folder / f"snapshot-{self.serial}"
        self.store.snapshot(target)
        with inline(target) as copy:
            assert copy.database("machine").digest() == self.db.digest()
        shutil.rmtree(target)

    # Reading

    def matching(self, condition: dict[str, Any] | None) -> list[str]:
        node = filter_parse.parse(condition, self.schema)
        return [n for n, r in self.model.items() if node is None or filter_eval.matches(node, r.metadata, self.schema)]

    def score(self, query: npt.NDArray[Any], vector: npt.NDArray[Any]) -> float:
        a, b = query.astype(np.float64), vector.astype(np.float64)
        match self.metric:
            case "cosine":
                return round(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)), 5)
            case "dot":
                return float(a @ b)
            case "euclidean":
                return 1 / (1 + float(np.linalg.norm(a - b)))
            case _:
                return 1 / (1 + float((a != b).sum()))

    def ranking(self, query: npt.NDArray[Any], condition: dict[str, Any] | None) -> list[tuple[float, str]]:
        names = self.matching(condition)
        scored = [(self.score(query, self.model[name].vector), name) for name in names]
        return sorted(scored, key=lambda hit: (-hit[0], hit[1]))

    @staticmethod
    def check(hits: list[jade.Hit], expected: list[tuple[float, str]]) -> None:
        assert [hit.id for hit in hits] == [name for _, name in expected]
        np.testing.assert_allclose([hit.score for hit in hits], [score for score, _ in expected], atol=2e-5)

    @rule(place=places, k=st.integers(1, 40), condition=st.none() | filters, how=st.sampled_from(["recall", "exact"]))
    def search(self, place: int, k: int, condition: dict[str, Any] | None, how: str) -> None:
        query = self.pool[place]
        options: dict[str, Any] = {"recall": 1.0} if how == "recall" else {"exact": True}
        hits = self.db.search(query, k=k, filter=condition, **options)
        expected = self.ranking(query, condition)
        self.check(hits, expected[:k])
        for hit in hits[:5]:
            self.same(hit)
        batch = self.db.search_batch(self.pool[[place, 1]], k=k, filter=condition, recall=1.0)
        assert batch[0].ids == hits.ids
        self.check(batch[1], self.ranking(self.pool[1], condition)[:k])
        rough = self.db.search(query, k=k, filter=condition, recall=0.9)
        assert len(rough) == len(hits) and all(hit.id in self.model for hit in rough)
        plan = self.db.explain(query, k=k, filter=condition)
        assert plan["matches"] == len(expected)

    @rule(place=places, at=st.integers(0, 30), condition=st.none() | filters)
    def search_by_threshold(self, place: int, at: int, condition: dict[str, Any] | None) -> None:
        query = self.pool[place]
        everything = self.db.search(query, k=10_000, filter=condition, recall=1.0)
        if not everything:
            return
        least = everything[min(at, len(everything) - 1)].score
        wanted = [hit.id for hit in everything if hit.score >= least]
        assert self.db.search(query, k=10_000, filter=condition, threshold=least, recall=1.0).ids == wanted
        few = self.db.search(query, k=3, filter=condition, threshold=least, recall=1.0)
        assert few.ids == wanted[:3]
        if self.metric == "cosine":
            distance = 1 - least
        elif self.metric == "dot":
            distance = -least
        else:
            distance = 1 / least - 1
        within = self.db.search(query, k=None, filter=condition, max_distance=distance + 1e-6)
        assert set(wanted) <= set(within.ids)
        expected = self.ranking(query, condition)
        self.check(within, expected[: len(within)])
        assert len(within) == len(expected) or expected[len(within)][0] < least + 2e-5

    @rule(name=ids, k=st.integers(1, 10))
    def search_by_id(self, name: str, k: int) -> None:
        if name not in self.model:
            with pytest.raises(jade.JadeError) as missing:
                self.db.search(id=name, k=k)
            assert missing.value.code is jade.ErrorCode.NOT_FOUND
            return
        expected = [hit for hit in self.ranking(self.model[name].vector, None) if hit[1] != name]
        self.check(self.db.search(id=name, k=k, recall=1.0), expected[:k])

    @rule(place=places, k=st.integers(1, 6), size=st.integers(1, 4), path=st.sampled_from(["tag", "word", "deep.x"]))
    def search_groups(self, place: int, k: int, size: int, path: str) -> None:
        query = self.pool[place]
        groups: dict[Any, list[tuple[float, str]]] = defaultdict(list)
        for score, name in self.ranking(query, None):
            found = filter_eval.resolve(self.model[name].metadata, path)
            if found and found[0] is not None:
                groups[repr(found[0])].append((score, name))
        given = self.db.search_groups(query, group_by=path, k=k, group_size=size, recall=1.0)
        assert [repr(group.key) for group in given] == list(groups)[:k]
        for group in given:
            self.check(group.hits, groups[repr(group.key)][:size])
        flat = self.db.search(query, group_by=path, k=k, group_size=size, recall=1.0)
        assert flat.ids == [hit.id for group in given for hit in group.hits]

    @rule(place=places, k=st.integers(1, 20), words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=2),
          condition=st.none() | filters, alpha=st.sampled_from([0.0, 0.3, 1.0]))  # fmt: skip
    def text_scores_do_not_depend_on_segments(
        self, place: int, k: int, words: list[str], condition: dict[str, Any] | None, alpha: float
    ) -> None:
        text = " ".join(words)
        self.serial += 1
        folder = self.folder / f"fresh-{self.serial}"
        with inline(folder) as store:
            fresh = store.create_database("one", DIMENSION, metric=self.metric, schema=self.options["schema"])
            names = sorted(self.model)
            if names:
                vectors = np.stack([self.model[name].vector for name in names])
                fresh.upsert(names, vectors, [self.model[name].metadata for name in names])
            for options in (
                {"text": text},
                {"vector": self.pool[place], "text": text, "alpha": alpha},
                {"vector": self.pool[place], "text": text, "alpha": alpha, "fusion": "weighted"},
            ):
                here = self.db.search(k=k, filter=condition, recall=1.0, **options)
                there = fresh.search(k=k, filter=condition, recall=1.0, **options)
                assert list(zip(here.ids, here.scores, strict=True)) == list(zip(there.ids, there.scores, strict=True))
            found = self.db.search(text=text, k=10_000, filter=condition).ids
            holders = [
                n for n in self.matching(condition) if set(words) & set(self.model[n].metadata.get("body", "").split())
            ]
            assert sorted(found) == sorted(holders)
        shutil.rmtree(folder)

    def same(self, item: jade.Item) -> None:
        record = self.model[item.id]
        assert item.metadata == record.metadata and item.version == record.version
        assert item.vector.tobytes() == record.vector.tobytes() and not item.vector.flags.writeable

    @rule(names=st.lists(ids, min_size=1, max_size=10))
    def get(self, names: list[str]) -> None:
        for name, item in zip(names, self.db.get(names), strict=True):
            assert (item is not None) == (name in self.model)
            if item is not None:
                self.same(item)
        assert self.db.exists(names) == [name in self.model for name in names]
        assert (self.db.get(names[0]) is None) == (names[0] not in self.db)

    @rule(condition=filters)
    def count(self, condition: dict[str, Any]) -> None:
        assert self.db.count(condition) == len(self.matching(condition))

    @rule(
        limit=st.integers(1, 30),
        condition=st.none() | filters,
        batch=batches,
        names=st.lists(ids, unique=True, max_size=9),
    )
    def scroll(
        self,
        limit: int,
        condition: dict[str, Any] | None,
        batch: dict[str, tuple[int, dict[str, Any]]],
        names: list[str],
    ) -> None:
        before = set(self.matching(condition))
        page = self.db.scroll(limit, filter=condition)
        seen = [item.id for item in page.items]
        self.upsert(batch)
        if names:
            self.delete(names)
        while page.cursor is not None:
            page = self.db.scroll(limit, page.cursor, condition)
            assert len(page.items) <= limit
            seen += [item.id for item in page.items]
        assert len(seen) == len(set(seen))
        always = before & set(self.matching(condition))
        assert always <= set(seen) <= before | set(batch)
        assert sorted(item.id for item in self.db.items(condition)) == sorted(self.matching(condition))

    @invariant()
    def nothing_is_lost(self) -> None:
        if hasattr(self, "db"):
            assert len(self.db) == len(self.model)


DatabaseMachine.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestDatabaseMachine = DatabaseMachine.TestCase
