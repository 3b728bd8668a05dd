"""The server's log: what was said arrives, in both forms, without secrets, bounded, and it never stops or fails its caller."""

from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jadevectordb.gateway.service.logs import LOGGERS, RecentLogs, ServerLog, entry_of, readable_line, start_log
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import LOG_ENTRIES_MAX, LOG_LINES_WAITING_MAX, LOG_MESSAGE_LENGTH_MAX

logger = logging.getLogger("jadevectordb.test")


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> Iterator[ServerLog]:
    with start_log("info", "json", stream=stream) as started:
        yield started


def lines_of(log: ServerLog, stream: io.StringIO) -> list[dict[str, Any]]:
    log.close()
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_lines(log: ServerLog, stream: io.StringIO) -> None:
    logger.info("started on %s", "127.0.0.1", extra={"request_id": "r1", "duration_ms": 1.5, "empty": ""})
    logger.debug("not asked for")
    logger.warning("two\nlines", extra={"message_id": 7, "level": "a field can't pose as the level"})
    first, second = lines_of(log, stream)
    assert first["time"].endswith("Z")
    assert first | {"time": ""} == {
        "time": "", "level": "info", "logger": "jadevectordb.test", "message": "started on 127.0.0.1", "request_id": "r1",
        "duration_ms": 1.5,
    }  # fmt: skip
    assert (second["level"], second["message"], second["message_id"]) == ("warning", "two\nlines", 7)


def test_readable_lines(stream: io.StringIO) -> None:
    with start_log("debug", "text", stream=stream):
        logger.debug("a message", extra={"request_id": "r1", "plan": {"k": 10}, "note": "two words"})
        logger.info("\x1b[31mforged\n2026-01-01T00:00:00.000Z ERROR   line")
    first, second = stream.getvalue().splitlines()
    assert first.endswith(' DEBUG   a message request_id=r1 plan={"k":10} note="two words"')
    assert "\x1b" not in second
    assert r"\x1b[31mforged\n2026" in second


def test_exceptions(log: ServerLog, stream: io.StringIO) -> None:
    try:
        raise ValueError("password=hunter2 is wrong")
    except ValueError:
        logger.exception("it failed")
    (line,) = lines_of(log, stream)
    assert "Traceback" in line["trace"]
    assert "ValueError: password=[hidden]" in line["trace"]
    assert "hunter2" not in stream.getvalue()


def test_secrets_stay_out_of_lines_fields_and_memory(log: ServerLog, stream: io.StringIO) -> None:
    key = "jadevdb_abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
    logger.info(
        "asked with %s",
        {"authorization": f"Bearer {key}"},
        extra={"password": "hunter2", "headers": {"x-api-key": key}},
    )
    logging.getLogger("uvicorn.error").warning("ASGI scope {'headers': [(b'authorization', b'Basic aHVudGVyMg==')]}")
    entries = str(log.recent.find())
    lines_of(log, stream)
    for secret in (key, key[8:], "hunter2", "aHVudGVyMg"):
        assert secret not in stream.getvalue()
        assert secret not in entries
    assert len(log.recent.find()) == 2


def test_find(log: ServerLog) -> None:
    logger.info("first", extra={"database": "Products"})
    logger.warning("second")
    logger.error("third")
    find = log.recent.find
    assert [entry.message for entry in find()] == ["third", "second", "first"]
    assert [entry.message for entry in find("warning")] == ["third", "second"]
    assert [entry.message for entry in find("ERROR")] == ["third"]
    assert [entry.message for entry in find(contains="produCTS")] == ["first"]
    assert [entry.message for entry in find(limit=1)] == ["third"]
    assert find(contains="nothing like it") == []
    with pytest.raises(JadeError, match="log level 'loud'") as raised:
        find("loud")
    assert raised.value.code is ErrorCode.INVALID_ARGUMENT


