"""A request, a response and a route as the handlers see them: plain values, no sockets, no event loop.

Every route of the server is a function `handler(services, request) -> Response`. What is cheap runs on the event loop itself, the
rest in a bounded pool of threads; the handler does not know which. One that waits for other nodes of a cluster is a coroutine
(`query.awaiting`): it holds no thread meanwhile.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import parse_qsl

import msgspec
from msgspec import StructMeta

from jadevectordb.gateway.access.principals import ANONYMOUS, Principal
from jadevectordb.model.errors import ErrorCode, JadeError
from jadevectordb.model.limits import IGNORED_FIELDS_NAMED_MAX
from jadevectordb.query.seen import SeenSequences

if TYPE_CHECKING:
    from jadevectordb.gateway.service.catalog import Entry
    from jadevectordb.gateway.service.services import Services

T = TypeVar("T")
JSON = "application/json"
RAW = "application/octet-stream"
_TRUE = {"true", "1", "yes"}
_FALSE = {"false", "0", "no"}
encode = msgspec.json.Encoder().encode


class Request:
    """One request, whole. params: path parameters, percent-decoded once. headers: lower-case names. client: the peer's address."""

    __slots__ = (
        "_query", "audit_note", "body", "client", "database", "headers", "ignored_fields", "method", "params", "path", "principal",
        "query_string", "request_id", "seen",
    )  # fmt: skip

    def __init__(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes = b"",
        *,
        query_string: str = "",
        params: dict[str, str] | None = None,
        client: str = "",
        request_id: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.query_string = query_string
        self.headers = headers
        self.body = body
        self.params = {} if params is None else params
        self.client = client
        self.request_id = request_id
        self.principal: Principal = ANONYMOUS
        self.database: Entry | None = None
        self.ignored_fields: list[str] = []
        self.audit_note = ""  # what an audit event should say about it
        self.seen: SeenSequences | None = None  # what the client has seen, once something was read or written
        self._query: dict[str, str] | None = None

    @property
    def query(self) -> dict[str, str]:
        """The query string; of a name given twice the last value counts."""
        if self._query is None:
            self._query = dict(parse_qsl(self.query_string, keep_blank_values=True)) if self.query_string else {}
        return self._query

    @property
    def entry(self) -> Entry:
        """The database of a route that names one; access to it is checked already."""
        assert self.database is not None, "the route has no database in its path"
        return self.database

    @property
    def is_raw(self) -> bool:
        return self.headers.get("content-type", "").startswith(RAW)

    @property
    def wants_raw(self) -> bool:
        return self.headers.get("accept", "").startswith(RAW)

    def json(self, type: type[T]) -> T:
        """The body as this type; an empty body is an empty object. Raises INVALID_ARGUMENT saying what is wrong and where."""
        return decode(self.body or b"{}", type)

    def object(self) -> dict[str, Any]:
        """The body as a JSON object; an empty body, or null, is an empty one."""
        return self.json(dict[str, Any] | None) or {}  # type: ignore[arg-type]  # a union is no type to mypy

    def fields(self, aliases: Mapping[str, str]) -> dict[str, Any]:
        """The body with its names folded: `aliases` says every accepted name and what it means. null counts as absent.

        Names nobody knows are kept in `ignored_fields`. Raises INVALID_ARGUMENT when two spellings of a field disagree.
        """
        return self.folded(self.object(), aliases)

    def folded(self, given: Mapping[str, Any], aliases: Mapping[str, str], where: str = "") -> dict[str, Any]:
        """The same of an object inside the body. where: its place, in front of the names."""
        folded: dict[str, Any] = {}
        for name, value in given.items():
            meaning = aliases.get(name)
            if meaning is None:
                self._ignored(where + name)
            elif value is not None:
                if meaning in folded and folded[meaning] != value:
                    raise invalid(
                        f"Two spellings of {where + meaning!r} are given with different values: give one of them."
                    )
                folded[meaning] = value
        return folded

    def _ignored(self, name: str) -> None:
        if len(self.ignored_fields) < IGNORED_FIELDS_NAMED_MAX and name not in self.ignored_fields:
            self.ignored_fields.append(name)

    def parameter(self, name: str) -> str:
        """A query parameter, in either spelling: start_time or startTime; "" when it is absent."""
        value = self.query.get(name, "")
        if not value and "_" in name:
            first, *rest = name.split("_")
            value = self.query.get(first + "".join(map(str.capitalize, rest)), "")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        """A query parameter as an integer within bounds (both included)."""
        text = self.parameter(name)
        if not text:
            return default
        try:
            value = int(text)
        except ValueError:
            raise invalid(f"{name} must be an integer, got {text!r:.60}.") from None
        if not low <= value <= high:
            raise invalid(f"{name} must be {low} to {high}, got {value}.")
        return value

    def time_ms(self, name: str) -> int | None:
        """A query parameter as a time in ms since 1970: ISO 8601 or integer ms; None when it is absent."""
        text = self.parameter(name)
        return None if not text else parse_time_ms(text, name)

    def flag(self, name: str, default: bool = False) -> bool:
        text = self.parameter(name).lower()
        if not text:
            return default
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        raise invalid(f"{name} must be true or false, got {text!r:.60}.")


class Response:
    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self, status: int, body: bytes, content_type: str = JSON, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers


def reply(value: Any, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Response:
    """A JSON answer, compact."""
    return Response(status, encode(value), JSON, headers)


Handler = Callable[["Services", Request], Response | Coroutine[Any, Any, Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """template: the path with {parameters}. operation: its name in the table of rights. inline: cheap, never waits.

    request, answer: the types of body and answer, for the API description. summary: one line for people.
    """

    method: str
    template: str
    operation: str
    handler: Handler
    inline: bool = False
    summary: str = ""
    request: Any = None
    answer: Any = None
    success: int = 200


def decode(body: bytes, type: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=type)
    except msgspec.ValidationError as error:
        raise invalid(f"The body does not fit: {error}{_choices(type, str(error))}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise invalid(f"The body is not valid JSON: {error}.") from None


def _choices(type: Any, message: str) -> str:
    """Of a field that takes one of a few words: these, which the decoder does not tell. type: of the body."""
    at = re.match(r"Invalid enum value .* - at `\$\.([a-z_.]+)", message)
    if at is None:
        return ""
    kinds = [type]
    for name in at[1].split("."):
        structs = [one for one in kinds if isinstance(one, StructMeta)]
        kinds = [kind for one in structs for kind in _alternatives(get_type_hints(one).get(name))]
    words = [str(word) for kind in kinds if get_origin(kind) is Literal for word in get_args(kind)]
    return f"; use one of {', '.join(words)}" if words else ""


def _alternatives(hint: Any) -> list[Any]:
    """The types in a union, a list or a tuple."""
    parts = () if get_origin(hint) is Literal else get_args(hint)
    return [hint, *(kind for part in parts for kind in _alternatives(part))]


def invalid(message: str, **details: Any) -> JadeError:
    return JadeError(ErrorCode.INVALID_ARGUMENT, message, details=details)


def parse_time_ms(value: str | int, name: str) -> int:
    """ISO 8601 or integer ms since 1970. Raises INVALID_ARGUMENT."""
    text = str(value).strip()
    try:
        return int(text)
    except ValueError:
        pass
    try:
        # A '+' of a zone in a query string arrives as a space
        moment = datetime.datetime.fromisoformat(
            text.replace(" ", "+") if text.count(" ") == 1 and "T" in text else text
        )
    except ValueError:
        raise invalid(f"{name} must be a time as ISO 8601 or integer milliseconds, got {text!r:.60}.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return int(moment.timestamp() * 1000)


def iso(time_ms: int | None) -> str | None:
    """2026-01-31T12:00:00.000Z, the form of every time but those of analytics."""
    if time_ms is None:
        return None
    moment = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03}Z"
