"""The audit log: who did what, when, from where, and whether it worked. Kinds and fields as clients of the REST API read them.

Only what helps to answer "who did this?" is written; passwords, tokens, keys, vectors and metadata never are. The name that
somebody typed at a failed sign-in is not kept either unless it is an account's: people type passwords into the wrong field.
"""

from __future__ import annotations

from collections.abc import Callable

from jadevectordb.gateway.access.principals import Principal
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import AUDIT_PAGE_MAX, AUDIT_ROWS_MAX, EVENT_TEXT_LENGTH_MAX
from jadevectordb.ports.clock import Clock
from jadevectordb.ports.event_log import Event, EventFilter, EventLog, EventSums

EVENTS = (
    "login", "login_failed", "logout", "register", "user_create", "user_update", "user_delete", "password_change",
    "password_reset", "api_key_create", "api_key_revoke", "database_create", "database_update", "database_delete",
    "vector_store", "vector_update", "vector_delete", "search", "index_create", "index_update", "index_delete",
    "permission_denied", "config_change", "shutdown",
)  # fmt: skip
# Written before the request is answered; all others within a second.
_AT_ONCE = frozenset(EVENTS[:11]) | {"database_create", "database_delete", "config_change", "shutdown"}
_CHANGES = frozenset(EVENTS) - {"login", "login_failed", "logout", "search", "permission_denied"}
_DATA = frozenset(
    {"vector_store", "vector_update", "index_create", "index_update", "database_create", "database_update"}
)
_DELETIONS = frozenset({"vector_delete", "index_delete", "database_delete"})
# Names that older programs ask for: each is a set of kinds, and for some of success or failure.
CLASSES: dict[str, tuple[frozenset[str], bool | None]] = {
    "AUTHENTICATION_ATTEMPT": (frozenset({"login", "login_failed"}), None),
    "AUTHENTICATION_SUCCESS": (frozenset({"login"}), True),
    "AUTHENTICATION_FAILURE": (frozenset({"login_failed"}), None),
    "AUTHORIZATION_CHECK": (frozenset({"permission_denied"}), None),
    "AUTHORIZATION_GRANTED": (_CHANGES | {"search"}, True),
    "AUTHORIZATION_DENIED": (frozenset({"permission_denied"}), None),
    "DATA_ACCESS": (frozenset({"search"}), None),
    "DATA_MODIFICATION": (_DATA, None),
    "DATA_DELETION": (_DELETIONS, None),
    "CONFIGURATION_CHANGE": (frozenset({"config_change", "database_update", "index_update", "shutdown"}), None),
    "ADMIN_OPERATION": (_CHANGES - _DATA - _DELETIONS - {"register"}, None),
}
_KNOWN = frozenset(EVENTS)


class Audit:
    """new_id: a fresh `evt_...`. keep_searches: record every search; off by default, analytics records them."""

    def __init__(
        self, log: EventLog, clock: Clock, new_id: Callable[[], str], *, keep_ms: int, keep_searches: bool = False
    ) -> None:
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self._keep_ms = keep_ms
        self._keep_searches = keep_searches

    def record(
        self,
        kind: str,
        principal: Principal,
        client: str,
        *,
        success: bool = True,
        details: str = "",
        resource: str = "",
        operation: str = "",
        user_id: str | None = None,
        user: str | None = None,
    ) -> None:
        """Never raises for trouble with the disk. user_id, user: whom it is about when nobody is signed in (a login)."""
        assert kind in _KNOWN, f"no kind of event is called {kind!r}"
        if kind == "search" and not self._keep_searches:
            return
        event = Event(
            id=self._new_id(),
            time_ms=self._clock.now_ms(),
            kind=kind,
            user_id=principal.user_id if user_id is None else user_id,
            user=principal.username if user is None else user,
            success=success,
            address=client,
            session_id=principal.credential_id if principal.kind == "session" else "",
            resource=resource[:EVENT_TEXT_LENGTH_MAX],
            operation=operation[:EVENT_TEXT_LENGTH_MAX],
            details=details[:EVENT_TEXT_LENGTH_MAX],
        )
        try:
            self._log.append(event, at_once=kind in _AT_ONCE)
        except JadeError as error:
            if error.code is not ErrorCode.CLOSED:  # a request that outlives the server's stop
                raise

    def query(self, which: EventFilter, *, limit: int, offset: int) -> list[Event]:
        """Newest first."""
        return self._log.query(which, limit=min(limit, AUDIT_PAGE_MAX), offset=offset)

    def count(self, which: EventFilter) -> int:
        return self._log.count(which)

    def sums(self, which: EventFilter) -> EventSums:
        return self._log.sums(which)

    @property
    def dropped(self) -> int:
        return self._log.dropped

    def prune(self) -> int:
        return self._log.prune(before_ms=self._clock.now_ms() - self._keep_ms, rows_max=AUDIT_ROWS_MAX)


def which(event_type: str | None, user_id: str | None) -> EventFilter:
    """The filter of a question: event_type is a kind or one of the older classes. Raises INVALID_ARGUMENT for any other."""
    if not event_type:
        return EventFilter(user_id=user_id)
    if event_type.upper() in CLASSES:
        kinds, success = CLASSES[event_type.upper()]
        return EventFilter(kinds=kinds, success=success, user_id=user_id)
    if event_type.lower() in _KNOWN:
        return EventFilter(kinds=frozenset({event_type.lower()}), user_id=user_id)
    raise JadeError(
        ErrorCode.INVALID_ARGUMENT,
        f"Unknown event_type {event_type!r:.60}: use {', '.join(EVENTS)}, or {', '.join(CLASSES)}.",
    )
