"""One call under way: who asks, about which database, whether anybody still waits for the answer, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import grpc

from jadevectordb.gateway.access.operations import Operation, Scope, check
from jadevectordb.gateway.access.principals import ANONYMOUS, Principal
from jadevectordb.gateway.rpc.errors import SESSION_KEY
from jadevectordb.gateway.service.catalog import Entry
from jadevectordb.gateway.service.sessions import reading, seen_after, token_of, writing, written_by
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.query.seen import SeenSequences

if TYPE_CHECKING:
    from jadevectordb.gateway.rpc.node import Node
    from jadevectordb.gateway.service.services import Services

AUTHORIZATION = "authorization"
API_KEY = "x-api-key"
CONSISTENCY = "x-jade-consistency"
HEALTH_OPERATION = "health"  # whatever credential comes with it
_REFUSALS = frozenset({ErrorCode.FORBIDDEN, ErrorCode.PASSWORD_CHANGE_REQUIRED})


class Call:
    """node: the process-wide state of the gRPC door."""

    __slots__ = (
        "_entry", "_metadata", "_note", "_seen", "client", "context", "node", "operation", "principal", "services",
    )  # fmt: skip

    def __init__(self, node: Node, operation: Operation, context: grpc.ServicerContext) -> None:
        self.node = node
        self.services: Services = node.services
        self.operation = operation
        self.context = context
        self.client = client_of(context.peer())
        self.principal: Principal = ANONYMOUS
        self._entry: Entry | None = None
        self._note: str | None = None
        self._seen: SeenSequences | None = None  # of the client, once something was read
        self._metadata: dict[str, Any] = dict(context.invocation_metadata())

    # Admission

    def admit(self) -> None:
        """Authenticate and count against the limits; for operations on the server as a whole also check the right.

        Raises UNAUTHORIZED, RATE_LIMITED, FORBIDDEN.
        """
        operation, access = self.operation, self.services.access
        self.check_wanted()
        if operation.name == HEALTH_OPERATION:
            return
        if self.node.stopping:
            raise JadeError(ErrorCode.UNAVAILABLE, "The server is stopping: retry in a moment.")
        self.principal = access.gatekeeper.authenticate(
            self._metadata.get(AUTHORIZATION), self._metadata.get(API_KEY), self.client
        )
        access.limits.admit(self.principal, self.client, operation.name)
        # Without a credential no database exists for the caller; the answer is what is missing, not that it was not found
        if operation.scope is Scope.SERVER or self.principal.is_anonymous:
            check(operation, self.principal, None)

    def resolve(self, database: str) -> Entry:
        """The database the call is about, if the caller may do this with it. Raises UNKNOWN_DATABASE, FORBIDDEN, UNAUTHORIZED."""
        self._entry = self.services.catalog.resolve(database, self.principal, self.operation)
        return self._entry

    @property
    def entry(self) -> Entry:
        assert self._entry is not None, "the call is about no database"
        return self._entry

    def reading(self, session: str) -> Mapping[str, Any]:
        """What to give a read beside its own arguments. session: of the message, "" for none.

        Raises UNAVAILABLE when this node has not applied what the caller has seen.
        """
        given = reading(session or self._metadata.get(SESSION_KEY, ""), self._metadata.get(CONSISTENCY, ""), self.entry)
        self._seen = given.get("seen")
        return given

    @property
    def session(self) -> str:
        """The token to answer after a read, "" where reads need none."""
        return token_of(self.entry.id, self._seen)

    def session_after(self, sequences: Mapping[int, int]) -> str:
        """The token to answer after a write that got these sequences, by shard. In a stream it stands for all before too."""
        self._seen = seen_after(self._metadata.get(SESSION_KEY, ""), sequences, self.entry, self._seen)
        return token_of(self.entry.id, self._seen)

    def session_after_error(self, error: JadeError) -> str:
        """The token to send with an error, "" where there is none: what was written or shown before it must not be lost."""
        written = written_by(error)
        if written and self._entry is not None:
            return self.session_after(written)
        return "" if self._entry is None else token_of(self._entry.id, self._seen)

    def writing(self) -> Mapping[str, Any]:
        """What to give a write beside its own arguments."""
        return writing(self._metadata.get(CONSISTENCY, ""), self.entry, self._metadata.get(SESSION_KEY, ""))

    def explain(self, error: JadeError) -> JadeError:
        return self.services.catalog.explain(error, self._entry)

    # Interest

    def check_wanted(self) -> None:
        """Raises TIMEOUT when the deadline has passed, CANCELLED when the caller gave up: nothing further is to be done."""
        if self.context.time_remaining() == 0:
            raise JadeError(ErrorCode.TIMEOUT, "The deadline of the call has passed; what had not begun was not done.")
        if not self.context.is_active():
            raise JadeError(ErrorCode.CANCELLED, "The call was cancelled; what had not begun was not done.")

    def remaining_s(self, limit_s: float) -> float:
        """Until the deadline, at most `limit_s`."""
        left_s = self.context.time_remaining()
        return limit_s if left_s is None else min(limit_s, left_s)

    # Record

    def audit(self) -> None:
        """It was done. Streams call it for each message that changed something."""
        if self._note is not None:
            self._audit(True, self._note)
            self._note = None

    def did(self, note: str) -> None:
        """Something was done that the operation wants recorded: to be audited, with this note, once the call has succeeded."""
        self._note = note

    def audit_failure(self, error: JadeError) -> None:
        self.services.telemetry.count_error(error.code)
        operation = self.operation
        if error.code in _REFUSALS:
            self._audit(False, "", "permission_denied")
        elif operation.audit_event is not None and not self.principal.is_anonymous:
            self._audit(False, str(error.code))

    def _audit(self, success: bool, note: str, event: str | None = None) -> None:
        event = event or self.operation.audit_event
        assert event is not None, f"{self.operation.name} is not audited"
        self.services.access.audit.record(
            event,
            self.principal,
            self.client,
            success=success,
            details=note,
            resource="" if self._entry is None else self._entry.id,
            operation=self.operation.name,
        )


def client_of(peer: str) -> str:
    """The address in gRPC's `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`, without port."""
    if peer.startswith("ipv4:"):
        return peer[5:].rpartition(":")[0]
    if peer.startswith("ipv6:"):
        return peer[5:].rpartition(":")[0].replace("%5B", "").replace("%5D", "").strip("[]")
    return peer
