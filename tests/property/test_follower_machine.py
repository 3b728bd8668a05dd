"""A follower against the writer: after every step of any history it has the same state and gives the same answers.

Three followers of one folder: one that applies what comes, one that also starts from the newest checkpoint at each step, and one
that sleeps for long stretches, while checkpoints are replaced, folders removed and log files dropped under it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.following_world import ShownWorld, as_database, follow

import jadevectordb as jade
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.node.follower import Follower

DIMENSION = 8
FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
SCHEMA = {"tag": "integer", "body": "text"}
POOL = np.random.default_rng(3).standard_normal((24, DIMENSION)).astype(np.float32)
WORDS = ("oak", "ash", "elm", "yew")

ids = st.integers(0, 60).map(lambda n: f"v{n:02}")
places = st.integers(0, 23)
documents = st.fixed_dictionaries(
    {"tag": st.integers(0, 5), "body": st.lists(st.sampled_from(WORDS), max_size=3).map(" ".join)}
)
batches = st.dictionaries(ids, st.tuples(places, documents), min_size=1, max_size=12)


class FollowerMachine(RuleBasedStateMachine):
    @initialize(
        index=st.sampled_from(["AUTO", "FLAT", "IVF", "HNSW"]),
        shards=st.integers(1, 3),
        seal_rows=st.sampled_from([8, 20, 64]),
        log_bytes=st.sampled_from([2048, 8192, 1 << 20]),
    )
    def create(self, index: str, shards: int, seal_rows: int, log_bytes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jade-follower-", dir=FAST_DISK))
        self.log_bytes = log_bytes
        self.open()
        self.db = self.store.create_database(
            "machine", DIMENSION, index=index, shards=shards, seal_rows=seal_rows, schema=SCHEMA
        )
        self.follow()

    def open(self) -> None:
        (self.folder / "store").mkdir(exist_ok=True)
        self.world = ShownWorld(self.log_bytes)
        self.store = jade.Store(self.folder / "store", self.world)

    def follow(self) -> None:
        """Anew, as a reader does when a database is opened anew."""
        self.steady, self.fresh, self.sleepy = (follow(self.store, self.world, self.db.config) for _ in range(3))
        for follower in self.followers:
            follower.refresh()

    @property
    def followers(self) -> list[Follower]:
        return [self.steady, self.fresh, self.sleepy]

    def teardown(self) -> None:
        if not hasattr(self, "folder"):
            return
        try:
            if hasattr(self, "steady"):
                for follower in self.followers:
                    follower.close()
            self.store.close()
            self.world.page.close()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    @rule(batch=batches)
    def upsert(self, batch: dict[str, tuple[int, dict[str, Any]]]) -> None:
        self.db.upsert(list(batch), POOL[[place for place, _ in batch.values()]], [m for _, m in batch.values()])

    @rule(start=st.integers(0, 300), count=st.integers(40, 160), document=documents)
    def upsert_many(self, start: int, count: int, document: dict[str, Any]) -> None:
        numbers = range(start, start + count)
        self.db.upsert([f"m{n:03}" for n in numbers], POOL[[n % 24 for n in numbers]], [document] * count)

    @rule(batch=batches, request=st.sampled_from(["r1", "r2", "r3"]))
    def upsert_by_request(self, batch: dict[str, tuple[int, dict[str, Any]]], request: str) -> None:
        vectors = POOL[[place for place, _ in batch.values()]]
        self.db.upsert(list(batch), vectors, [m for _, m in batch.values()], request_id=request)

    @rule(names=st.lists(ids, min_size=1, max_size=20, unique=True))
    def delete(self, names: list[str]) -> None:
        self.db.delete(names)

    @rule(name=ids)
    def refused(self, name: str) -> None:
        """It uses up an entry of the log and changes nothing."""
        try:
            self.db.delete(name, if_version=987_654)
        except JadeError as error:
            assert error.code is ErrorCode.VERSION_CONFLICT

    @rule(tag=st.integers(0, 5))
    def delete_where(self, tag: int) -> None:
        self.db.delete(filter={"tag": tag})

    @rule(names=st.lists(ids, min_size=1, max_size=8, unique=True), patch=documents, merge=st.booleans())
    def update(self, names: list[str], patch: dict[str, Any], merge: bool) -> None:
        self.db.update_metadata(names, patch, merge=merge)

    @rule()
    def seal(self) -> None:
        self.db.wait_indexed(timeout=60)

    @rule()
    def compact(self) -> None:
        self.db.compact(timeout=60)

    @rule(index=st.sampled_from(["AUTO", "FLAT", "IVF", "HNSW"]), schema=st.sampled_from([SCHEMA, {"body": "text"}]))
    def alter(self, index: str, schema: dict[str, str]) -> None:
        before, epoch = self.db.config, self.world.epoch(self.db.config)
        self.store.alter_database("machine", index=index, schema=schema)
        assert (self.world.epoch(before) != epoch) == (self.db.config != before)
        for follower in self.followers:
            follower.close()
        self.follow()

    @rule()
    def reopen(self) -> None:
        """The writer goes and comes back; followers stay with the folder until they are told, and that is never too late."""
        config = self.db.config
        self.store.close()
        assert self.world.epoch(config) == 0
        self.world.page.close()
        self.open()
        self.db = self.store.database("machine")
        old = self.followers
        self.follow()
        for follower in old:
            follower.close()

    @rule()
    def wake(self) -> None:
        self.same(self.sleepy)

    @invariant()
    def follows(self) -> None:
        if hasattr(self, "steady"):
            self.same(self.steady)
            self.fresh.refresh()
            self.same(self.fresh)

    def same(self, follower: Follower) -> None:
        if follower.position != self.world.position(self.db.config):
            try:
                assert follower.catch_up()
            except JadeError as error:
                assert error.code is ErrorCode.LOG_TRUNCATED
                follower.refresh()
        assert follower.position == self.world.position(self.db.config) == sum(self.db.watermarks())
        assert follower.digest() == self.db.digest()
        reader = as_database(follower)
        assert reader.watermarks() == self.db.watermarks()
        assert reader.count() == self.db.count()
        for options in ({"exact": True}, {"exact": True, "filter": {"tag": {"$gte": 2}}}):
            mine, theirs = reader.search(POOL[5], k=200, **options), self.db.search(POOL[5], k=200, **options)
            assert sorted(mine.ids) == sorted(theirs.ids)
            scores = {hit.id: hit.score for hit in theirs}
            assert all(abs(scores[hit.id] - hit.score) < 1e-5 for hit in mine)
            assert {h.id: (h.metadata_json, h.version) for h in mine} == {
                h.id: (h.metadata_json, h.version) for h in theirs
            }
        mine, theirs = reader.search(text="oak elm", k=50), self.db.search(text="oak elm", k=50)
        assert sorted(mine.ids) == sorted(theirs.ids)


TestFollowerMachine = FollowerMachine.TestCase
TestFollowerMachine.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
