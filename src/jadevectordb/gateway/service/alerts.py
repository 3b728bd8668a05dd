"""Alerts: what an operator should know, kept until somebody acknowledges it, raised by the system and by people.

A system alert belongs to a condition, such as a disk that is almost full. While it lasts there is one alert for it, however
often it is looked at; acknowledged, it stays quiet until the condition has ended and come back.

Alerts are in the metadata store alone, so all nodes of a cluster list and acknowledge the same ones. What a node sees of itself it
raises and ends itself; what is the same seen from anywhere, such as the state of a database, one node speaks of.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from enum import StrEnum

import msgspec

from jadevectordb.gateway.access.records import Records
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import ALERT_MESSAGE_LENGTH_MAX, ALERTS_KEPT_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.metadata_store import MetadataStore

logger = logging.getLogger("jadevectordb.alerts")
_OF_NODE = "!"  # between the name of a node and what is the matter with it; names of nodes have none


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
    """Thread-safe, and safe among processes that share the store. checks: what to look at every `interval_s`; see `health_checks`.

    unique: a fresh short text, for ids. node: whose conditions `own_checks` tell, "" on a single node. is_speaker: whether this
    process speaks of what `checks` tell.
    """

    def __init__(
        self,
        metadata: MetadataStore,
        clock: Clock,
        unique: Callable[[], str],
        checks: Seq[Check] = (),
        *,
        own_checks: Seq[Check] = (),
        node: str = "",
        is_speaker: Callable[[], bool] = lambda: True,
        interval_s: float = 30.0,
        background: bool = True,
    ) -> None:
        """background: False when the caller checks itself."""
        self._records = Records(metadata, "alert", Alert)
        self._clock = clock
        self._unique = unique
        self._checks = tuple(checks)
        self._own_checks = tuple(own_checks)
        self._own = f"{node}{_OF_NODE}" if node else ""
        self._is_speaker = is_speaker
        self._interval_s = interval_s
        self._lock = threading.Lock()  # one at a time raises alerts here
        self._room = 0  # for alerts raised here until all are counted again
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="jade-alerts", daemon=True)
        if background:
            self._thread.start()

    def list(self, type: str | None = None, acknowledged: bool | None = None) -> list[Alert]:
        """Newest first. Raises INVALID_ARGUMENT for an unknown type."""
        wanted = None if type is None else _type(type)
        return [
            alert
            for alert in reversed(self._every())
            if wanted in (None, alert.type) and acknowledged in (None, alert.acknowledged)
        ]

    def _every(self) -> Seq[Alert]:
        """Oldest first."""
        return sorted(self._records.list().values(), key=lambda alert: (alert.time_ms, alert.id))

    def create(self, type: str, message: str) -> Alert:
        """Raised by a person. Raises INVALID_ARGUMENT."""
        if not message.strip() or len(message) > ALERT_MESSAGE_LENGTH_MAX:
            raise _invalid(f"message must be 1 to {ALERT_MESSAGE_LENGTH_MAX} characters.")
        with self._lock:
            return self._add(_type(type), message, "")

    def acknowledge(self, alert_id: str, user: str) -> Alert:
        """Again is fine: who was first stays. Raises NOT_FOUND."""
        now = self._clock.now_ms()

        def step(alert: Alert) -> Alert:
            if alert.acknowledged:
                return alert
            return msgspec.structs.replace(alert, acknowledged=True, acknowledged_by=user, acknowledged_ms=now)

        acknowledged = self._records.change(alert_id, step)
        if acknowledged is None:
            raise JadeError(ErrorCode.NOT_FOUND, f"Alert not found: {alert_id!r:.100}.")
        return acknowledged

    def check(self) -> None:
        """Look at every condition once: raise alerts for what is new, note what has ended."""
        self._check(self._own_checks, self._own)
        if self._is_speaker():
            self._check(self._checks, "")

    def _check(self, checks: Seq[Check], scope: str) -> None:
        """scope: what the keys of their conditions begin with; "" is for those of no node."""
        if not checks:
            return
        now: dict[str, Condition] = {}
        for check in checks:
            for condition in check():
                now.setdefault(scope + condition.key, condition)
        with self._lock:
            lasting = {
                alert.condition: alert
                for alert in self._every()
                if alert.condition and alert.ended_ms is None and _scope_of(alert.condition) == scope
            }
            ended_ms = self._clock.now_ms()
            for key, alert in lasting.items():
                if key not in now:
                    self._records.change(alert.id, lambda ending: msgspec.structs.replace(ending, ended_ms=ended_ms))
            for key, condition in now.items():
                if key not in lasting:
                    logger.warning("%s", condition.message)
                    of_node = f"Node {scope.removesuffix(_OF_NODE)}: " if scope else ""
                    self._add(condition.type, f"{of_node}{condition.message}"[:ALERT_MESSAGE_LENGTH_MAX], key)

    def _add(self, type: AlertType, message: str, condition: str) -> Alert:
        alert = Alert(
            id=f"alert_{self._unique()}", type=type, message=message, time_ms=self._clock.now_ms(), condition=condition
        )
        added = self._records.add(alert.id, alert)
        assert added, "two alerts with the same random id"
        self._room -= 1
        if self._room < 0:
            self._make_room()
        return alert

    def _make_room(self) -> None:
        kept = [*self._every()]
        while len(kept) > ALERTS_KEPT_MAX:
            done = (a for a in kept if a.acknowledged and (not a.condition or a.ended_ms is not None))
            gone = next(done, kept[0])
            self._records.remove(gone.id)
            kept.remove(gone)
        self._room = ALERTS_KEPT_MAX - len(kept)

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


def _scope_of(condition: str) -> str:
    node, of_node, _ = condition.partition(_OF_NODE)
    return node + of_node if of_node else ""


def _type(name: str) -> AlertType:
    try:
        return AlertType(name.lower())
    except ValueError:
        raise _invalid(f"type must be one of {', '.join(AlertType)}, got {name!r:.60}.") from None


def _invalid(message: str) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message)
