"""Reports about searches against the same sums in plain Python; the buffer in front of the log; feedback, pruning, exports."""

from __future__ import annotations

import csv
import datetime
import io
import math
import random
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.insight_world import START_MS, Numbers, SetClock

from jadevectordb.adapters.sqlite_queries import SqliteQueries
from jadevectordb.gateway.service import analytics_report
from jadevectordb.gateway.service.analytics import Analytics, normalized
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import QUERIES_BUFFERED_MAX
from jadevectordb.ports.query_log import BucketStats, Granularity, LoggedQuery, QueryKind, QueryRecord

HOUR, DAY = 3_600_000, 86_400_000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteQueries]:
    opened = SqliteQueries(tmp_path / "queries.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
def analytics(log: SqliteQueries, clock: SetClock) -> Iterator[Analytics]:
    made = Analytics(log, clock, Numbers(), background=False)
    yield made
    made.close()


def _records(count: int, days: float, seed: int) -> list[QueryRecord]:
    rng = random.Random(seed)
    texts = ["", "red shoes", "Red  Shoes!", "blue hat", "green coat", "Überraschung", "nothing here"]
    records = []
    for number in range(count):
        error = rng.choice(["", "", "", "", "INVALID_FILTER", "DIMENSION_MISMATCH"])
        records.append(
            QueryRecord(
                f"q{number}",
                rng.choice(["db_a", "db_b"]),
                rng.choice(["", "u1", "u2", "u3"]),
                rng.choice(["", "s1", "s2"]),
                rng.choice(list(QueryKind)),
                rng.choice(texts),
                10,
                rng.choice([0.5, 1.0, rng.random() * 100]),
                0 if error else rng.choice([0, 3, 10]),
                error,
                "",
                None,
                START_MS - int(rng.random() * days * DAY),
            )
        )
    return records


def _fill(log: SqliteQueries, records: list[QueryRecord]) -> None:
    log.append([LoggedQuery(record, normalized(record.text)) for record in records])


def _bucket_start(time_ms: int, granularity: Granularity) -> int:
    moment = datetime.datetime.fromtimestamp(time_ms // 1000, datetime.UTC)
    day = moment.replace(hour=0, minute=0, second=0)
    starts = {
        Granularity.HOURLY: moment.replace(minute=0, second=0),
        Granularity.DAILY: day,
        Granularity.WEEKLY: day - datetime.timedelta(days=day.weekday()),
        Granularity.MONTHLY: day.replace(day=1),
    }
    return int(starts[granularity].timestamp()) * 1000


def _summed(start: int, some: list[QueryRecord]) -> BucketStats:
    latencies = sorted(record.latency_ms for record in some)

    def percentile(share: float) -> float:
        return latencies[math.ceil(share * len(latencies)) - 1]

    kinds = Counter(record.kind for record in some)
    return BucketStats(
        start,
        len(some),
        sum(record.error != "" for record in some),
        sum(record.error == "" and record.results == 0 for record in some),
        sum(latencies) / len(latencies),
        percentile(0.5),
        percentile(0.95),
        percentile(0.99),
        len({record.user for record in some} - {""}),
        len({record.session for record in some} - {""}),
        kinds[QueryKind.VECTOR],
        kinds[QueryKind.HYBRID],
        kinds[QueryKind.BM25],
        kinds[QueryKind.RERANK],
    )


def _same(found: BucketStats, expected: BucketStats) -> None:
    for name in BucketStats.__struct_fields__:
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-9), name


@pytest.mark.parametrize("granularity", list(Granularity))
def test_buckets_are_what_plain_python_counts(log: SqliteQueries, granularity: Granularity) -> None:
    records = _records(3000, 100, seed=1)
    _fill(log, records)
    start, end = START_MS - 90 * DAY, START_MS - DAY
    mine = [r for r in records if r.database == "db_a" and start <= r.time_ms < end]
    expected: dict[int, list[QueryRecord]] = defaultdict(list)
    for record in mine:
        expected[_bucket_start(record.time_ms, granularity)].append(record)
    found = log.buckets("db_a", start, end, granularity)
    assert [bucket.start_ms for bucket in found] == sorted(expected)
    for bucket in found:
        _same(bucket, _summed(bucket.start_ms, expected[bucket.start_ms]))
    _same(log.total("db_a", start, end), _summed(start, mine))


def test_weeks_before_the_first_monday_of_1970_have_a_start(log: SqliteQueries) -> None:
    for number, days in enumerate((0, 3, 4, 11)):
        record = QueryRecord(f"q{number}", "db", "", "", QueryKind.VECTOR, "", 1, 1.0, 1, "", "", None, days * DAY)
        _fill(log, [record])
    starts = [bucket.start_ms // DAY for bucket in log.buckets("db", 0, 20 * DAY, Granularity.WEEKLY)]
    assert starts == [-3, 4, 11]


def test_nothing_searched_is_zeros_not_nulls(log: SqliteQueries) -> None:
    total = log.total("db_a", 0, START_MS)
    assert total.total == 0
    assert total.latency_p99_ms == 0.0
    assert log.buckets("db_a", 0, START_MS, Granularity.DAILY) == []


def test_patterns_pages_errors_and_slowest(log: SqliteQueries) -> None:
    records = _records(2000, 10, seed=2)
    _fill(log, records)
    start, end = START_MS - 5 * DAY, START_MS + 1
    mine = [r for r in records if r.database == "db_b" and start <= r.time_ms < end]
    groups: dict[str, list[QueryRecord]] = defaultdict(list)
    for record in mine:
        groups[normalized(record.text)].append(record)
    del groups[""]
    found = log.patterns("db_b", start, end, 2, 100)
    assert [(p.normalized, p.count) for p in found] == sorted(
        ((name, len(some)) for name, some in groups.items()), key=lambda p: (-p[1], p[0])
    )
    assert "red shoes" in groups
    for pattern in found:
        some = groups[pattern.normalized]
        assert pattern.latency_avg_ms == pytest.approx(sum(r.latency_ms for r in some) / len(some))
        assert pattern.results_avg == pytest.approx(sum(r.results for r in some) / len(some))
        assert (pattern.first_ms, pattern.last_ms) == (min(r.time_ms for r in some), max(r.time_ms for r in some))
        assert normalized(pattern.example) == pattern.normalized
    nothing = log.patterns("db_b", start, end, 1, 100, found_nothing=True)
    assert sum(p.count for p in nothing) == sum(r.text != "" and not r.error and r.results == 0 for r in mine)
    newest = sorted(mine, key=lambda r: (-r.time_ms, -int(r.query_id[1:])))
    assert log.page("db_b", start, end, 50, 20) == newest[20:70]
    assert log.count("db_b", start, end) == len(mine)
    assert [r.latency_ms for r in log.slowest("db_b", start, end, 5)] == sorted(
        (r.latency_ms for r in mine), reverse=True
    )[:5]
    assert dict(log.errors("db_b", start, end)) == Counter(r.error for r in mine if r.error)


def test_trends_compare_two_windows(log: SqliteQueries) -> None:
    def asked(text: str, times: int, days_ago: float) -> None:
        for number in range(times):
            record = QueryRecord(
                f"{text}{days_ago}{number}", "db", "", "", QueryKind.BM25, text, 1, 1.0, 1, "", "", None,
                START_MS - int(days_ago * DAY) - number,
            )  # fmt: skip
            _fill(log, [record])

    asked("rising", 2, 1.5)
    asked("Rising!", 5, 0.5)
    asked("falling", 5, 1.5)
    asked("falling", 2, 0.5)
    asked("steady", 4, 1.5)
    asked("steady", 5, 0.5)
    asked("new", 3, 0.5)
    asked("once", 1, 0.5)
    found = log.trends("db", START_MS - 2 * DAY, START_MS - DAY, START_MS, 0.5, 10)
    assert [(t.normalized, t.current, t.previous) for t in found] == [("new", 3, 0), ("rising", 5, 2)]
    assert analytics_report.growth_percent(found[1]) == 150.0
    everything = log.trends("db", START_MS - 2 * DAY, START_MS - DAY, START_MS, -1.0, 10)
    assert [t.normalized for t in everything] == ["new", "rising", "steady", "falling"]


def test_a_report_lists_the_search_that_ended_just_before(analytics: Analytics, clock: SetClock) -> None:
    query_id = analytics.new_query_id()
    analytics.record(
        query_id, "db", "hybrid", user="u", text="shoes", k=5, latency_ms=2.5, results=3, fusion="rrf", alpha=0.7
    )
    queries, total = analytics.queries("db", clock.ms - HOUR, clock.ms + 1, 10, 0)
    assert total == 1
    assert (queries[0].query_id, queries[0].kind, queries[0].text, queries[0].latency_ms) == (
        query_id,
        "hybrid",
        "shoes",
        2.5,
    )
    assert analytics.new_query_id() != query_id


def test_unknown_kinds_are_bugs(analytics: Analytics) -> None:
    with pytest.raises(ValueError, match="sonar"):
        analytics.record("q", "db", "sonar")


def test_a_full_buffer_drops_and_counts_and_loses_nothing_else(tmp_path: Path) -> None:
    log = SqliteQueries(tmp_path / "q.sqlite")
    analytics = Analytics(log, SetClock(), Numbers(), background=False)
    for _ in range(QUERIES_BUFFERED_MAX + 5):
        analytics.record(analytics.new_query_id(), "db", "vector")
    assert analytics.dropped == 5
    assert analytics.total("db", START_MS, START_MS + 1).total == QUERIES_BUFFERED_MAX
    analytics.close()
    analytics.close()


def test_a_log_that_cannot_be_written_keeps_the_buffer(tmp_path: Path) -> None:
    path = tmp_path / "q.sqlite"
    log = SqliteQueries(path)
    analytics = Analytics(log, SetClock(), Numbers(), background=False)
    analytics.record("q_1", "db", "vector")
    other = sqlite3.connect(path)
    other.execute("ALTER TABLE query RENAME TO hidden")
    with pytest.raises(JadeError) as caught:
        analytics.flush()
    assert caught.value.code is ErrorCode.CORRUPT
    other.execute("ALTER TABLE hidden RENAME TO query")
    other.close()
    assert [q.query_id for q in analytics.queries("db", START_MS, START_MS + 1, 10, 0)[0]] == ["q_1"]
    analytics.close()


def test_many_threads_record_at_once_with_the_writer_running(tmp_path: Path) -> None:
    log = SqliteQueries(tmp_path / "q.sqlite")
    analytics = Analytics(log, SetClock(), Numbers())

    def work() -> None:
        for _ in range(500):
            analytics.record(analytics.new_query_id(), "db", "vector", latency_ms=1.0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queries, total = analytics.queries("db", START_MS, START_MS + 1, 1000, 0)
    assert total == 2000
    assert len({q.query_id for q in queries}) == 1000
    analytics.close()
    again = SqliteQueries(tmp_path / "q.sqlite")
    assert again.count("db", START_MS, START_MS + 1) == 2000
    again.close()


def test_feedback_says_whether_the_search_is_known(analytics: Analytics, clock: SetClock) -> None:
    analytics.record("q_known", "db", "vector")
    known = analytics.add_feedback(
        "db", "q_known", user="u", rating=5, text="good \ud800", clicked_id="a", clicked_rank=1
    )
    unknown = analytics.add_feedback("db", "q_other", user="u", label="somebody")
    elsewhere = analytics.add_feedback("other", "q_known", user="u")
    assert (known.query_known, unknown.query_known, elsewhere.query_known) == (True, False, False)
    kept = {f.feedback_id: f for f in analytics.feedback("db", clock.ms, clock.ms + 1, 10)}
    assert kept[unknown.feedback_id] == unknown
    assert kept[known.feedback_id].text == "good ?"
    for wrong in ({"rating": 0}, {"rating": 6}, {"clicked_rank": -1}, {"text": "x" * 10_001}):
        with pytest.raises(JadeError):
            analytics.add_feedback("db", "q", user="u", **wrong)
    with pytest.raises(JadeError):
        analytics.add_feedback("db", "", user="u")


def test_age_and_number_bound_what_is_kept(log: SqliteQueries, clock: SetClock) -> None:
    analytics = Analytics(log, clock, Numbers(), days_kept=2, rows_kept=10, background=False)
    for day in range(4):
        for number in range(6):
            analytics.record(f"q{day}{number}", "db", "vector")
        clock.pass_days(1)
    analytics.flush()
    assert analytics.prune() == 14
    left, total = analytics.queries("db", 0, clock.ms, 100, 0)
    assert total == 10
    assert {q.query_id for q in left} == {f"q3{n}" for n in range(6)} | {f"q2{n}" for n in range(2, 6)}
    analytics.forget("db")
    assert analytics.queries("db", 0, clock.ms, 100, 0) == ([], 0)


def test_recommendations_carry_the_numbers_they_come_from(analytics: Analytics, clock: SetClock) -> None:
    assert "No search was recorded" in analytics_report.make_report(analytics, "db", 0, clock.ms + 1).recommendations[0]
    for number in range(100):
        failed = number % 10 == 0
        analytics.record(
            f"q{number}", "db", "bm25", text="Cheap flights" if number % 2 else f"text {number}",
            latency_ms=200.0 if number < 8 else 2.0, results=0 if number % 4 == 1 or failed else 5,
            error="INVALID_FILTER" if failed else "",
        )  # fmt: skip
    report = analytics_report.make_report(analytics, "db", clock.ms - DAY, clock.ms + 1)
    text = "\n".join(report.recommendations)
    assert "10 of 100 searches failed (10%), 10 of them with INVALID_FILTER" in text
    assert "25 of 100 searches found nothing, most often 'Cheap flights' (25 times)" in text
    assert "200.0 ms or more, 100 times the median of 2.0 ms" in text
    assert "50 of 100 searches ask 'Cheap flights' (50%)" in text
    assert report.success_rate == 0.9
    assert report.peak is not None
    assert report.peak.total == 100


def test_csv_is_quoted_and_runs_no_formulas(analytics: Analytics, clock: SetClock) -> None:
    nasty = ['=cmd|" /C calc"!A0', 'say "hi", now\nand then', "-1+2"]
    for text in nasty:
        for number in range(2):
            analytics.record(f"{text}{number}", "db", "bm25", text=text, results=0)
    report = analytics_report.make_report(analytics, "db", clock.ms - DAY, clock.ms + 1)
    rows = list(csv.reader(io.StringIO(analytics_report.to_csv(report).decode(), newline="")))
    assert rows[0] == ["Type", "Data", "Count", "Metric", "Value"]
    assert all(len(row) == 5 for row in rows)
    slow = [row[1] for row in rows if row[0] == "slow_query"]
    assert set(slow) == {"'" + nasty[0], nasty[1], "'" + nasty[2]}
    assert ["summary", "", "", "total_queries", "6"] in rows


def test_another_file_is_not_taken_for_a_query_log(tmp_path: Path) -> None:
    path = tmp_path / "q.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE mine (x)")
    other.commit()
    other.close()
    with pytest.raises(JadeError) as caught:
        SqliteQueries(path)
    assert caught.value.code is ErrorCode.CORRUPT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Red   SHOES! ", "red shoes"),
        ("ﬁne (art)", "fine art"),
        ("C++ vs. C#", "c++ vs c#"),
        ("?!", ""),
        ("Straße", "strasse"),
    ],
)
def test_texts_that_ask_the_same_share_a_form(text: str, expected: str) -> None:
    assert normalized(text) == expected