def test_memory_is_bounded() -> None:
    recent = RecentLogs()
    for number in range(LOG_ENTRIES_MAX + 10):
        recent.add(entry_of(logging.makeLogRecord({"msg": f"line {number}", "levelno": 20})))
    kept = recent.find(limit=10**9)
    assert len(kept) == LOG_ENTRIES_MAX
    assert kept[-1].message == "line 10"
    assert (
        len(entry_of(logging.makeLogRecord({"msg": "x" * 10**6, "levelno": 20})).message) <= LOG_MESSAGE_LENGTH_MAX + 1
    )


def test_bad_calls_are_kept_not_raised(stream: io.StringIO) -> None:
    class Unshowable:
        def __str__(self) -> str:
            raise RuntimeError("no")

    log = start_log("info", "json", stream=stream)
    logger.info("one %s two %s", *["argument"])
    logger.info("field", extra={"thing": Unshowable()})
    logger.info("half a pair \udc80 of surrogates", extra={"also": "\udc80", "huge": 10**400, "long": ["x"] * 10**5})
    lines = lines_of(log, stream)
    assert "don't fit" in lines[0]["message"]
    assert lines[1]["message"] == "field"
    assert lines[2]["message"] == "half a pair \\udc80 of surrogates"
    assert log.dropped == 0
    assert len(log.recent.find()) == 3


def test_loggers_are_put_back(stream: io.StringIO) -> None:
    before = [(logging.getLogger(name).handlers[:], logging.getLogger(name).level) for name in LOGGERS]
    log = start_log("debug", "json", stream=stream)
    assert logging.getLogger("jadevectordb").handlers
    log.close()
    log.close()
    assert [(logging.getLogger(name).handlers, logging.getLogger(name).level) for name in LOGGERS] == before


def test_libraries_tell_only_what_matters(log: ServerLog) -> None:
    logging.getLogger("uvicorn.access").info('127.0.0.1 - "GET / HTTP/1.1" 200')
    logging.getLogger("asyncio").warning("a task took long")
    assert [entry.message for entry in log.recent.find()] == ["a task took long"]


def test_file_is_appended_to_and_private_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "server.log"
    for number in range(2):
        with start_log(file=str(path)):
            logger.info("run %s: größer", number)
    lines = [json.loads(line)["message"] for line in path.read_text("utf-8").splitlines()]
    assert lines == ["run 0: größer", "run 1: größer"]


def test_file_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(JadeError):
        start_log(file=str(tmp_path / "folder"))
    assert not [handler for handler in logging.getLogger("jadevectordb").handlers if type(handler).__name__ == "Intake"]


def test_blocked_way_out_loses_lines_not_callers() -> None:
    """A pipe that nobody reads: its writer hangs, the callers go on, what is lost is counted."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w", buffering=1) as stream:
        log = start_log("info", "text", stream=stream)
        for _ in range(LOG_LINES_WAITING_MAX * 2):
            logger.info("x" * 100)
        assert log.dropped > 0
        drain = threading.Thread(target=_drain, args=(read_end,))
        drain.start()
        while not log._lines.empty():  # closing waits for some seconds only
            drain.join(0.01)
        log.close()
    drain.join()


def _drain(fd: int) -> None:
    while os.read(fd, 1 << 16):
        pass
    os.close(fd)


def test_closed_way_out_is_survived() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    stream = os.fdopen(write_end, "w", buffering=1)
    log = start_log("info", "text", stream=stream)
    logger.info("into nothing")
    logger.info("and again")
    assert len(log.recent.find()) == 2
    log.close()
    with pytest.raises(BrokenPipeError):  # what it still holds can't be written
        stream.close()


def test_unusual_fields_in_readable_lines() -> None:
    record = logging.makeLogRecord(
        {"msg": "m", "levelno": 55, "levelname": "X", "a": {1, 2}, "b": b"bytes", "c": float("nan")}
    )
    line = readable_line(entry_of(record))
    assert " ERROR   m a=[1,2] " in line
