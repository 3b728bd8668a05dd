"""The live recall figure: what it says is what a comparison by hand finds, writes in between do not disturb it, and it is cheap."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.telemetry_world import HandClock, telemetry_of, watched

import jadevectordb as jade
from jadevectordb import F
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.service.recall_probe import PER_S_MAX, SAMPLE_AGE_S_MAX, TIME_SHARE_MAX
from jadevectordb.gateway.service.telemetry import Telemetry
from jadevectordb.gateway.service.watched import DutyCycle
from jadevectordb.model.limits import RECALL_SAMPLES_MAX

ROWS, DIMENSION = 4000, 16


def first(bound: int) -> int:
    """Chance as a test wants it: every search is chosen at the first opportunity."""
    assert bound > 0
    return 0


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    rng = np.random.default_rng(3)
    with jade.open(tmp_path_factory.mktemp("recall")) as store:
        database = store.create_database("a", DIMENSION, index="HNSW", seal_rows=ROWS)
        rows = rng.standard_normal((ROWS, DIMENSION)).astype(np.float32)
        database.upsert([str(i) for i in range(ROWS)], rows, [{"part": i % 4} for i in range(ROWS)])
        database.wait_indexed(60)
        yield database


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Database]:
    with jade.open(tmp_path) as store:
        database = store.create_database("small", 2, metric="euclidean")
        database.upsert(list("abcd"), [[0, 1], [0, 2], [0, 3], [0, 4]])
        yield database


def sampled(telemetry: Telemetry, clock: HandClock) -> None:
    telemetry.step()
    clock.moment_s += 1  # the next one is due


def test_estimate_is_the_mean_of_comparisons_by_hand(indexed: Database) -> None:
    clock, entry = HandClock(), watched(indexed)
    telemetry = telemetry_of([entry], clock=clock, recall_one_in=1, below=first)
    shares = []
    for query in np.random.default_rng(4).standard_normal((30, DIMENSION)).astype(np.float32):
        for condition in (None, {"part": 1}, F("part") == 2):
            hits = indexed.search(query, k=10, ef_search=4, filter=condition)  # far too little effort: recall below 1
            truth = indexed.search(query, k=10, exact=True, filter=condition)
            telemetry.observe_search(entry, query, 10, condition, 0.9, hits, 0.001)
            sampled(telemetry, clock)
            shares.append(len(set(hits.ids) & set(truth.ids)) / 10)
    estimate = telemetry.recall("db_1")
    assert estimate is not None
    assert estimate.samples == estimate.samples_total == len(shares)
    assert estimate.recall == pytest.approx(np.mean(shares))
    assert estimate.recall < 1.0, "the test must see misses"
    assert estimate.target == pytest.approx(0.9)
    text = telemetry.render_prometheus().decode()
    assert f'jadevectordb_recall_samples{{database="db_1",name="a"}} {len(shares)}.0' in text


def test_writes_after_the_search_are_no_mistakes(small: Database) -> None:
    clock, entry = HandClock(), watched(small)
    telemetry = telemetry_of([entry], clock=clock, recall_one_in=1, below=first)
    hits = small.search([0, 1], k=2)
    telemetry.observe_search(entry, [0, 1], 2, None, 0.95, hits, 0.001)
    small.upsert(["new"], [[0, 1.1]])
    small.delete(["a"])
    sampled(telemetry, clock)
    estimate = telemetry.recall("db_1")
    assert estimate is not None
    assert estimate.recall == 1.0


def test_wrong_answers_are_seen_and_ties_are_right(small: Database) -> None:
    clock, entry = HandClock(), watched(small)
    telemetry = telemetry_of([entry], clock=clock, recall_one_in=1, below=first)
    small.upsert(["twin"], [[0, 2]])
    everything = {hit.id: hit for hit in small.search([0, 1], k=10)}
    for answer, right in ((["a", "twin"], 1.0), (["a", "b"], 1.0), (["a", "d"], 0.5), (["a"], 0.5), ([], 0.0)):
        telemetry.observe_search(entry, [0, 1], 2, None, 0.95, [everything[name] for name in answer], 0.001)
        before = telemetry.recall("db_1")
        sampled(telemetry, clock)
        after = telemetry.recall("db_1")
        assert after is not None
        total = 0.0 if before is None else before.recall * before.samples
        assert after.recall * after.samples - total == pytest.approx(right), answer


def test_what_is_not_sampled(small: Database) -> None:
    clock, entry = HandClock(), watched(small)
    telemetry = telemetry_of([entry], clock=clock, recall_one_in=1, below=first)
    hits = small.search([0, 1], k=2)
    telemetry.observe_search(entry, [0, 1], 2, None, 1.0, hits, 0.001)  # exact already
    sampled(telemetry, clock)
    telemetry.observe_search(entry, [0, 1], 2, None, 0.9, hits, 0.001, options={"threshold": 0.5})
    sampled(telemetry, clock)
    telemetry.observe_search(entry, None, 2, None, 0.9, hits, 0.001, options={"text": "words"})
    sampled(telemetry, clock)
    telemetry.observe_search(
        entry, [0, 1], 2, {"none": "such"}, 0.9, [], 0.001
    )  # nothing matches: no recall to speak of
    sampled(telemetry, clock)
    assert telemetry.recall("db_1") is None
    off = telemetry_of([entry], clock=clock, recall_one_in=0)
    off.observe_search(entry, [0, 1], 2, None, 0.9, hits, 0.001)
    sampled(off, clock)
    assert off.recall("db_1") is None


def test_caller_may_reuse_its_buffer(small: Database) -> None:
    clock, entry = HandClock(), watched(small)
    telemetry = telemetry_of([entry], clock=clock, recall_one_in=1, below=first)
    query = np.array([0, 1], np.float32)
    telemetry.observe_search(entry, query, 1, None, 0.95, small.search(query, k=1), 0.001)
    query[:] = [0, 4]
    sampled(telemetry, clock)
    estimate = telemetry.recall("db_1")
    assert estimate is not None
    assert estimate.recall == 1.0


def test_about_one_in_so_many_by_chance(small: Database) -> None:
    clock, entry = HandClock(), watched(small)
    chance = np.random.default_rng(7)
    telemetry = telemetry_of([entry], clock=clock, recall_one_in=20, below=lambda bound: int(chance.integers(bound)))
    hits = small.search([0, 1], k=2)
    for _ in range(4000):
        telemetry.observe_search(entry, [0, 1], 2, None, 0.95, hits, 0.001)
        sampled(telemetry, clock)
    estimate = telemetry.recall("db_1")
    assert estimate is not None
    assert 150 < estimate.samples_total < 250


def test_bounded_a_second_however_many_searches(small: Database) -> None:
    clock, entry = HandClock(), watched(small)
    telemetry = telemetry_of([entry], clock=clock, recall_one_in=1, below=first)
    hits = small.search([0, 1], k=2)
    for _ in range(1000):
        telemetry.observe_search(entry, [0, 1], 2, None, 0.95, hits, 0.001)
        clock.moment_s += 0.01
        telemetry.step()
    estimate = telemetry.recall("db_1")
    assert estimate is not None
    assert 10 * PER_S_MAX * 0.9 <= estimate.samples_total <= 10 * PER_S_MAX + 1


def test_work_that_takes_long_comes_seldom() -> None:
    clock = HandClock()
    cycle = DutyCycle(TIME_SHARE_MAX, PER_S_MAX, clock.monotonic_s)
    begun, busy_s = clock.moment_s, 0.0
    for _ in range(20):
        clock.moment_s += cycle.wait_s
        assert cycle.is_due()
        started = clock.moment_s
        clock.moment_s += 2.0
        busy_s += 2.0
        cycle.spent(started)
        assert not cycle.is_due()
    clock.moment_s += cycle.wait_s
    assert busy_s / (clock.moment_s - begun) == pytest.approx(TIME_SHARE_MAX)


def test_memory_is_bounded_and_old_samples_do_not_count(small: Database) -> None:
    clock, entry = HandClock(), watched(small)
    telemetry = telemetry_of([entry], clock=clock, recall_one_in=1, below=first)
    hits = small.search([0, 1], k=2)
    for _ in itertools.repeat(None, RECALL_SAMPLES_MAX + 20):
        telemetry.observe_search(entry, [0, 1], 2, None, 0.95, hits, 0.001)
        sampled(telemetry, clock)
    estimate = telemetry.recall("db_1")
    assert estimate is not None
    assert (estimate.samples, estimate.samples_total) == (RECALL_SAMPLES_MAX, RECALL_SAMPLES_MAX + 20)
    clock.moment_s += SAMPLE_AGE_S_MAX + 1
    assert telemetry.recall("db_1") is None


def test_database_closed_meanwhile(tmp_path: Path) -> None:
    clock = HandClock()
    with jade.open(tmp_path) as store:
        database = store.create_database("a", 2)
        database.upsert(["a"], [[1, 1]])
        entry = watched(database)
        telemetry = telemetry_of([entry], clock=clock, recall_one_in=1, below=first)
        telemetry.observe_search(entry, [1, 1], 1, None, 0.95, database.search([1, 1]), 0.001)
    sampled(telemetry, clock)
    telemetry.observe_search(entry, [1, 1], 1, None, 0.95, [], 0.001)
    sampled(telemetry, clock)
    assert telemetry.recall("db_1") is None
