"""The application of a reading process: searches and reads from its own memory where it is sure of everything, else the writer's answer.

It is sure when the writer saw the same credential since rights were last taken away from anybody, when the list of databases is the
newest, when the principal may do it, and when the database holds all that was acknowledged. What is refused, fails to be found or
concerns anything but reading is passed on, so every refusal, audit event and password check happens in one place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from jadevectordb.gateway.access.gatekeeper import digest_of
from jadevectordb.gateway.access.operations import OPERATIONS
from jadevectordb.gateway.access.principals import OPEN, Principal
from jadevectordb.gateway.processes.shown import ACCESS
from jadevectordb.gateway.rest.app import TEXT_NAMES, Application, Matched, database_in
from jadevectordb.gateway.rest.errors import problem
from jadevectordb.gateway.rest.http import Request, Response, Route
from jadevectordb.gateway.rest.router import Found
from jadevectordb.model.errors import JadeError
from jadevectordb.model.limits import CREDENTIALS_REMEMBERED_MAX, REQUESTS_WAITING_MAX

if TYPE_CHECKING:
    from jadevectordb.gateway.access.tokens import RandomBytes
    from jadevectordb.gateway.processes.followed import FollowedDatabases
    from jadevectordb.gateway.processes.link import Learned, Link
    from jadevectordb.gateway.processes.reports import ReportedQueries, ReportedTelemetry, Reports
    from jadevectordb.gateway.service.services import Services
    from jadevectordb.ports.clock import Clock
    from jadevectordb.ports.shared_page import SeenPage
    from jadevectordb.settings.schema import Settings

_V1, _V2 = "/v1/databases/{databaseId}", "/v2/databases/{db}"
OWN = frozenset(
    {
        ("POST", _V1 + "/search"),
        ("POST", _V1 + "/search/advanced"),
        ("GET", _V1 + "/vectors/{vectorId}"),
        ("POST", _V2 + "/search"),
        ("POST", _V2 + "/search/batch"),
        ("POST", _V2 + "/vectors/get"),
        ("POST", _V2 + "/vectors/exists"),
        ("GET", _V2 + "/vectors/{vectorId}"),
        ("POST", _V2 + "/count"),
    }
)
_ESCAPE = b"\\"  # in JSON: a field's name may be written in ways that a look at the bytes does not find


@dataclass(slots=True)
class ReadingServices:
    """As much of `Services` as the handlers of the routes in `OWN`, and `Application` itself, use."""

    version: str
    settings: Settings
    clock: Clock
    catalog: FollowedDatabases
    telemetry: ReportedTelemetry
    analytics: ReportedQueries


class Passed(Matched):
    """A request that the writer answers."""

    __slots__ = ()

    def __init__(self, request: Request) -> None:
        self.request = request
        self.inline = self.awaited = False
        self.started = time.perf_counter()


class Credentials:
    """Who sent which headers, as the writer said, until something is taken away from anybody. On the event loop only."""

    def __init__(self, page: SeenPage, clock: Clock, random: RandomBytes, *, is_open: bool) -> None:
        self._page = page
        self._clock = clock
        self._pepper = random(32)
        self._nobody = OPEN if is_open else None
        self._known: dict[bytes, tuple[Principal, int, int]] = {}  # principal, number of the page, until when

    @property
    def number(self) -> int:
        """To be read before the writer is asked."""
        return self._page.get(ACCESS)

    def find(self, request: Request) -> Principal | None:
        """None: the writer has to be asked."""
        authorization, api_key = request.headers.get("authorization"), request.headers.get("x-api-key")
        if authorization is None and api_key is None:
            return self._nobody
        known = self._known.get(digest_of(authorization, api_key, self._pepper))
        if known is None or known[1] != self.number or known[2] <= self._clock.now_ms():
            return None
        return known[0]

    def learn(self, request: Request, learned: Learned, number: int) -> None:
        digest = digest_of(request.headers.get("authorization"), request.headers.get("x-api-key"), self._pepper)
        if len(self._known) >= CREDENTIALS_REMEMBERED_MAX and digest not in self._known:
            del self._known[next(iter(self._known))]
        self._known[digest] = (learned[0], number, learned[1])


class ReadingApplication(Application):
    """passes_all: everything goes to the writer, because something about every request is counted there."""

    def __init__(
        self,
        services: ReadingServices,
        routes: Iterable[Route],
        link: Link,
        credentials: Credentials,
        reports: Reports,
        *,
        passes_all: bool,
    ) -> None:
        super().__init__(cast("Services", services), routes)
        self._followed = services.catalog
        self._link = link
        self._credentials = credentials
        self._reports = reports
        self._clock = services.clock
        self._passes_all = passes_all

    def match(self, request: Request) -> Matched | Response:
        if self._passes_all:
            return Passed(request)
        try:
            return self._own(request) or Passed(request)
        except JadeError:  # the writer finds the same, says it and remembers it
            return Passed(request)

    def _own(self, request: Request) -> Matched | None:
        """The request, ready to be answered here; None when the writer has to. Raises what the writer would answer."""
        found = self._router.find(request.method, request.path)
        if not isinstance(found, Found) or (found.route.method, found.route.template) not in OWN:
            return None
        route = found.route
        operation = OPERATIONS[route.operation]
        if operation.name == "search" and route.template.startswith(_V1) and _may_need_a_model(request.body):
            return None
        principal = self._credentials.find(request)
        if principal is None or self._perimeter.refuse(request) is not None or not self._followed.refresh():
            return None
        request.params = found.params
        entry = self._followed.resolve(database_in(request), principal, operation)
        if not self._followed.is_ready(entry):
            return None
        request.principal, request.database = principal, entry
        request.client = self._perimeter.client_of(request)
        self._name(request)
        inline = route.inline and (operation.name != "search" or self._is_cheap(request))
        return Matched(request, route, operation, inline)

    def _admit(self, matched: Matched) -> None:
        """Done already, on the event loop."""
        principal = matched.request.principal
        if principal.credential_id:
            self._reports.use(principal.user_id, principal.credential_id, self._clock.now_ms())

    def _audit(self, matched: Matched, event: str, *, success: bool) -> None:
        """No read is audited but searches, and where they are, the writer answers all of them (`passes_all`)."""

    def submit(self, matched: Matched) -> asyncio.Future[Response]:
        if not isinstance(matched, Passed):
            return super().submit(matched)
        if self._link.waiting >= REQUESTS_WAITING_MAX:
            refused: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
            refused.set_result(problem(429, "Too many requests are waiting: retry in a moment.", retry_after_s=1))
            return refused
        return asyncio.ensure_future(self._pass_on(matched.request))

    async def _pass_on(self, request: Request) -> Response:
        number = self._credentials.number
        answer, learned = await self._link.ask(request)
        if learned is not None:
            self._credentials.learn(request, learned, number)
        return answer


def _may_need_a_model(body: bytes) -> bool:
    """Whether a search of version 1 has a text: only the writer has the models that read it."""
    return _ESCAPE in body or any(name in body for name in TEXT_NAMES)
