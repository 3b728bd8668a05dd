"""Slow searches are kept with their plans, within bounds, and told to the log without the user's data."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from tests.telemetry_world import HandClock, telemetry_of, watched

import jadevectordb as jade
from jadevectordb import F
from jadevectordb.adapters.os_host import OsHost
from jadevectordb.adapters.system_clock import SystemClock
from jadevectordb.gateway.embedded.database import Database
from jadevectordb.gateway.service.logs import start_log
from jadevectordb.model.limits import SLOW_QUERIES_MAX, SLOW_QUERIES_WAITING_MAX, SLOW_QUERY_TEXT_MAX


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with jade.open(tmp_path) as store:
        made = store.create_database("products", 4, schema={"title": "text"})
        made.upsert(
            [f"v{i}" for i in range(40)],
            np.random.default_rng(2).random((40, 4)),
            [{"title": "red shoe", "n": i} for i in range(40)],
        )
        yield made


def test_slow_search_is_explained_in_the_background(database: Database) -> None:
    clock, entry = HandClock(), watched(database)
    telemetry = telemetry_of([entry], clock=clock, slow_query_ms=100.0)
    query = np.ones(4, np.float32)
    hits = database.search(query, k=3, filter={"n": {"$lt": 10}})
    telemetry.observe_search(entry, query, 3, {"n": {"$lt": 10}}, 0.9, hits, 0.0999)
    assert telemetry.slow_queries() == []
    telemetry.observe_search(entry, query, 3, {"n": {"$lt": 10}}, 0.9, hits, 0.25, request_id="r7")
    (slow,) = telemetry.slow_queries()
    assert (slow.plan, slow.plan_note) == (None, "about to be taken")
    telemetry.step()
    (slow,) = telemetry.slow_queries()
    assert (slow.database, slow.database_name, slow.request_id) == ("db_1", "products", "r7")
    assert (slow.duration_ms, slow.k, slow.recall, slow.hits) == (250.0, 3, 0.9, 3)
    assert "$lt" in slow.filter
    assert slow.plan is not None
    assert slow.plan["segments"][0]["matches"] == 10
    assert slow.plan["total_us"] > 0
    msgspec.json.encode(slow)
    assert "jadevectordb_slow_queries_total 1.0" in telemetry.render_prometheus().decode()


def test_plan_of_the_search_itself_is_used_when_there_is_one(database: Database) -> None:
    entry = watched(database)
    telemetry = telemetry_of([entry], slow_query_ms=0.0)
    hits = database.search(np.ones(4), k=3, explain=True)
    telemetry.observe_search(entry, np.ones(4), 3, None, 0.95, hits, 0.2, options={"explain": True})
    (slow,) = telemetry.slow_queries()
    assert hits.explanation is not None
    assert slow.plan == hits.explanation.as_dict()
    assert slow.plan_note == "of the search itself"


def test_searches_by_text_and_with_options_are_repeated_as_they_were(database: Database) -> None:
    clock, entry = HandClock(), watched(database)
    telemetry = telemetry_of([entry], clock=clock, slow_query_ms=1.0)
    telemetry.observe_search(
        entry, np.ones(4), 3, F("n") > 5, 0.95, [], 0.2, options={"text": "red", "fusion": "weighted", "explain": False}
    )
    telemetry.step()
    (slow,) = telemetry.slow_queries()
    assert slow.plan is not None
    assert (slow.plan["fusion"], slow.plan["text_terms"]) == ("weighted", ["red"])
    assert slow.options == {"text": "red", "fusion": "weighted"}
    assert '"n"' in slow.filter


def test_a_flood_is_not_doubled(database: Database) -> None:
    clock, entry = HandClock(), watched(database)
    telemetry = telemetry_of([entry], clock=clock, slow_query_ms=1.0)
    for number in range(SLOW_QUERIES_MAX + 50):
        telemetry.observe_search(entry, np.ones(4), 3, None, 0.95, [], 0.2, request_id=f"r{number}")
    kept = telemetry.slow_queries(10**6)
    assert len(kept) == SLOW_QUERIES_MAX
    assert kept[0].request_id == f"r{SLOW_QUERIES_MAX + 49}", "newest first"
    assert {slow.plan_note for slow in kept} == {"not taken: too many slow searches at once"}
    for _ in range(3 * SLOW_QUERIES_WAITING_MAX):
        telemetry.step()  # without time passing: one at most
    clock.moment_s += 60
    telemetry.observe_search(entry, np.ones(4), 3, None, 0.95, [], 0.2, request_id="later")
    telemetry.step()
    for _ in range(SLOW_QUERIES_WAITING_MAX):
        clock.moment_s += 60
        telemetry.step()
    assert telemetry.slow_queries(1)[0].plan is not None


def test_what_is_kept_of_a_search_is_bounded(database: Database) -> None:
    entry = watched(database)
    telemetry = telemetry_of([entry], slow_query_ms=1.0)
    words = "word " * 10_000
    telemetry.observe_search(
        entry, None, 3, {"n": {"$in": list(range(50_000))}}, 0.95, [], 0.2, options={"text": words}
    )
    (slow,) = telemetry.slow_queries()
    assert len(slow.filter) <= SLOW_QUERY_TEXT_MAX + 1
    assert len(slow.options["text"]) <= SLOW_QUERY_TEXT_MAX


def test_failing_repetition_says_why(tmp_path: Path) -> None:
    with jade.open(tmp_path) as store:
        database = store.create_database("a", 2)
        entry = watched(database)
        telemetry = telemetry_of([entry], slow_query_ms=1.0)
        telemetry.observe_search(entry, [1, 1], 3, None, 0.95, [], 0.2)
    telemetry.step()
    (slow,) = telemetry.slow_queries()
    assert (slow.plan, slow.plan_note) == (None, "not taken: CLOSED")


def test_log_line_has_the_plan_and_not_the_data(database: Database) -> None:
    with start_log("info", "json") as log:
        entry = watched(database)
        telemetry = telemetry_of([entry], slow_query_ms=1.0, logs=log.recent)
        telemetry.observe_search(
            entry, np.ones(4), 3, {"title": "private"}, 0.95, [], 0.2, request_id="r1", options={"text": "confidential"}
        )
        telemetry.step()
        (line,) = telemetry.logs("warning", contains="slow search")
    assert line.level == "warning"
    assert "products: 200.0 ms, k 3, recall 0.95, filtered" in line.message
    assert line.fields["request_id"] == "r1"
    assert "segments" in line.fields["plan"]
    assert "private" not in str(line)
    assert logging.getLogger("jadevectordb.slow_query").name == line.logger


def test_with_the_real_thread(tmp_path: Path, database: Database) -> None:
    entry = watched(database)
    telemetry = telemetry_of([entry], clock=SystemClock(), host=OsHost(tmp_path), slow_query_ms=0.0, recall_one_in=1)
    with start_log("warning", "json", stream=None) as log:
        done = log.recent
        telemetry.start()
        telemetry.observe_search(entry, np.ones(4), 3, None, 0.95, database.search(np.ones(4), k=3), 0.2)
        while not done.find(contains="slow search") or telemetry.recall("db_1") is None:
            pass
        telemetry.close()
    assert telemetry.slow_queries()[0].plan is not None
