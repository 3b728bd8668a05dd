"""Alerts: what an operator should know, kept until somebody acknowledges it, raised by the system and by people.

A system alert belongs to a condition, such as a disk that is almost full. While it lasts there is one alert for it, however
often it is looked at; acknowledged, it stays quiet until the condition has ended and come back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from enum import StrEnum

import msgspec

from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ALERT_MESSAGE_LENGTH_MAX, ALERTS_KEPT_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore

logger = logging.getLogger("jadevectordb.alerts")
_PREFIX = "alert/"


class AlertType(StrEnum):
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Condition(msgspec.Struct, frozen=True):
    """Something that is so right now. key: the same for the same trouble, whatever the message says of it."""

    key: str
    type: AlertType
    message: str


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """condition: "" for one a person raised. ended_ms: when its condition was found gone. acknowledged_by: a user id."""

    id: str
    type: AlertType
    message: str
    time_ms: int
    acknowledged: bool = False
    acknowledged_by: str = ""
    acknowledged_ms: int | None = None
    condition: str = ""
    ended_ms: int | None = None


Check = Callable[[], Iterable[Condition]]


class Alerts:
    """Thread-safe. checks: what to look at every `interval_s`; see `health_checks`. unique: a fresh short text, for ids."""

    def __init__(
        self,
        metadata: MetadataStore,
        clock: Clock,
        unique: Callable[[], str],
        checks: Seq[Check] = (),
        *,
        interval_s: float = 30.0,
        background: bool = True,
    ) -> None:
        """background: False when the caller checks itself."""
        self._metadata = metadata
        self._clock = clock
        self._unique = unique
        self._checks = tuple(checks)
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._closing = threading.Event()
        found = [msgspec.json.decode(record.value, type=Alert) for record in metadata.list(_PREFIX).values()]
        self._alerts = {alert.id: alert for alert in sorted(found, key=lambda alert: (alert.time_ms, alert.id))}
        self._thread = threading.Thread(target=self._work, name="jade-alerts", daemon=True)
        if background:
            self._thread.start()

    def list(self, type: str | None = None, acknowledged: bool | None = None) -> list[Alert]:
        """Newest first. Raises INVALID_ARGUMENT for an unknown type."""
        wanted = None if type is None else _type(type)
        with self._lock:
            alerts = list(self._alerts.values())
        return [
            alert
            for alert in reversed(alerts)
            if wanted in (None, alert.type) and acknowledged in (None, alert.acknowledged)
        ]

    def create(self, type: str, message: str) -> Alert:
        """Raised by a person. Raises INVALID_ARGUMENT."""
        if not message.strip() or len(message) > ALERT_MESSAGE_LENGTH_MAX:
            raise _invalid(f"message must be 1 to {ALERT_MESSAGE_LENGTH_MAX} characters.")
        with self._lock:
            return self._add(_type(type), message, "")

    def acknowledge(self, alert_id: str, user: str) -> Alert:
        """Again is fine: who was first stays. Raises NOT_FOUND."""
        with self._lock:
            alert = self._alerts.get(alert_id)
            if alert is None:
                raise JadeError(ErrorCode.NOT_FOUND, f"Alert not found: {alert_id!r:.100}.")
            if not alert.acknowledged:
                now = self._clock.now_ms()
                alert = msgspec.structs.replace(alert, acknowledged=True, acknowledged_by=user, acknowledged_ms=now)
                self._keep(alert)
            return alert

    def check(self) -> None:
        """Look at every condition once: raise alerts for what is new, note what has ended."""
        now: dict[str, Condition] = {}
        for check in self._checks:
            for condition in check():
                now.setdefault(condition.key, condition)
        with self._lock:
            lasting = {a.condition: a for a in self._alerts.values() if a.condition and a.ended_ms is None}
            for key, alert in lasting.items():
                if key not in now:
                    self._keep(msgspec.structs.replace(alert, ended_ms=self._clock.now_ms()))
            for key, condition in now.items():
                if key not in lasting:
                    logger.warning("%s", condition.message)
                    self._add(condition.type, condition.message[:ALERT_MESSAGE_LENGTH_MAX], key)

    def _add(self, type: AlertType, message: str, condition: str) -> Alert:
        alert = Alert(
            id=f"alert_{self._unique()}", type=type, message=message, time_ms=self._clock.now_ms(), condition=condition
        )
        self._keep(alert)
        while len(self._alerts) > ALERTS_KEPT_MAX:
            done = (a for a in self._alerts.values() if a.acknowledged and (not a.condition or a.ended_ms is not None))
            self._remove(next(done, next(iter(self._alerts.values()))))
        return alert

    def _keep(self, alert: Alert) -> None:
        key = _PREFIX + alert.id
        stored = self._metadata.get(key)
        written = self._metadata.compare_and_set(
            key, msgspec.json.encode(alert), 0 if stored is None else stored.revision
        )
        assert written is not None, "alerts are kept under the lock of this process alone"
        self._alerts[alert.id] = alert

    def _remove(self, alert: Alert) -> None:
        stored = self._metadata.get(_PREFIX + alert.id)
        if stored is not None:
            self._metadata.compare_and_set(_PREFIX + alert.id, None, stored.revision)
        del self._alerts[alert.id]

    def _work(self) -> None:
        wait_s = 0.0
        while not self._closing.wait(wait_s):
            wait_s = self._interval_s
            try:
                self.check()
            except JadeError as error:  # the disk that is full may be the one alerts are kept on
                logger.warning("alerts can't be kept: %s", error)

    def close(self) -> None:
        """Idempotent."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()


def _type(name: str) -> AlertType:
    try:
        return AlertType(name.lower())
    except ValueError:
        raise _invalid(f"type must be one of {', '.join(AlertType)}, got {name!r:.60}.") from None


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
