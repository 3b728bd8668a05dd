"""The server's log: structured lines for machines or people, without secrets, never in the way of a request.

A line takes this way: the `jadevectordb` logger -> `Intake` (makes a `LogEntry`, removes secrets, keeps it for `GET /v2/logs`)
-> a bounded queue -> one thread that writes to standard error or a file. A terminal that hangs or a disk that is full loses
lines, which are counted; it never stops the server.
"""

from __future__ import annotations

import datetime
import io
import logging
import logging.handlers
import queue
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import msgspec

from jadevectordb.gateway.service.redaction import HIDDEN, is_secret_name, redacted_value
from jadevectordb.model.disk_errors import disk_error
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import (
    LOG_ENTRIES_MAX,
    LOG_LINES_WAITING_MAX,
    SERVER_LOG_BYTES_MAX,
    SERVER_LOG_FILES_MAX,
)

# Ours, and the libraries' with the least level that is heard of them: at info they tell what nobody asked for, and a trace
# collector that is away would fill the log with retries
LOGGERS = {
    "jadevectordb": logging.DEBUG,
    "uvicorn": logging.WARNING,
    "asyncio": logging.WARNING,
    "grpc": logging.WARNING,
    "opentelemetry": logging.ERROR,
    "py.warnings": logging.WARNING,
}
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", "color_message"}
_encode = msgspec.json.Encoder(enc_hook=str).encode
_FLUSH_S_MAX = 5.0


class LogEntry(msgspec.Struct, frozen=True):
    """One line. fields: what the code attached (request_id, database, duration_ms, ...). trace: of an exception, or ""."""

    time: str  # ISO 8601, UTC
    level: str  # debug, info, warning, error
    logger: str
    message: str
    fields: dict[str, Any] = {}
    trace: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Flat, as it is written and shown; the entry's own names win over fields."""
        plain: dict[str, Any] = {
            "time": self.time,
            "level": self.level,
            "logger": self.logger,
            "message": self.message,
        }
        for name, value in self.fields.items():
            plain.setdefault(name, value)
        if self.trace:
            plain["trace"] = self.trace
        return plain


class RecentLogs:
    """The newest entries, in memory. Thread-safe."""

    def __init__(self, entries_max: int = LOG_ENTRIES_MAX) -> None:
        self._lock = threading.Lock()
        self._entries: deque[LogEntry] = deque(maxlen=entries_max)

    def add(self, entry: LogEntry) -> None:
        with self._lock:
            self._entries.append(entry)

    def find(self, level: str = "debug", contains: str = "", limit: int = 100) -> list[LogEntry]:
        """Newest first: of this level or graver, with this text (in any case) in message, logger, fields or trace."""
        least = level_of(level)
        wanted = contains.casefold()
        with self._lock:
            entries = list(self._entries)
        found: list[LogEntry] = []
        for entry in reversed(entries):
            if len(found) >= limit:
                break
            if LEVELS[entry.level] >= least and (not wanted or wanted in _searched(entry)):
                found.append(entry)
        return found


def level_of(name: str) -> int:
    level = LEVELS.get(name.lower())
    if level is None:
        raise JadeError(
            ErrorCode.INVALID_ARGUMENT, f"There is no log level {name!r:.60}: use one of {', '.join(LEVELS)}."
        )
    return level


def _searched(entry: LogEntry) -> str:
    text = f"{entry.logger}\n{entry.message}\n{entry.trace}"
    if entry.fields:
        text += "\n" + _encode(entry.fields).decode("utf-8", "replace")
    return text.casefold()


def entry_of(record: logging.LogRecord) -> LogEntry:
    """What a logging call said, bounded and without secrets. Never raises."""
    try:
        message = record.getMessage()
    except (
        Exception
    ):  # arguments that don't fit their format, or whose text raises: the line is worth more than the error
        message = f"{record.msg} (its arguments don't fit)"
    fields = {
        name: HIDDEN if is_secret_name(name) and value else _field(value)
        for name, value in record.__dict__.items()
        if name not in _STANDARD and not name.startswith("_") and value is not None and value != ""
    }
    return LogEntry(
        time=f"{datetime.datetime.fromtimestamp(record.created, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{int(record.msecs):03}Z",
        level=_level_name(record.levelno),
        logger=record.name,
        message=redacted_value(message),
        fields=fields,
        trace=_trace(record),
    )


def _field(value: Any) -> Any:
    try:
        return redacted_value(value)
    except Exception:
        return f"({type(value).__name__} that can't be shown)"


def _trace(record: logging.LogRecord) -> str:
    if record.exc_info and record.exc_info[1] is not None:
        # Without the values of variables, which Python does not show; messages of exceptions may still quote a secret
        text = "".join(traceback.format_exception(record.exc_info[1], limit=-20))
        return str(redacted_value(text.rstrip()))
    return str(redacted_value(record.exc_text or ""))


def _level_name(number: int) -> str:
    for name, level in reversed(LEVELS.items()):
        if number >= level:
            return name
    return "debug"


# Lines


def json_line(entry: LogEntry) -> str:
    """One JSON object on one line."""
    return _encode(entry.as_dict()).decode("utf-8", "replace")


