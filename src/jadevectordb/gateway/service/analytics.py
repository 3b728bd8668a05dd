"""Which searches people run, and how they fare: every search of any kind is recorded, reports are made from what happened.

The hot path appends one record to a buffer in memory, a microsecond or two. A background thread writes batches to the query
log (`ports/query_log.py`); every report first writes what is still buffered, so it lists the search that ended just before.
When the log can't be written the buffer fills up to its bound; what comes then is counted in `dropped` and never slows a search.
"""

from __future__ import annotations

import itertools
import logging
import threading
import unicodedata
from collections import deque
from collections.abc import Callable

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import (
    FEEDBACK_TEXT_LENGTH_MAX,
    ID_LENGTH_MAX,
    QUERIES_BUFFERED_MAX,
    QUERIES_KEPT_DAYS,
    QUERIES_KEPT_MAX,
    QUERY_TEXT_LENGTH_MAX,
)
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.query_log import (
    BucketStats,
    Feedback,
    Granularity,
    LoggedQuery,
    Pattern,
    QueryKind,
    QueryLog,
    QueryRecord,
    Trend,
)

logger = logging.getLogger("jadevectordb.analytics")
DAY_MS = 86_400_000
_WRITE_EVERY_S = 1.0
_PRUNE_EVERY_MS = 10 * 60_000
_BATCH = 4096
BUCKET_MS = {Granularity.HOURLY: 3_600_000, Granularity.DAILY: DAY_MS, Granularity.WEEKLY: 7 * DAY_MS}


class QueryRecorder:
    """The hot path: ids for searches, and a record of each. What becomes of the records is a subclass's to say."""

    def __init__(self, clock: Clock, unique: Callable[[], str]) -> None:
        self._clock = clock
        # Ids of this process: one random part, then a count, so that an id costs no system call
        self._prefix, self._count = f"q_{unique()}", itertools.count(1)

    def new_query_id(self) -> str:
        return f"{self._prefix}{next(self._count):x}"

    def record(
        self,
        query_id: str,
        database: str,
        kind: str,
        *,
        user: str = "",
        session: str = "",
        text: str = "",
        k: int = 0,
        latency_ms: float = 0.0,
        results: int = 0,
        error: str = "",
        fusion: str = "",
        alpha: float | None = None,
    ) -> None:
        """Note a search that ended now. Never waits. kind: one of QueryKind."""
        now = self._clock.now_ms()
        self.add(
            QueryRecord(
                query_id, database, user, session, QueryKind(kind), text[:QUERY_TEXT_LENGTH_MAX], k, latency_ms, results, error, fusion,
                alpha, now,
            )
        )  # fmt: skip

    def add(self, record: QueryRecord) -> None:
        raise NotImplementedError


class Analytics(QueryRecorder):
    """Thread-safe. log: owned and closed here. unique: a fresh short text, for ids."""

    def __init__(
        self,
        log: QueryLog,
        clock: Clock,
        unique: Callable[[], str],
        *,
        days_kept: int = QUERIES_KEPT_DAYS,
        rows_kept: int = QUERIES_KEPT_MAX,
        background: bool = True,
    ) -> None:
        """background: False when the caller flushes and prunes itself."""
        super().__init__(clock, unique)
        self._log = log
        self._unique = unique
        self._days_kept, self._rows_kept = days_kept, rows_kept
        self._buffer: deque[QueryRecord] = deque()
        self._flushing = threading.Lock()
        self._closing = threading.Event()
        self._pruned_ms = 0
        self.dropped = 0  # searches that were not recorded because the log could not keep up
        self._thread = threading.Thread(target=self._work, name="jade-analytics", daemon=True)
        if background:
            self._thread.start()

    def add(self, record: QueryRecord) -> None:
        """Note a search that may have been answered by another process. Never waits."""
        if len(self._buffer) >= QUERIES_BUFFERED_MAX:
            self.dropped += 1
            return
        self._buffer.append(record)

    # Writing

    def flush(self) -> None:
        """Write what is buffered now. Raises what the log raises; then it is still buffered."""
        with self._flushing:
            while True:
                batch: list[QueryRecord] = []
                while self._buffer and len(batch) < _BATCH:  # only this method takes out, under its lock
                    batch.append(self._buffer.popleft())
                if not batch:
                    return
                try:
                    self._log.append([LoggedQuery(record, normalized(record.text)) for record in batch])
                except BaseException:
                    self._buffer.extendleft(reversed(batch))
                    raise

    def prune(self) -> int:
        """Forget what is too old or too much; how many searches went."""
        return self._log.prune(self._clock.now_ms() - self._days_kept * DAY_MS, self._rows_kept)

    def _work(self) -> None:
        troubled = False
        while not self._closing.wait(_WRITE_EVERY_S):
            try:
                self.flush()
                if self._clock.now_ms() - self._pruned_ms >= _PRUNE_EVERY_MS:
                    self.prune()
                    self._pruned_ms = self._clock.now_ms()
                troubled = False
            except JadeError as error:
                if not troubled:
                    logger.warning("searches can't be recorded: %s", error)
                troubled = True

    def forget(self, database: str) -> None:
        """A database was dropped: its searches go with it. Where the log can't be written they go with age."""
        try:
            self.flush()
            self._log.forget(database)
        except JadeError as error:
            logger.warning("the searches of database %s, which was dropped, stay for now: %s", database, error)

    def close(self) -> None:
        """Write what is buffered and close the log. Idempotent."""
        if self._closing.is_set():
            return
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        try:
            self.flush()
        except JadeError as error:
            logger.warning("%d recorded searches are lost: %s", len(self._buffer), error)
        self._log.close()

    # Reading; every call writes first what is buffered, if the disk takes it

    def stats(self, database: str, start_ms: int, end_ms: int, granularity: Granularity) -> list[BucketStats]:
        return self._fresh().buckets(database, start_ms, end_ms, granularity)

    def total(self, database: str, start_ms: int, end_ms: int) -> BucketStats:
        return self._fresh().total(database, start_ms, end_ms)

    def queries(
        self, database: str, start_ms: int, end_ms: int, limit: int, offset: int
    ) -> tuple[list[QueryRecord], int]:
        """A page, newest first, and how many there are in the window."""
        log = self._fresh()
        return log.page(database, start_ms, end_ms, limit, offset), log.count(database, start_ms, end_ms)

    def patterns(
        self, database: str, start_ms: int, end_ms: int, count_min: int, limit: int, *, found_nothing: bool = False
    ) -> list[Pattern]:
        return self._fresh().patterns(database, start_ms, end_ms, count_min, limit, found_nothing=found_nothing)

    def slowest(self, database: str, start_ms: int, end_ms: int, limit: int) -> list[QueryRecord]:
        return self._fresh().slowest(database, start_ms, end_ms, limit)

    def errors(self, database: str, start_ms: int, end_ms: int) -> list[tuple[str, int]]:
        return self._fresh().errors(database, start_ms, end_ms)

    def trends(self, database: str, end_ms: int, bucket_ms: int, growth_min: float, limit: int) -> list[Trend]:
        """The bucket that ends at end_ms against the one before it."""
        middle = end_ms - bucket_ms
        return self._fresh().trends(database, middle - bucket_ms, middle, end_ms, growth_min, limit)

    def feedback(self, database: str, start_ms: int, end_ms: int, limit: int) -> list[Feedback]:
        return self._log.feedback(database, start_ms, end_ms, limit)

    def add_feedback(
        self,
        database: str,
        query_id: str,
        *,
        user: str,
        label: str = "",
        rating: int | None = None,
        text: str = "",
        clicked_id: str = "",
        clicked_rank: int | None = None,
    ) -> Feedback:
        """Keep what a person said about a search; durable on return. Raises INVALID_ARGUMENT."""
        if not query_id or len(query_id) > ID_LENGTH_MAX:
            raise _invalid(f"query_id must be 1 to {ID_LENGTH_MAX} characters.")
        if rating is not None and not 1 <= rating <= 5:
            raise _invalid(f"rating must be 1 to 5, got {rating}.")
        if clicked_rank is not None and clicked_rank < 0:
            raise _invalid(f"clicked_rank must not be negative, got {clicked_rank}.")
        if len(text) > FEEDBACK_TEXT_LENGTH_MAX or len(label) > ID_LENGTH_MAX or len(clicked_id) > ID_LENGTH_MAX:
            raise _invalid(f"feedback_text may have {FEEDBACK_TEXT_LENGTH_MAX} characters, names {ID_LENGTH_MAX}.")
        feedback = Feedback(
            feedback_id=f"fb_{self._unique()}",
            database=database,
            query_id=query_id,
            query_known=self._fresh().knows(database, query_id),
            user=user,
            label=label,
            rating=rating,
            text=text,
            clicked_id=clicked_id,
            clicked_rank=clicked_rank,
            time_ms=self._clock.now_ms(),
        )
        self._log.add_feedback(feedback)
        return feedback

    def _fresh(self) -> QueryLog:
        try:
            self.flush()
        except JadeError as error:
            if error.code not in (ErrorCode.DISK_FULL, ErrorCode.READ_ONLY):
                raise
            # What is written can be told all the same; what waits goes on waiting
        return self._log


def normalized(text: str) -> str:
    """What texts that ask the same have in common: case, compatibility forms, punctuation at words' ends and spaces unified."""
    unified = unicodedata.normalize("NFKC", text).casefold()
    words = (word.strip("\"'`.,;:!?()[]{}<>…¿¡") for word in unified.split())
    return " ".join(word for word in words if word)


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