def readable_line(entry: LogEntry) -> str:
    """For people: time, level, message, then fields as name=value; a trace on lines of its own."""
    # A message can hold what a client sent: a line break in it must not look like another entry
    message = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in entry.message)
    fields = "".join(f" {name}={_short(value)}" for name, value in entry.fields.items())
    trace = "".join(f"\n    {line}" for line in entry.trace.splitlines())
    return f"{entry.time} {entry.level.upper():7} {message}{fields}{trace}"


def _short(value: Any) -> str:
    if isinstance(value, str) and value.isprintable() and " " not in value and len(value) <= 200:
        return value
    text = _encode(value).decode("utf-8", "replace")
    return text if len(text) <= 400 else text[:400] + "…"


# Handlers


class Intake(logging.Handler):
    """Turns records into entries, keeps them, and queues their lines. Never waits, never raises."""

    def __init__(self, recent: RecentLogs, lines: queue.Queue[str | None] | None, as_json: bool) -> None:
        super().__init__()
        self._recent = recent
        self._lines = lines
        self._line_of = json_line if as_json else readable_line
        self.dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.take(entry_of(record))
        except Exception:
            self.dropped += 1  # a log line is never worth a failed request

    def take(self, entry: LogEntry) -> None:
        """Keep an entry and queue its line."""
        try:
            self._recent.add(entry)
            if self._lines is not None:
                self._lines.put_nowait(self._line_of(entry))
        except queue.Full:
            self.dropped += 1
        except Exception:
            self.dropped += 1  # a log line is never worth a failed request


class ServerLog:
    """The installed log. Made by `start_log`; `close` writes what waits and puts the loggers back as they were."""

    def __init__(
        self, level: int, as_json: bool, output: logging.Handler | None, recent: RecentLogs | None = None
    ) -> None:
        self.recent = RecentLogs() if recent is None else recent
        self._output = output
        self._lines: queue.Queue[str | None] = queue.Queue(LOG_LINES_WAITING_MAX)
        self._intake = Intake(self.recent, None if output is None else self._lines, as_json)
        self._before = [(name, _state(logging.getLogger(name))) for name in LOGGERS]
        for name, least in LOGGERS.items():
            logger = logging.getLogger(name)
            logger.handlers = [self._intake]
            logger.propagate = False
            logger.setLevel(max(level, least))
            logger.disabled = False
        self._writer = threading.Thread(target=self._write, name="jade-log", daemon=True)
        if output is not None:
            self._writer.start()

    def take(self, entry: LogEntry) -> None:
        """Log what another process of this server has logged."""
        self._intake.take(entry)

    @property
    def dropped(self) -> int:
        """Lines lost because their way out was blocked."""
        return self._intake.dropped

    def _write(self) -> None:
        assert self._output is not None
        while (line := self._lines.get()) is not None:
            # A handler of the logging library reports what fails to its handleError, which is silenced below
            self._output.emit(logging.makeLogRecord({"msg": line, "args": None}))

    def close(self) -> None:
        for name, (handlers, propagate, level, disabled) in self._before:
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate, logger.disabled = handlers, propagate, disabled
            logger.setLevel(level)
        if self._output is not None and self._writer.is_alive():
            try:
                self._lines.put(None, timeout=_FLUSH_S_MAX)
            except queue.Full:
                return  # whatever it hangs on will not be helped by waiting longer
            self._writer.join(_FLUSH_S_MAX)
            if not self._writer.is_alive():
                self._output.close()

    def __enter__(self) -> ServerLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Lines(logging.StreamHandler[TextIO]):
    """Writes to a stream it does not own; a broken pipe is nothing to tell anyone about: there is no one to tell."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        pass


class _RotatedFile(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """A full disk loses lines, not the server. The next line is tried again."""


def start_log(level: str = "info", format: str = "auto", file: str = "", stream: TextIO | None = None) -> ServerLog:
    """Send the server's log where the settings say. format: json, text, or auto (text on a terminal, else JSON).

    file: a path, turned over when it grows large; "" = `stream`, by default standard error. Raises IO_ERROR, READ_ONLY.
    """
    output: logging.Handler
    if file:
        path = Path(file)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            output = _RotatedFile(
                path,
                maxBytes=SERVER_LOG_BYTES_MAX,
                backupCount=SERVER_LOG_FILES_MAX,
                encoding="utf-8",
                errors="replace",
            )
        except OSError as error:
            raise disk_error(error, "open the log file", path) from error
        as_json = format != "text"
    else:
        target = stream or sys.stderr
        output = _Lines(target)
        as_json = format == "json" or (format == "auto" and not _is_terminal(target))
    return ServerLog(level_of(level), as_json, output)


def _is_terminal(stream: TextIO) -> bool:
    try:
        return stream.isatty()
    except (ValueError, io.UnsupportedOperation):
        return False


def _state(logger: logging.Logger) -> tuple[list[logging.Handler], bool, int, bool]:
    return list(logger.handlers), logger.propagate, logger.level, logger.disabled


def as_dicts(entries: Iterable[LogEntry]) -> list[dict[str, Any]]:
    return [entry.as_dict() for entry in entries]
